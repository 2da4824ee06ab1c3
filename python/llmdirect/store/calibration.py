"""Calibration of an embedding store: projection and int8 channel scales, fitted once on train passages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from llmdirect.common.arrays import as_numpy
from llmdirect.common.errors import DataError
from llmdirect.common.files import file_digest, file_inside, read_limited, write_atomic
from llmdirect.common.types import Json
from llmdirect.store.rounding import INT8_MAX

CALIBRATION = "calibration.safetensors"

_MAX_BYTES: Final = 1 << 32


@dataclass(frozen=True, eq=False)
class Calibration:
    """Projection and channel scales, for D dimensions of the encoder and N stored ones."""

    projection: Tensor | None = None
    """float32 [D, N] principal directions."""
    channels: Tensor | None = None
    """float32 [N] scale of each stored dimension, for int8 alone."""
    statistics: Mapping[str, Any] | None = None
    """`tokens` that it was fitted on, and `explained`, the share of their variance in the projection."""

    def to(self, device: torch.device) -> "Calibration":
        """Copy on a device."""
        projection, channels = self.projection, self.channels
        return Calibration(
            None if projection is None else projection.to(device),
            None if channels is None else channels.to(device),
            self.statistics,
        )

    def project(self, vectors: Tensor) -> Tensor:
        """Project vectors [n, D] to float32 [n, N]; without a projection they are returned unchanged."""
        return vectors if self.projection is None else vectors.float() @ self.projection

    def quantize(self, vectors: Tensor, dtype: str) -> dict[str, Tensor]:
        """Project vectors [n, D] and round them to the type of the store.

        Returns
        -------
        dict
            `tokens` [n, N], and for int8 `scales` float16 [n].
        """
        projected = self.project(vectors)
        if self.channels is None:
            return {"tokens": projected.to(getattr(torch, dtype))}
        tokens, scales = quantize_int8(projected.float(), self.channels)
        return {"tokens": tokens, "scales": scales}

    def dequantize(self, stored: Mapping[str, Tensor]) -> Tensor:
        """Values float32 [n, N] of what `quantize` returned, as a reader of the store gets them."""
        tokens = stored["tokens"].float()
        if self.channels is None:
            return tokens
        return tokens * stored["scales"].float()[:, None] * self.channels

    def arrays(self, stored: Mapping[str, Tensor]) -> dict[str, Any]:
        """Arrays of what `quantize` returned for `write_shard`: `tokens`, `scales` and `channels`."""
        scales, channels = stored.get("scales"), self.channels
        return {
            "tokens": as_numpy(stored["tokens"]),
            "scales": None if scales is None else scales.numpy(),
            "channels": None if channels is None else channels.cpu().numpy(),
        }

    def write(self, folder: Path) -> Json:
        """Write the calibration file of a store.

        Returns
        -------
        dict
            Manifest entry: bytes, hash and statistics.
        """
        tensors = {"projection": self.projection, "channels": self.channels}
        data = save({name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None})
        path = folder / CALIBRATION
        write_atomic(path, lambda file: file.write(data))
        return {"bytes": len(data), "hash": file_digest(path), **(self.statistics or {})}

    @classmethod
    def read(cls, folder: Path, entry: Json | None) -> "Calibration":
        """Read the calibration file of a store.

        Parameters
        ----------
        folder
            Folder of the store.
        entry
            Manifest entry that `write` returned; without it the calibration is empty.

        Raises
        ------
        DataError
            If the file is missing, damaged, or another one.
        """
        if entry is None:
            return cls()
        path = folder / CALIBRATION
        cure = f"copy it back, or delete {folder} and run `llmdirect precompute` again"
        try:
            data = read_limited(file_inside(folder, CALIBRATION), _MAX_BYTES)
        except FileNotFoundError:
            raise DataError(f"{path}: missing; {cure}") from None
        if len(data) != entry["bytes"] or file_digest(path) != entry["hash"]:
            raise DataError(f"{path}: not the file that the store was made with; {cure}")
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise DataError(f"{path}: damaged ({error}); {cure}") from None
        statistics = {key: value for key, value in entry.items() if key not in ("bytes", "hash")}
        return cls(tensors.get("projection"), tensors.get("channels"), statistics)


def first_not_finite(stored: Mapping[str, Tensor]) -> int | None:
    """First row of what `quantize` returned that is not finite; None where all are."""
    scales = stored.get("scales")
    finite = torch.isfinite(stored["tokens"]).all(dim=1) if scales is None else torch.isfinite(scales)
    return None if bool(finite.all()) else int(finite.logical_not().nonzero()[0])


def quantize_int8(vectors: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize x float32 [n, D] to q int8 [n, D] and s float16 [n] with x ≈ q · s · channel.

    y = x / channel; s = max |y| / 127 as float16, one step higher where that would leave y beyond ±127;
    q = y / s to the nearest integer, ties to even, as in the Rust core. s is infinite or not a number where
    x is beyond any scale.

    Parameters
    ----------
    vectors
        float32 [n, D].
    channels
        float32 [D] scale of each dimension.
    """
    scaled = vectors / channels
    largest = scaled.abs().amax(1)
    scales = (largest / INT8_MAX).half()
    beyond = largest / scales.float() >= INT8_MAX + 0.5
    scales = (scales.view(torch.int16) + beyond.to(torch.int16)).view(torch.float16)
    quotients = torch.where(largest[:, None] > 0, scaled / scales.float()[:, None], 0.0)
    return quotients.round().nan_to_num(0).to(torch.int8), scales
