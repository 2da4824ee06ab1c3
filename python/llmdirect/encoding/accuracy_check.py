"""What each stage of encoding costs in accuracy, on a sample of a dataset's passages. Writes nothing."""

from dataclasses import dataclass
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
from llmdirect.store.calibration import Calibration
from llmdirect.store.token_format import TokenFormat

_TOKENS = 1 << 13  # of the sample: minutes on a CPU, seconds on a GPU
_SEED = 242
_OUTLIER = 6.0
"""A channel is an outlier where its root mean square is so many times that of the median channel."""


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
    model: str,
    dtype: str = TokenFormat.dtype,
    project: int | None = None,
    device: str = "auto",
    max_length: int | None = None,
    revision: str | None = None,
    sample_tokens: int = _TOKENS,
    progress: Progress = SILENT,
) -> AccuracyCheck:
    """Accuracy of the token embeddings of a seeded sample of train passages, against float32.

    Stages are the encoder in its own type, compared with float32; the projection and the type on disk, each
    compared with its input; and all of them together, compared with float32. The projection and the scales
    of int8 are fitted on the sample, as `precompute` fits them on a larger one.

    Raises as `precompute` does.
    """
    token_format = TokenFormat(dtype, project)
    texts = _sample(Dataset.open(dataset_path))
    with progress.task(f"check {model}", 3, "steps") as task:
        task.note("in float32")
        exact = load_encoder(model, device=device, dtype="float32", max_length=max_length, revision=revision)
        token_format.dim(exact.dim)
        rows = np.array(exact.count_tokens(texts), np.int32)
        count = max(1, int((np.cumsum(rows) <= sample_tokens).sum()))
        texts, rows = texts[:count], rows[:count]
        if not rows.sum():
            raise DataError(f"{dataset_path}: no token in the sampled passages")
        reference = _vectors(exact, texts)
        soft_cap = None
        if exact.soft_capped:
            with exact.uncapped():
                soft_cap = _relative(_vectors(exact, texts), reference)
        del exact  # two models need not fit the device
        task.advance()
        task.note("as precompute does")
        encoder = load_encoder(model, device=device, max_length=max_length, revision=revision)
        computed = _vectors(encoder, texts)
        task.advance()
        task.note("as stored")
        calibration = Calibration()
        if token_format.calibrated:
            calibration = fit(encoder, texts, rows, token_format, token_budget=encoder.tokens_at_once)
            calibration = calibration.to(torch.device("cpu"))
        task.advance()
    compute = str(encoder.dtype).removeprefix("torch.")
    projected = calibration.project(computed).float()
    stored = calibration.read_back(calibration.store(computed, dtype))
    stages = [_stage(f"model in {compute}", computed, reference)]
    if project is not None:
        stages.append(_stage(f"{project} components", _unproject(calibration, projected), computed))
    stages.append(_stage(f"stored as {dtype}", stored, projected))
    stages.append(_stage("all together", _unproject(calibration, stored), reference))
    return AccuracyCheck(
        model=encoder.id,
        device=encoder.device.type,
        compute_dtype=compute,
        passages=len(texts),
        tokens=len(reference),
        stages=stages,
        outlier_channels=_outliers(reference),
        soft_cap=soft_cap,
    )


def _sample(dataset: Dataset) -> list[str]:
    """Distinct texts of train in a seeded order."""
    passages = dataset.passages
    texts = sorted(
        {text for text, split in zip(passages.text, passages.split, strict=True) if split == TRAIN}
    )
    return [texts[place] for place in np.random.default_rng(_SEED).permutation(len(texts)).tolist()]


def _vectors(encoder: Encoder, texts: list[str]) -> Tensor:
    return torch.cat([each.tokens for each in encoder.encode(texts)])


def _unproject(calibration: Calibration, vectors: Tensor) -> Tensor:
    return vectors if calibration.projection is None else vectors @ calibration.projection.T


def _stage(name: str, found: Tensor, expected: Tensor) -> StageError:
    cosines = torch.nn.functional.cosine_similarity(found.float(), expected.float(), dim=1)
    return StageError(name, _relative(found, expected), float(cosines.min()))


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _outliers(vectors: Tensor) -> OutlierChannels:
    sizes = vectors.square().mean(0).sqrt()
    ratios = sizes / sizes.median()
    return OutlierChannels(int((ratios > _OUTLIER).sum()), float(ratios.max()), int(ratios.argmax()))
