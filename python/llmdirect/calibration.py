"""Projection and scales of a store's tokens: fitted once, on train, and kept in a file beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from llmdirect.artefacts import Json, file_digest, write_atomic
from llmdirect.errors import DataError
from llmdirect.progress import SILENT, Progress
from llmdirect.token_form import TokenForm

if TYPE_CHECKING:  # transformers takes seconds to import, and only encoding needs it
    from llmdirect.encoders import Encoder, Tokens

CALIBRATION = "calibration.safetensors"
_MOST: Final = 127.0
"""The largest number of int8: -128 is not used, so that signs are symmetric."""
_FITTED_ON: Final = 1 << 16  # tokens: 28 for each of 2304 dimensions
_SEED: Final = 242


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


def fit(
    encoder: "Encoder",
    texts: Sequence[str],
    rows: NDArray[np.int32],
    form: TokenForm,
    *,
    token_budget: int,
    progress: Progress = SILENT,
) -> Calibration:
    """Principal directions and channels of a seeded uniform sample of texts, of about 65,536 tokens.

    texts, rows: the distinct texts of train in the order of their keys, and their tokens: nothing else has
    any influence. Of them count the tokens that the store keeps and that have characters. Directions are
    those of their covariance; a channel is the root mean square of a stored dimension, and no less than a
    thousandth of that of all dimensions.

    Raises DataError where there is no token to fit on.
    """
    order = np.random.default_rng(_SEED).permutation(len(texts))
    behind = np.cumsum(rows[order], dtype=np.int64) - rows[order]
    sample = order[(behind < _FITTED_ON) & (rows[order] > 0)]
    sample = sample[np.argsort(-rows[sample], kind="stable")]
    moments = Moments(encoder.dim)
    with progress.task("fit projection and scales", int(rows[sample].sum()), "tokens") as task:
        for start in range(0, len(sample), 64):
            part = [texts[number] for number in sample[start : start + 64].tolist()]
            tokens = encoder.tokenize(part)
            moments.add(_worded(encoder, part, tokens, form, token_budget))
            task.advance(sum(map(len, tokens)))
    if not moments.count:
        raise DataError(f"no token of a train passage to fit --{'project' if form.project else 'dtype'} on")
    return moments.calibration(form)


def _worded(
    encoder: "Encoder", texts: list[str], tokens: "list[Tokens]", form: TokenForm, token_budget: int
) -> Tensor:
    """Vectors [n, D] of the tokens that are kept and have characters."""
    vectors, _ = encoder.embed_in_parts(tokens, token_budget=token_budget)
    kept = form.kept(texts, [each.spans for each in tokens])
    worded = [own & (each.spans[:, 1] > each.spans[:, 0]) for own, each in zip(kept, tokens, strict=True)]
    return vectors[torch.from_numpy(np.flatnonzero(np.concatenate(worded))).to(vectors.device)]


class Moments:
    """Sums over tokens from which mean and covariance follow, in float64: a sample of any size in D x D."""

    def __init__(self, dim: int) -> None:
        self.count, self._sum = 0, torch.zeros(dim, dtype=torch.float64)
        self._products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Vectors [n, D] on any device."""
        rows = vectors.cpu().double()
        self.count += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def calibration(self, form: TokenForm) -> Calibration:
        """What `form` needs."""
        projection, products = None, self._products / self.count
        facts: dict[str, Any] = {"tokens": self.count}
        if form.project is not None:
            mean = self._sum / self.count
            variances, directions = torch.linalg.eigh(products - torch.outer(mean, mean))
            variances = variances.clamp(min=0)
            projection = directions.flip(1)[:, : form.project].float().contiguous()
            facts["explained"] = float(variances[-form.project :].sum() / variances.sum().clamp(min=1e-300))
            products = projection.double().T @ products @ projection.double()
        channels = None
        if form.dtype == "int8":
            squares = products.diagonal().clamp(min=0)
            channels = torch.maximum(squares.sqrt(), squares.mean().sqrt() / 1000).float()
            channels = torch.where(channels > torch.finfo(torch.float32).tiny, channels, 1.0)
        return Calibration(projection, channels, facts)


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
