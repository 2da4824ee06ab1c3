"""`precompute --check`: errors by stage, against vectors worked out here; nothing is written."""

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
    return torch.cat([each.tokens for each in load_encoder(str(path)).encode(sorted(texts))])


def test_each_stage_has_the_error_it_makes(
    dataset: Path, checkpoints: dict[str, Checkpoint], cli: CommandLine
) -> None:
    before = sorted(dataset.rglob("*"))
    path = checkpoints["t5gemma"].path
    command = ("precompute", dataset, "--encoder", path, "--dtype", "bfloat16", "--check")
    told = json.loads(cli(*command, "--json").out)
    vectors = train_vectors(dataset, path)
    rounding = float((vectors.bfloat16().float() - vectors).norm() / vectors.norm())
    model, stored, together = told["stages"]
    assert [each["name"] for each in told["stages"]] == [
        "model in float32",
        "stored as bfloat16",
        "all together",
    ]
    assert (model["relative"], model["worst_cosine"]) == (0.0, pytest.approx(1.0))
    for each in (stored, together):
        # Another order of the texts moves last bits, not the size of an error.
        assert each["relative"] == pytest.approx(rounding, rel=0.05)
        assert 0.999 < each["worst_cosine"] < 1
    assert told["tokens"] == len(vectors)
    assert told["soft_cap"] > 1e-4
    shown = cli(*command).out
    for part in ("model in float32", "stored as bfloat16", "outlier channels", "soft-cap"):
        assert part in shown
    assert sorted(dataset.rglob("*")) == before


def test_projection_and_int8_are_stages_of_their_own(
    dataset: Path, checkpoints: dict[str, Checkpoint]
) -> None:
    told = check(dataset, encoder=str(checkpoints["bert"].path), dtype="int8", project=8)
    names = ["model in float32", "8 components", "stored as int8", "all together"]
    assert [stage.name for stage in told.stages] == names
    errors = {stage.name: stage.relative for stage in told.stages}
    # The oracle: no eight directions keep more than the leading ones, and the mean is dropped with the rest.
    vectors = train_vectors(dataset, checkpoints["bert"].path)
    best = float(torch.linalg.svdvals(vectors)[8:].norm() / vectors.norm())
    assert best < errors["8 components"] < 1
    assert 1e-3 < errors["stored as int8"] < 2e-2
    # The projection's error stands at right angles to what int8 adds within it.
    assert errors["all together"] > errors["8 components"]
    assert told.soft_cap is None


def test_outlier_channels_are_found(
    dataset: Path, checkpoints: dict[str, Checkpoint], tmp_path: Path
) -> None:
    path = tmp_path / "tiny-outlier"
    path.mkdir()
    for file in checkpoints["bert"].path.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    weights = load_file(path / "model.safetensors")
    weights["bert.encoder.layer.1.output.LayerNorm.weight"][5] *= 40
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    usual, changed = (check(dataset, encoder=str(each)) for each in (checkpoints["bert"].path, path))
    assert usual.outlier_channels.count == 0
    found = changed.outlier_channels
    assert (found.count, found.channel) == (1, 5)
    assert found.largest > 20


def test_the_sample_is_bounded(dataset: Path, checkpoints: dict[str, Checkpoint]) -> None:
    whole, small = (
        check(dataset, encoder=str(checkpoints["bert"].path), sample_tokens=most) for most in (10_000, 20)
    )
    assert small.tokens <= 20 < whole.tokens
    assert small.passages < whole.passages
