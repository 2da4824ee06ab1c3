"""Accuracy of each stage of encoding on a sample of passages; nothing is written."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Result
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.encoding.calibrate import fit
from llmdirect.encoding.encoders import Encoder, load_encoder
from llmdirect.encoding.options import DEFAULT_ENCODER
from llmdirect.store.calibration import Calibration
from llmdirect.store.token_format import TokenFormat

_SAMPLE_TOKENS = 1 << 13  # minutes on a CPU, seconds on a GPU
_SEED = 242
_OUTLIER_RATIO = 6.0
"""Root mean square of an outlier channel, as a multiple of that of the median channel."""


@dataclass(frozen=True)
class StageError(Result):
    """Error of the token embeddings after one stage of encoding."""

    name: str
    relative: float
    """‖x - y‖ / ‖y‖ over all tokens."""
    worst_cosine: float
    """Smallest cosine similarity of one token with its reference."""


@dataclass(frozen=True)
class OutlierChannels(Result):
    """Dimensions whose root mean square is several times that of the median dimension."""

    count: int
    largest: float
    """Largest ratio to the median dimension."""
    channel: int
    """Index of the dimension with the largest ratio."""


@dataclass(frozen=True)
class AccuracyCheck(Result):
    """Errors of each stage of encoding on a sample of passages."""

    model: str
    """Identifier of the encoder."""
    device: str
    compute_dtype: str
    passages: int
    tokens: int
    stages: list[StageError]
    outlier_channels: OutlierChannels
    soft_cap: float | None
    """Relative difference without the soft-cap of the attention; None where the encoder has none."""


def check(
    dataset_path: Path | str,
    *,
    encoder: str = DEFAULT_ENCODER,
    dtype: str = TokenFormat.dtype,
    project: int | None = None,
    device: str = "auto",
    max_length: int | None = None,
    revision: str | None = None,
    sample_tokens: int = _SAMPLE_TOKENS,
    progress: Progress = SILENT,
) -> AccuracyCheck:
    """Accuracy of the token embeddings of a seeded sample of train passages, against float32.

    Stages are the encoder in its own type, compared with float32; the projection and the type on disk, each
    compared with its input; and all of them together, compared with float32. The projection and the scales
    of int8 are fitted on the sample, as `precompute` fits them on a larger one.

    Parameters
    ----------
    dataset_path
        Folder written by `prepare`.
    encoder, dtype, project, device, max_length, revision
        As for `precompute`.
    sample_tokens
        Tokens of the sample.
    progress
        Where progress is shown.

    Raises
    ------
    DataError
        If there is no token in the sample.

    Also raises what `precompute` raises.
    """
    token_format = TokenFormat(dtype, project)
    texts = _train_texts(Dataset.open(dataset_path))
    load = partial(load_encoder, encoder, device=device, max_length=max_length, revision=revision)
    with progress.task(f"check {encoder}", 3, "steps") as task:
        task.note("in float32")
        exact = load(dtype="float32")
        token_format.dim(exact.dim)  # raises where the encoder has too few dimensions
        num_tokens = np.array(exact.count_tokens(texts), np.int32)
        count = max(1, int((np.cumsum(num_tokens) <= sample_tokens).sum()))
        texts, num_tokens = texts[:count], num_tokens[:count]
        if not num_tokens.sum():
            raise DataError(f"{dataset_path}: no token in the sampled passages")
        reference = _vectors(exact, texts)
        soft_cap = None
        if exact.soft_capped:
            with exact.uncapped():
                soft_cap = _relative_error(_vectors(exact, texts), reference)
        del exact  # two models need not fit the device
        task.advance()
        task.note("as precompute does")
        loaded = load()
        computed = _vectors(loaded, texts)
        task.advance()
        task.note("as stored")
        calibration = Calibration()
        if token_format.calibrated:
            calibration = fit(loaded, texts, num_tokens, token_format, token_budget=loaded.tokens_at_once)
            calibration = calibration.to(torch.device("cpu"))
        task.advance()
    compute_dtype = str(loaded.dtype).removeprefix("torch.")
    return AccuracyCheck(
        model=loaded.id,
        device=loaded.device.type,
        compute_dtype=compute_dtype,
        passages=len(texts),
        tokens=len(reference),
        stages=_stage_errors(computed, reference, calibration, token_format, compute_dtype),
        outlier_channels=_outlier_channels(reference),
        soft_cap=soft_cap,
    )


def _stage_errors(
    computed: Tensor,
    reference: Tensor,
    calibration: Calibration,
    token_format: TokenFormat,
    compute_dtype: str,
) -> list[StageError]:
    """Errors of vectors [tokens, D], computed in the type of the encoder, and of what is stored of them."""
    projected = calibration.project(computed).float()
    stored = calibration.dequantize(calibration.quantize(computed, token_format.dtype))
    stages = [_stage_error(f"model in {compute_dtype}", computed, reference)]
    if token_format.project is not None:
        components = _unproject(calibration, projected)
        stages.append(_stage_error(f"{token_format.project} components", components, computed))
    stages.append(_stage_error(f"stored as {token_format.dtype}", stored, projected))
    stages.append(_stage_error("all together", _unproject(calibration, stored), reference))
    return stages


def _train_texts(dataset: Dataset) -> list[str]:
    """Distinct texts of train in a seeded order."""
    passages = dataset.passages
    texts = sorted(
        {text for text, split in zip(passages.text, passages.split, strict=True) if split == TRAIN}
    )
    return [texts[row] for row in np.random.default_rng(_SEED).permutation(len(texts)).tolist()]


def _vectors(encoder: Encoder, texts: list[str]) -> Tensor:
    return torch.cat([embedding.tokens for embedding in encoder.encode(texts)])


def _unproject(calibration: Calibration, vectors: Tensor) -> Tensor:
    return vectors if calibration.projection is None else vectors @ calibration.projection.T


def _stage_error(name: str, actual: Tensor, expected: Tensor) -> StageError:
    cosines = torch.nn.functional.cosine_similarity(actual.float(), expected.float(), dim=1)
    return StageError(name, _relative_error(actual, expected), float(cosines.min()))


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.float() - expected.float()).norm() / expected.float().norm())


def _outlier_channels(vectors: Tensor) -> OutlierChannels:
    rms = vectors.square().mean(0).sqrt()
    ratios = rms / rms.median()
    return OutlierChannels(int((ratios > _OUTLIER_RATIO).sum()), float(ratios.max()), int(ratios.argmax()))
