"""What each stage of encoding costs in accuracy, on a sample of a dataset's passages. Writes nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.encoding.calibrate import fit
from llmdirect.encoding.encoders import Encoder, load_encoder
from llmdirect.store.calibration import Calibration
from llmdirect.store.token_format import TokenFormat

_TOKENS = 1 << 13  # of the sample: minutes on a CPU, seconds on a GPU
_SEED = 242
_OUTLIER = 6.0
"""A channel is an outlier where its root mean square is so many times that of the median channel."""


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
) -> dict[str, Any]:
    """Encodes a seeded sample of train passages in float32 too, and compares.

    Returns {"model", "device", "compute_dtype", "passages", "tokens", "stages", "outlier_channels",
    "soft_cap"}. A stage has its `name`, the `relative` error ‖x - y‖ / ‖y‖ over all tokens, and the
    `worst_cosine` of one token: the model in its type beside float32; the projection, beside the vectors it
    was given; the type on disk, beside what it was given; and all of them together, beside float32. The
    projection and the scales of int8 are fitted on the sample, as `precompute` fits them on a larger one.
    `outlier_channels` has their `count`, the `largest` ratio to the median channel and its `channel`.
    `soft_cap` is the relative difference that dropping the attention's soft-cap would make, None where the
    model has none.

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
    return {
        "model": encoder.id,
        "device": encoder.device.type,
        "compute_dtype": compute,
        "passages": len(texts),
        "tokens": len(reference),
        "stages": stages,
        "outlier_channels": _outliers(reference),
        "soft_cap": soft_cap,
    }


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


def _stage(name: str, found: Tensor, expected: Tensor) -> dict[str, Any]:
    cosines = torch.nn.functional.cosine_similarity(found.float(), expected.float(), dim=1)
    return {"name": name, "relative": _relative(found, expected), "worst_cosine": float(cosines.min())}


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _outliers(vectors: Tensor) -> dict[str, Any]:
    sizes = vectors.square().mean(0).sqrt()
    ratios = sizes / sizes.median()
    largest = float(ratios.max())
    return {"count": int((ratios > _OUTLIER).sum()), "largest": largest, "channel": int(ratios.argmax())}
