"""Fits the calibration of a store: PCA projection and int8 channel scales."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.decompositions import eigenvectors
from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.store.token_format import TokenFormat

if TYPE_CHECKING:  # transformers takes seconds to import, and only encoding needs it
    from llmdirect.encoding.encoders import Encoder, Tokens
from llmdirect.store.calibration import Calibration

_FITTED_ON: Final = 1 << 16  # tokens: 28 for each of 2304 dimensions

_SEED: Final = 242


def fit(
    encoder: "Encoder",
    texts: Sequence[str],
    rows: NDArray[np.int32],
    token_format: TokenFormat,
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
            moments.add(_worded(encoder, part, tokens, token_format, token_budget))
            task.advance(sum(map(len, tokens)))
    if not moments.count:
        raise DataError(
            f"no token of a train passage to fit --{'project' if token_format.project else 'dtype'} on"
        )
    return moments.calibration(token_format)


def _worded(
    encoder: "Encoder", texts: list[str], tokens: "list[Tokens]", token_format: TokenFormat, token_budget: int
) -> Tensor:
    """Vectors [n, D] of the tokens that are kept and have characters."""
    vectors, _ = encoder.embed_in_parts(tokens, token_budget=token_budget)
    kept = token_format.kept(texts, [each.spans for each in tokens])
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

    def calibration(self, token_format: TokenFormat) -> Calibration:
        """What `token_format` needs."""
        projection, products = None, self._products / self.count
        facts: dict[str, Any] = {"tokens": self.count}
        if token_format.project is not None:
            mean = self._sum / self.count
            covariance = products - torch.outer(mean, mean)
            variances, directions = eigenvectors(covariance, products.trace())
            variances = variances.clamp(min=0)
            projection = directions[:, : token_format.project].float().contiguous()
            facts["explained"] = float(
                variances[: token_format.project].sum() / variances.sum().clamp(min=1e-300)
            )
            products = projection.double().T @ products @ projection.double()
        channels = None
        if token_format.dtype == "int8":
            squares = products.diagonal().clamp(min=0)
            channels = torch.maximum(squares.sqrt(), squares.mean().sqrt() / 1000).float()
            channels = torch.where(channels > torch.finfo(torch.float32).tiny, channels, 1.0)
        return Calibration(projection, channels, facts)
