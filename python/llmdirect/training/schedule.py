"""How training goes on after an epoch: at a lower learning rate, on tokens, or not at all."""

from dataclasses import dataclass, field

from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig


@dataclass
class TrainState:
    """What decides how training goes on; kept with every epoch."""

    epoch: int = 0
    phase: str = "pooled"
    """What epochs are on: `pooled` text, or `tokens`."""
    lr_drops: int = 0
    stale: int = 0
    """Epochs since the best one, or since the learning rate dropped."""
    best_value: float | None = None
    best_epoch: int = 0
    ended: bool = False
    history: list[Json] = field(default_factory=list)


class Schedule:
    """Moves its course on as validation asks for it."""

    def __init__(self, model: ModelConfig, training: TrainConfig) -> None:
        self.training = training
        # Where sentiment is no linear map, tokens are all that it can be learned from.
        self._epochs = {"pooled": training.num_epochs, "tokens": training.token_epochs}
        if model.sentiment != "linear":
            self._epochs = {"pooled": 0, "tokens": training.num_epochs}
        self.course = TrainState(phase="pooled" if model.sentiment == "linear" else "tokens")

    @property
    def epochs(self) -> int:
        """At most, in all."""
        return sum(self._epochs.values())

    def value(self, entry: Json) -> float:
        """The figure of an epoch that validation watches."""
        return float(entry["valid"][self.training.watched])

    def record(self, entry: Json) -> bool:
        """Enters an epoch; whether it is the best so far. Where patience ends, the learning rate drops."""
        course, value = self.course, self.value(entry)
        course.history.append(entry)
        best = course.best_value
        if best is None or (value < best if self.training.lower_is_better else value > best):
            course.best_value, course.best_epoch, course.stale = value, course.epoch, 0
            return True
        course.stale += 1
        if course.stale >= self.training.patience:
            course.stale = 0
            if course.lr_drops == self.training.max_lr_drops:
                course.ended = True
            else:
                course.lr_drops += 1
        return False

    def has_next_epoch(self) -> bool:
        """Whether an epoch is left; those on tokens come after those on pooled text, at the full rate."""
        course = self.course
        done = sum(entry["phase"] == course.phase for entry in course.history)
        course.ended = course.ended or done >= self._epochs[course.phase]
        if course.ended and course.phase == "pooled" and self._epochs["tokens"]:
            course.phase, course.ended, course.stale, course.lr_drops = "tokens", False, 0, 0
        return not course.ended
