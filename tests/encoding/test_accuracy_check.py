"""`precompute --check`: errors by stage, against vectors computed here; nothing is written."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import CommandLine
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.encoding.accuracy_check import check
from llmdirect.encoding.encoders import load_encoder
from precompute_helpers import Checkpoint, build_checkpoints, make_usual_dataset


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    return build_checkpoints(tmp_path_factory.mktemp("models"), "t5gemma", "bert")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_usual_dataset(tmp_path_factory.mktemp("dataset"))


def train_vectors(dataset: Path, path: Path) -> torch.Tensor:
    passages = Dataset.open(dataset).passages
    texts = {text for text, split in zip(passages.text, passages.split, strict=True) if split == TRAIN}
    return torch.cat([embedding.tokens for embedding in load_encoder(str(path)).encode(sorted(texts))])


def test_error_of_each_stage(dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine) -> None:
    before = sorted(dataset.rglob("*"))
    path = checkpoints["t5gemma"].path
    command = ("precompute", dataset, "--encoder", path, "--dtype", "bfloat16", "--check")
    report = json.loads(cli(*command, "--json").out)
    vectors = train_vectors(dataset, path)
    rounding = float((vectors.bfloat16().float() - vectors).norm() / vectors.norm())
    model, stored, together = report["stages"]
    assert [stage["name"] for stage in report["stages"]] == [
        "model in float32",
        "stored as bfloat16",
        "all together",
    ]
    assert (model["relative"], model["worst_cosine"]) == (0.0, pytest.approx(1.0))
    for stage in (stored, together):
        # The order of texts changes last bits only.
        assert stage["relative"] == pytest.approx(rounding, rel=0.05)
        assert 0.999 < stage["worst_cosine"] < 1
    assert report["tokens"] == len(vectors)
    assert report["soft_cap"] > 1e-4
    shown = cli(*command).out
    for part in ("model in float32", "stored as bfloat16", "outlier channels", "soft-cap"):
        assert part in shown
    assert sorted(dataset.rglob("*")) == before


def test_projection_and_int8_errors_are_separate_stages(
    dataset: Path, checkpoints: dict[str, Checkpoint]
) -> None:
    report = check(dataset, encoder=str(checkpoints["bert"].path), dtype="int8", project=8)
    names = ["model in float32", "8 components", "stored as int8", "all together"]
    assert [stage.name for stage in report.stages] == names
    errors = {stage.name: stage.relative for stage in report.stages}
    # Reference: the eight leading directions are optimal; the mean is dropped with the remaining ones.
    vectors = train_vectors(dataset, checkpoints["bert"].path)
    best = float(torch.linalg.svdvals(vectors)[8:].norm() / vectors.norm())
    assert best < errors["8 components"] < 1
    assert 1e-3 < errors["stored as int8"] < 2e-2
    # The errors of projection and of int8 within it are orthogonal.
    assert errors["all together"] > errors["8 components"]
    assert report.soft_cap is None


def test_outlier_channels_are_detected(
    dataset: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    path = tmp_path / "tiny-outlier"
    path.mkdir()
    for file in checkpoints["bert"].path.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    weights = load_file(path / "model.safetensors")
    weights["bert.encoder.layer.1.output.LayerNorm.weight"][5] *= 40
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    usual, changed = (check(dataset, encoder=str(encoder)) for encoder in (checkpoints["bert"].path, path))
    assert usual.outlier_channels.count == 0
    outliers = changed.outlier_channels
    assert (outliers.count, outliers.channel) == (1, 5)
    assert outliers.largest > 20


def test_sample_size_is_bounded(dataset: Path, checkpoints: dict[str, Checkpoint]) -> None:
    whole, small = (
        check(dataset, encoder=str(checkpoints["bert"].path), sample_tokens=most) for most in (10_000, 20)
    )
    assert small.tokens <= 20 < whole.tokens
    assert small.passages < whole.passages
