"""Projection and scales of a store's tokens: fitted once, on train, and kept in a file beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from llmdirect.common.errors import DataError
from llmdirect.common.files import file_digest, write_atomic
from llmdirect.common.types import Json

if TYPE_CHECKING:  # transformers takes seconds to import, and only encoding needs it
    pass

CALIBRATION = "calibration.safetensors"

_MOST: Final = 127.0
"""The largest number of int8: -128 is not used, so that signs are symmetric."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Numbers fitted once, on tokens of train passages. D dimensions of the encoder, N stored ones."""

    projection: Tensor | None = None
    """float32 [D, N] principal directions."""
    channels: Tensor | None = None
    """float32 [N] what the dimensions of int8 are divided by."""
    facts: Mapping[str, Any] | None = None
    """`tokens` it was fitted on, and the share of their variance that the projection keeps, `explained`."""

    def to(self, device: torch.device) -> "Calibration":
        """The same on a device."""
        projection, channels = self.projection, self.channels
        return Calibration(
            None if projection is None else projection.to(device),
            None if channels is None else channels.to(device),
            self.facts,
        )

    def project(self, vectors: Tensor) -> Tensor:
        """float32 [n, N] of the encoder's vectors [n, D], which stay as they are without a projection."""
        return vectors if self.projection is None else vectors.float() @ self.projection

    def store(self, vectors: Tensor, dtype: str) -> dict[str, Tensor]:
        """`tokens` [n, N] as they are stored, of vectors [n, D]; of int8 also `scales` float16 [n]."""
        projected = self.project(vectors)
        if self.channels is None:
            return {"tokens": projected.to(getattr(torch, dtype))}
        tokens, scales = to_int8(projected.float(), self.channels)
        return {"tokens": tokens, "scales": scales}

    def read_back(self, stored: Mapping[str, Tensor]) -> Tensor:
        """float32 [n, N] as a reader has what `store` gave."""
        tokens = stored["tokens"].float()
        if self.channels is None:
            return tokens
        return tokens * stored["scales"].float()[:, None] * self.channels

    def write(self, folder: Path) -> Json:
        """Writes the store's calibration file, and returns its entry: bytes, hash, and the facts."""
        tensors = {"projection": self.projection, "channels": self.channels}
        data = save({name: each.contiguous() for name, each in tensors.items() if each is not None})
        path = folder / CALIBRATION
        write_atomic(path, lambda file: file.write(data))
        return {"bytes": len(data), "hash": file_digest(path), **(self.facts or {})}

    @classmethod
    def read(cls, folder: Path, entry: Json | None) -> "Calibration":
        """What `write` wrote; nothing where the store has no entry. DataError where the file is not that."""
        if entry is None:
            return cls()
        path = folder / CALIBRATION
        cure = f"copy it back, or delete {folder} and run `llmdirect precompute` again"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: missing; {cure}") from None
        if len(data) != entry["bytes"] or file_digest(path) != entry["hash"]:
            raise DataError(f"{path}: not the file that the store was made with; {cure}")
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise DataError(f"{path}: damaged ({error}); {cure}") from None
        facts = {key: value for key, value in entry.items() if key not in ("bytes", "hash")}
        return cls(tensors.get("projection"), tensors.get("channels"), facts)


def to_int8(vectors: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds x float32 [n, D] to q int8 [n, D] and s float16 [n], so that x is nearly q · s · channel.

    y = x / channel; s = max |y| / 127 as float16, one step higher where that would leave y beyond ±127;
    q = y / s to the nearest integer, ties to even: the formula of the core. s is infinite or not a number
    where x is beyond any scale.
    """
    scaled = vectors / channels
    largest = scaled.abs().amax(1)
    scales = (largest / _MOST).half()
    beyond = largest / scales.float() >= _MOST + 0.5
    scales = (scales.view(torch.int16) + beyond.to(torch.int16)).view(torch.float16)
    numbers = torch.where(largest[:, None] > 0, scaled / scales.float()[:, None], 0.0)
    return numbers.round().nan_to_num(0).to(torch.int8), scales
