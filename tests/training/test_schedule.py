"""Training schedule: patience, learning rate drops, token epochs, early stopping."""

from collections.abc import Sequence
from typing import Any

import pytest

from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.training.results import EpochRecord
from llmdirect.training.schedule import Schedule


def schedule(model: ModelConfig | None = None, **training: Any) -> Schedule:
    return Schedule(model or ModelConfig(), TrainConfig(**training))


def run(on: Schedule, values: Sequence[float], figure: str = "ndcg@10") -> list[tuple[str, int, bool]]:
    """(phase, drops of the learning rate before it, whether the best) of each epoch until the end."""
    epochs = []
    for value in values:
        if not on.has_next_epoch():
            break
        state = on.state
        state.epoch += 1
        at = state.phase, state.lr_drops
        record = EpochRecord(
            epoch=state.epoch,
            phase=state.phase,
            lr=1.0,
            losses={"loss": 1.0},
            valid={figure: value},
            seconds=0.0,
        )
        epochs.append((*at, on.record(record)))
    return epochs


def test_stops_after_patience_and_drops() -> None:
    training_schedule = schedule(patience=2, max_lr_drops=1, num_epochs=99)
    epochs = run(training_schedule, [0.1, 0.3, 0.2, 0.3, 0.25, 0.4, 0.4, 0.39, 1.0, 1.0])
    # 0.2 and 0.3 (a tie) are no gain: the rate drops. Two epochs after 0.4 are none, and no drop remains.
    assert epochs == [
        ("pooled", 0, True),
        ("pooled", 0, True),
        ("pooled", 0, False),
        ("pooled", 0, False),
        ("pooled", 1, False),
        ("pooled", 1, True),
        ("pooled", 1, False),
        ("pooled", 1, False),
    ]
    assert (
        training_schedule.state.best_epoch,
        training_schedule.state.best_value,
        training_schedule.state.ended,
    ) == (6, 0.4, True)
    assert not training_schedule.has_next_epoch()


def test_error_metrics_are_minimised() -> None:
    training_schedule = schedule(objective="rating", patience=1, max_lr_drops=0)
    assert [best for *_, best in run(training_schedule, [1.2, 1.1, 1.15, 0.1], "mse")] == [True, True, False]
    assert training_schedule.state.best_value == 1.1


@pytest.mark.parametrize("ends", ["by patience", "by number"])
def test_token_epochs_are_last_at_full_rate(ends: str) -> None:
    patience, first = (1, 4) if ends == "by patience" else (9, 3)
    training_schedule = schedule(patience=patience, max_lr_drops=1, num_epochs=first, token_epochs=2)
    values = [0.5, 0.4, 0.4, 0.6, 0.3] if ends == "by patience" else [0.1, 0.2, 0.5, 0.6, 0.3]
    epochs = run(training_schedule, [*values, 0.9])
    assert [phase for phase, *_ in epochs] == ["pooled"] * 3 + ["tokens"] * 2
    assert [drops for _, drops, _ in epochs[3:]] == [0, 0]
    assert (training_schedule.state.best_epoch, training_schedule.max_epochs) == (4, first + 2)


def test_sentiment_mlp_trains_on_tokens_only() -> None:
    training_schedule = schedule(ModelConfig(sentiment="mlp", channels=1), num_epochs=2)
    assert [phase for phase, *_ in run(training_schedule, [0.1, 0.2, 0.3])] == ["tokens"] * 2
    assert training_schedule.max_epochs == 2
