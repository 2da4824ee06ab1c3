"""Fit of a store's calibration: PCA projection and int8 channel scales."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.decompositions import eigenvectors
from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.store.calibration import Calibration
from llmdirect.store.token_format import TokenFormat

if TYPE_CHECKING:  # transformers takes seconds to import
    from llmdirect.encoding.encoders import Encoder, Tokens

SAMPLE_TOKENS: Final = 1 << 16  # 28 for each of 2304 dimensions
"""Tokens on which projection and scales are fitted."""
_TEXTS_PER_STEP: Final = 64
SAMPLE_SEED: Final = 242
"""Seed of the sample."""


def fit(
    encoder: "Encoder",
    texts: Sequence[str],
    num_tokens: NDArray[np.int32],
    token_format: TokenFormat,
    *,
    token_budget: int,
    progress: Progress = SILENT,
) -> Calibration:
    """Fit principal directions and channel scales on a seeded uniform sample of train texts.

    The sample has about 65,536 tokens, of which those count that the store keeps and that have characters.
    Directions are those of their covariance. The scale of a channel is the root mean square of a stored
    dimension, and no less than a thousandth of that of all dimensions.

    Parameters
    ----------
    encoder
    texts
        Distinct texts of train, sorted by key.
    num_tokens
        int32 [n] tokens of each text.
    token_format
        Decides which tokens are kept and what is fitted.
    token_budget
        Tokens encoded at once.
    progress

    Raises
    ------
    DataError
        If there is no token to fit on.
    """
    order = np.random.default_rng(SAMPLE_SEED).permutation(len(texts))
    tokens_before = np.cumsum(num_tokens[order], dtype=np.int64) - num_tokens[order]
    sample = order[(tokens_before < SAMPLE_TOKENS) & (num_tokens[order] > 0)]
    sample = sample[np.argsort(-num_tokens[sample], kind="stable")]
    moments = Moments(encoder.dim)
    with progress.task("fit projection and scales", int(num_tokens[sample].sum()), "tokens") as task:
        for start in range(0, len(sample), _TEXTS_PER_STEP):
            part = [texts[row] for row in sample[start : start + _TEXTS_PER_STEP].tolist()]
            tokens = encoder.tokenize(part)
            moments.add(_kept_vectors(encoder, part, tokens, token_format, token_budget))
            task.advance(sum(map(len, tokens)))
    if not moments.count:
        raise DataError(
            f"no token of a train passage to fit `{'project' if token_format.project else 'dtype'}` on"
        )
    return moments.calibration(token_format)


def _kept_vectors(
    encoder: "Encoder", texts: list[str], tokens: "list[Tokens]", token_format: TokenFormat, token_budget: int
) -> Tensor:
    """Vectors [n, D] of the tokens that are kept and have characters."""
    vectors, _ = encoder.embed_in_parts(tokens, token_budget=token_budget)
    spans = [text.spans for text in tokens]
    masks = [
        kept & (own[:, 1] > own[:, 0])
        for kept, own in zip(token_format.kept(texts, spans), spans, strict=True)
    ]
    return vectors[torch.from_numpy(np.flatnonzero(np.concatenate(masks))).to(vectors.device)]


class Moments:
    """First and second moments of vectors, accumulated in float64 in D x D."""

    def __init__(self, dim: int) -> None:
        self.count, self._sum = 0, torch.zeros(dim, dtype=torch.float64)
        self._products = torch.zeros(dim, dim, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """Add vectors [n, D], on any device."""
        rows = vectors.cpu().double()
        self.count += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def calibration(self, token_format: TokenFormat) -> Calibration:
        """Fit the projection and int8 channels that `token_format` needs; None where not needed."""
        projection, products = None, self._products / self.count
        statistics: dict[str, Any] = {"tokens": self.count}
        if token_format.project is not None:
            mean = self._sum / self.count
            covariance = products - torch.outer(mean, mean)
            variances, directions = eigenvectors(covariance, products.trace())
            variances = variances.clamp(min=0)
            projection = directions[:, : token_format.project].float().contiguous()
            statistics["explained"] = float(
                variances[: token_format.project].sum() / variances.sum().clamp(min=1e-300)
            )
            products = projection.double().T @ products @ projection.double()
        channels = None
        if token_format.dtype == "int8":
            squares = products.diagonal().clamp(min=0)
            channels = torch.maximum(squares.sqrt(), squares.mean().sqrt() / 1000).float()
            channels = torch.where(channels > torch.finfo(torch.float32).tiny, channels, 1.0)
        return Calibration(projection, channels, statistics)
