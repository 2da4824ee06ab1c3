"""Schedule of training: learning rate drops, the phase on tokens, early stopping."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.training.results import EpochRecord, Phase


@dataclass
class ScheduleState:
    """Progress of a training; kept with every epoch."""

    epoch: int = 0
    """Epochs done, or the number of the running one."""
    phase: Phase = "pooled"
    lr_drops: int = 0
    stale: int = 0
    """Epochs since the best one, or since the learning rate dropped."""
    best_value: float | None = None
    best_epoch: int = 0
    ended: bool = False
    history: list[EpochRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ScheduleState":
        """The state of its JSON form; other keys are ignored."""
        state = cls(**{each.name: values[each.name] for each in fields(cls)})
        state.history = [EpochRecord.from_json(record) for record in values["history"]]
        return state

    def to_json(self) -> Json:
        """Field names and values."""
        return {**vars(self), "history": [record.to_json() for record in self.history]}


class Schedule:
    """Decides after each epoch whether and how training continues.

    Without a better validation score for `patience` epochs the learning rate drops; after `max_lr_drops`
    drops the phase ends. Epochs on tokens follow those on pooled text, at the full learning rate.

    Parameters
    ----------
    state
        Progress so far; a new training if not given.
    """

    def __init__(self, model: ModelConfig, training: TrainConfig, state: ScheduleState | None = None) -> None:
        self.training = training
        # Where sentiment is no linear map, tokens are all that it can be learned from.
        self._epochs: dict[Phase, int] = {"pooled": training.num_epochs, "tokens": training.token_epochs}
        if model.sentiment != "linear":
            self._epochs = {"pooled": 0, "tokens": training.num_epochs}
        self.state = state or ScheduleState(phase="pooled" if model.sentiment == "linear" else "tokens")

    @property
    def max_epochs(self) -> int:
        """Upper limit of the number of epochs, over both phases."""
        return sum(self._epochs.values())

    @property
    def best(self) -> EpochRecord:
        """Record of the best epoch."""
        return self.state.history[self.state.best_epoch - 1]

    def value(self, record: EpochRecord) -> float:
        """The metric of an epoch that validation watches."""
        return float(record.valid[self.training.watched])

    def record(self, record: EpochRecord) -> bool:
        """Append an epoch and drop the learning rate, or end the phase, where patience is exhausted.

        Returns
        -------
        bool
            Whether the epoch is the best so far.
        """
        state, value = self.state, self.value(record)
        state.history.append(record)
        best = state.best_value
        if best is None or (value < best if self.training.lower_is_better else value > best):
            state.best_value, state.best_epoch, state.stale = value, state.epoch, 0
            return True
        state.stale += 1
        if state.stale >= self.training.patience:
            state.stale = 0
            if state.lr_drops == self.training.max_lr_drops:
                state.ended = True
            else:
                state.lr_drops += 1
        return False

    def has_next_epoch(self) -> bool:
        """Whether an epoch is left; enters the phase on tokens where that on pooled text has ended."""
        state = self.state
        done = sum(record.phase == state.phase for record in state.history)
        state.ended = state.ended or done >= self._epochs[state.phase]
        if state.ended and state.phase == "pooled" and self._epochs["tokens"]:
            state.phase, state.ended, state.stale, state.lr_drops = "tokens", False, 0, 0
        return not state.ended
