"""Run folders: protection of other runs, damaged files, atomic commits."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from command_line import CommandLine
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.config import RENAMED, TrainConfig
from llmdirect.runs.folder import RunFolder
from llmdirect.runs.trained import Trained
from llmdirect.training.train import train
from run_helpers import SHAPES, content, fit, make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


def test_another_run_is_not_overwritten(dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "run")
    before = content(tmp_path / "run")
    with pytest.raises(
        MismatchError, match=r"run: holds another run \(lr is 0.001 there, 0.01 here\).*`overwrite=True`"
    ):
        fit(dataset, tmp_path / "run", lr=0.01)
    assert content(tmp_path / "run") == before


def test_checkpoint_of_another_dataset(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    fit(dataset, tmp_path / "run")
    other = make_dataset(tmp_path / "other", seed=7)
    answer = cli("test", other, "--parameters", tmp_path / "run")
    assert answer.code == 1
    assert "was trained on dataset" in answer.err
    assert str(other) in answer.err


@pytest.mark.parametrize("name", ["best/model", "best/tables", "best/catalogue"])
def test_damaged_checkpoints(dataset: Path, tmp_path: Path, name: str) -> None:
    fit(dataset, tmp_path / "run")
    path = (
        tmp_path
        / "run"
        / name.split("/")[0]
        / RunFolder.open(tmp_path / "run").manifest["files"][name]["name"]
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{path.name}: damaged.*llmdirect train"):
        Trained.load(tmp_path / "run")
    path.unlink()
    with pytest.raises(DataError, match=f"{path.name}: missing.*llmdirect train"):
        Trained.load(tmp_path / "run")


def test_checkpoints_contain_no_pickle(dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert path.suffix in (".safetensors", ".json", ".jsonl")
            if path.suffix == ".safetensors":
                load_file(path)


def test_recovery_from_damaged_table(dataset: Path, tmp_path: Path) -> None:
    fit(dataset, tmp_path / "run")
    before = content(tmp_path / "run")
    entry = RunFolder.open(tmp_path / "run").manifest["files"]["best/tables"]
    (tmp_path / "run" / "best" / entry["name"]).write_bytes(b"damaged")
    fit(dataset, tmp_path / "run")
    assert content(tmp_path / "run") == before


def test_resumed_run_does_not_reuse_previous_tables(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(dataset, tmp_path / "run", num_epochs=1, ema_decay=0.0)
    with monkeypatch.context() as patch:
        patch.setattr("llmdirect.training.train.finish", lambda *_: None)  # killed just before
        fit(dataset, tmp_path / "run", num_epochs=6, ema_decay=0.0)
    manifest = RunFolder.open(tmp_path / "run").manifest
    assert manifest["config"]["training"]["num_epochs"] == 6
    with pytest.raises(
        DataError, match=r"run: has no best/tables, training has not ended; run `llmdirect train"
    ):
        Trained.load(tmp_path / "run")


def test_overwrite_commits_first_and_keeps_foreign_files(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(dataset, tmp_path / "run")
    (tmp_path / "run" / "best" / "photo.jpg").write_bytes(b"somebody's")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("llmdirect.training.state.TrainState.save", killed)
        with pytest.raises(Killed):
            train(
                dataset,
                tmp_path / "run",
                model=SHAPES["vote"],
                training=TrainConfig(num_epochs=1),
                overwrite=True,
            )
    train(dataset, tmp_path / "run", model=SHAPES["vote"], training=TrainConfig(num_epochs=1))
    assert Trained.load(tmp_path / "run").run.model_config == SHAPES["vote"]
    assert (tmp_path / "run" / "best" / "photo.jpg").exists()


def as_version_3(run: Path) -> None:
    """Rewrite the manifest of a run as of version 3, with former names of settings and values."""
    manifest = json.loads((run / "manifest.json").read_text())
    former = {present: name for name, present in RENAMED.items()}
    values = {("objective", "rating"): "default", ("history_term", "auto"): "found"}
    manifest["config"] = {
        part: {former.get(name, name): values.get((name, value), value) for name, value in settings.items()}
        for part, settings in manifest["config"].items()
    }
    manifest["version"] = 3
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("shape", "settings"), [("collaborative", {}), ("both", {"objective": "rating"}), ("paper", {})]
)
def test_run_of_version_3_is_loaded_and_resumed(
    dataset: Path, tmp_path: Path, shape: str, settings: dict[str, object]
) -> None:
    fit(dataset, tmp_path / "whole", shape, num_epochs=4, **settings)
    fit(dataset, tmp_path / "run", shape, num_epochs=2, **settings)
    ranked = Trained.load(tmp_path / "run").tables
    configs = RunFolder.open(tmp_path / "run").model_config, RunFolder.open(tmp_path / "run").train_config
    as_version_3(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert (run.model_config, run.train_config) == configs
    again = Trained.load(tmp_path / "run").tables
    for name in ("query", "item", "item_bias"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ranked, name))
    fit(dataset, tmp_path / "run", shape, num_epochs=4, **settings)
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["version"] == 4
