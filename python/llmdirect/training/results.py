"""Results of a training: a record of each epoch, of the collaborative term, and of the whole run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmdirect.common.types import Json, Result

Phase = Literal["pooled", "tokens"]
"""What an epoch reads: pooled text, or single tokens."""


@dataclass(frozen=True, kw_only=True)
class CollaborationRecord(Result):
    """The collaborative term that validation selected."""

    made_of: str
    """One of `config.HISTORY_TERMS`."""
    weight: float
    """Weight of the term in the score; 0: no term."""
    spread: float
    """Standard deviation of the weighted term over items that users do not have."""
    ridge: float
    """L2 regularisation of EASE."""
    similarity: dict[str, float]
    """Weight in EASE of the similarity of `words` and of `embeddings`, those that train has."""
    seconds: float

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CollaborationRecord":
        """The record of its JSON form."""
        values = dict(values)
        return cls(similarity=values.pop("likeness"), **values)

    def to_json(self) -> Json:
        """JSON form; the weights of the similarities are called `likeness` in it."""
        return {"likeness" if key == "similarity" else key: value for key, value in super().to_json().items()}


@dataclass(frozen=True, kw_only=True)
class _Figures(Result):
    """Figures whose optional ones are no keys of the JSON form where they are absent."""

    def to_json(self) -> Json:
        """Field names and values, but for those without a value."""
        return {name: value for name, value in super().to_json().items() if value not in (None, {})}


@dataclass(frozen=True, kw_only=True)
class TermFigures(_Figures):
    """Figures of the best epoch with the collaborative term."""

    train_left_out: dict[str, float] = field(default_factory=dict)
    valid: dict[str, float]
    collaboration: CollaborationRecord

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TermFigures":
        """The figures of their JSON form."""
        collaboration = CollaborationRecord.from_json(values["collaboration"])
        return cls(**{**values, "collaboration": collaboration})


@dataclass(frozen=True, kw_only=True)
class EpochRecord(_Figures):
    """Figures of one epoch, as a line of `history.jsonl` holds them."""

    epoch: int
    """From 1."""
    phase: Phase
    lr: float
    losses: dict[str, float]
    """Mean of each weighted part of the loss over the train pairs, and their sum `loss`."""
    train_left_out: dict[str, float] = field(default_factory=dict)
    """Metric of train pairs, each scored as if it did not exist; empty for the rating objective."""
    valid: dict[str, float]
    """Metrics of the validation split."""
    seconds: float
    collaboration: CollaborationRecord | None = None
    """Of the best epoch once training has ended; the metrics are with the term then."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EpochRecord":
        """The record of its JSON form."""
        return cls(**values)

    def with_term(self, figures: TermFigures) -> "EpochRecord":
        """The record with the figures of the collaborative term."""
        return replace(
            self,
            train_left_out=figures.train_left_out,
            valid=figures.valid,
            collaboration=figures.collaboration,
        )


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """Result of `train`."""

    metric: str
    """Metric of the validation split that selects the best epoch."""
    best_value: float
    """Its value, with the collaborative term where there is one."""
    best_epoch: int
    """From 1."""
    epochs: int
    """Epochs done."""
    best: EpochRecord
    """Record of the best epoch, with the figures of the collaborative term."""
    history: list[EpochRecord]
    """One record an epoch, of text and biases alone."""
    seconds: float
    run: Path
    """Run folder."""
