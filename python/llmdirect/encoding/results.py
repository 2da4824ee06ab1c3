"""Results of `precompute`."""

from dataclasses import dataclass
from pathlib import Path

from llmdirect.common.types import Json, Result
from llmdirect.data.dataset import PassageKey


@dataclass(frozen=True)
class EncodingPlan(Result):
    """Counts and sizes of the shards that one job encodes."""

    model: str
    """Identifier of the encoder."""
    passages: int
    """Passages of the dataset, repeated texts included."""
    texts_without_tokens: int
    texts_in_windows: int
    """Texts longer than the encoder reads at once."""
    dim: int
    """Length of a stored token embedding."""
    dtype: str
    calibration: Json | None
    """Entry of the calibration file; None where nothing is fitted."""
    bytes: int
    """Bytes of all shards on disk."""
    shards: int
    tokens_to_encode: int
    """Tokens of the pending shards."""
    bytes_to_write: int
    """Bytes of the pending shards on disk."""
    bytes_free: int
    """Free bytes of the disk of the store."""


@dataclass(frozen=True)
class Throughput(Result):
    """Speed of an encoding run; engine "ray" measures time and tokens alone."""

    seconds: float
    tokens_per_second: float
    passages_per_second: float | None = None
    mfu: float | None = None
    """Model FLOPs utilisation: floating-point operations per second, as a share of `peak_flops`."""
    peak_flops: float | None = None
    """Floating-point operations per second of the device."""
    peak_from: str | None = None
    """Source of `peak_flops`: "data sheet" or "measured"."""

    def to_json(self) -> Json:
        """Fields that have a value."""
        return {key: value for key, value in super().to_json().items() if value is not None}


@dataclass(frozen=True)
class PrecomputeResult(Result):
    """What `precompute` encoded, or would encode."""

    store: Path
    """Folder of the store."""
    texts: int
    """Distinct texts."""
    tokens: int
    pending_shards: int
    """Shards that were not complete at the start."""
    encoded_shards: int
    """Shards encoded by this run."""
    consolidated: bool
    """Whether the store is complete and consolidated, so that nothing was left to do."""
    plan: EncodingPlan | None = None
    """None where `consolidated`."""
    estimated_seconds: float | None = None
    """Estimated duration of the pending shards; None where nothing is pending."""
    throughput: Throughput | None = None
    """None where nothing was encoded."""
    vectors: PassageKey | None = None
    """For vectors of one's own, what they are of: "item" or "passage"."""

    def to_json(self) -> Json:
        """One flat object: the keys of `plan` and `throughput` are those of the result."""
        result = super().to_json()
        for nested in ("plan", "throughput"):
            result |= result.pop(nested) or {}
        for optional in ("estimated_seconds", "vectors"):
            if result[optional] is None:
                del result[optional]
        return result
