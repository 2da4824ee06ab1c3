"""Manifests of runs that were edited: refused by file, key and bounds, before memory is asked for."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdirect.common.errors import DataError
from llmdirect.common.files import write_hashed
from llmdirect.runs.folder import RunFolder
from llmdirect.runs.trained import Trained
from run_helpers import fit, make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    dataset = make_dataset(folder / "reviews")
    fit(dataset, folder / "run", num_epochs=1)
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A folder with links to the files of the run and a manifest of its own."""
    for path in trained.rglob("*"):
        copy = tmp_path / "run" / path.relative_to(trained)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.name != "manifest.json":
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, copy)
    (tmp_path / "run" / "manifest.json").write_bytes((trained / "manifest.json").read_bytes())
    return tmp_path / "run"


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    change(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))


def put(*keys: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


def test_the_run_itself_loads(run: Path) -> None:
    assert Trained.load(run).model.aspects == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            put("config", "model", "aspects", value=10**9),
            "config.model: `aspects`: 1000000000, expected 1 to 4096",
        ),
        (
            put("config", "model", "aspects", value=3.5),
            "config.model: `aspects`: 3.5, expected a whole number",
        ),
        (put("config", "model", "lexicon", value=10**12), "`lexicon`: 1000000000000, expected 0 to 4096"),
        (
            put("config", "model", "layers", value=3),
            "config.model: `layers`: no such setting, there are aspects",
        ),
        (put("config", "training", "seed", value=-1), "config.training: `seed`: -1, expected 0 to"),
        (
            put("config", "training", "lr", value=1e300),
            r"config.training: `lr`: 1e\+300, expected above 0, at most",
        ),
        (put("config", "training", value=[]), "`config.training`: expected `object`, got `array`"),
        (put("finished", value="yes"), "`finished`: expected `bool`, got `str`"),
        (put("other", value=1), "object contains unknown field `other`"),
        (put("dataset", "hash", value=None), "`dataset.hash`: expected `str`, got `null`"),
        (put("files", "best/model", "bytes", value=-1), "`files.best/model.bytes`: expected `int` >= 0"),
        (
            put("files", "best/model", "bytes", value=1e3),
            "`files.best/model.bytes`: expected `int`, got `float`",
        ),
        (
            put("files", "best/model", "name", value="../model"),
            "`files.best/model.name`: expected the plain name",
        ),
        (put("files", "best/photo", value={}), "`files`: object contains unknown field `best/photo`"),
        (
            put("store", "form", value={"tokens": "all", "project": 0}),
            "`store.form.project`: expected `int` >= 1",
        ),
        (lambda manifest: manifest.pop("store"), "object missing required field `store`"),
    ],
)
def test_edited_manifests_are_refused(
    run: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(run, change)
    for read in (RunFolder.open, Trained.load):
        with pytest.raises(DataError, match=rf"run/manifest.json: .*{words}.*; run `llmdirect train` again"):
            read(run)


def test_nan_is_no_number_of_json(run: Path) -> None:
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text.replace('"lr": 0.001', '"lr": NaN'))
    with pytest.raises(DataError, match=r"not valid JSON \(NaN is no JSON number\)"):
        RunFolder.open(run)


@pytest.mark.parametrize(
    ("setting", "value", "tensor"),
    [
        ("aspects", 4096, r"aspect \[4, 64\], expected \[4097, 64\]"),
        ("user", "both", r"missing, expected \["),
    ],
)
def test_settings_that_do_not_agree_with_the_tensors(
    run: Path, setting: str, value: object, tensor: str
) -> None:
    edit(run, put("config", "model", setting, value=value))
    with pytest.raises(
        DataError, match=rf"model-.*: not of the model of `config.model` in .*manifest.json.*{tensor}"
    ):
        Trained.load(run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda catalogue: catalogue.pop("users"), "catalogue-.*: object missing required field `users`"),
        (put("items", value=[1]), "catalogue-.*: .*expected `str`, got `int`"),
        (lambda catalogue: catalogue["titles"].pop(), "do not agree .numbers of items differ"),
    ],
)
def test_a_catalogue_that_does_not_fit(
    run: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    entry = json.loads((run / "manifest.json").read_text())["files"]["best/catalogue"]
    catalogue = json.loads((run / "best" / entry["name"]).read_text())
    change(catalogue)
    data = json.dumps(catalogue).encode()
    files = write_hashed(run / "best", "catalogue", ".json", lambda file: file.write(data))
    edit(run, put("files", "best/catalogue", value=files))
    with pytest.raises(DataError, match=words):
        Trained.load(run)


def test_a_file_that_is_a_pipe(run: Path) -> None:
    name = json.loads((run / "manifest.json").read_text())["files"]["best/catalogue"]["name"]
    (run / "best" / name).unlink()
    os.mkfifo(run / "best" / name)
    with pytest.raises(DataError, match=f"{name}: is a named pipe"):
        Trained.load(run)
