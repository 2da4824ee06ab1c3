"""Grid search: resuming, failures, and invalid output folders."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from command_line import CommandLine
from llmdirect.choices import Preset
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.data.dataset import Dataset
from llmdirect.runs.folder import RunFolder
from llmdirect.training.search import SEARCHED, _check_combinations, grid
from llmdirect.training.settings import parse_params, parse_settings
from run_helpers import make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


def test_parse_params() -> None:
    assert parse_params(
        [
            "lr=1e-3,0.1",
            "aspc-num=3,5",
            "equal_reviews=true",
            "score_form=cosine",
            "g2=1e-6",
            "ridge=64,2.5",
            "collaborative=false",
        ]
    ) == {
        "lr": [1e-3, 0.1],
        "ridge": [64.0, 2.5],
        "collaborative": [False],
        "aspects": [3, 5],
        "equal_reviews": [True],
        "score_form": ["cosine"],
        "rate": [1e-6],
    }
    for text, message in (
        ("lr", "expected name=value"),
        ("speed=1", "no setting 'speed'; there are .*lr"),
        ("aspects=3.5", "'3.5' is no value of aspects"),
        ("score_form=flat", "'flat' is no value of score_form"),
        ("equal_reviews=perhaps", "'perhaps' is no value of equal_reviews"),
        ("ridge=found", r"'found' is no value of ridge \(float\)"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_params([text])


def test_train_setting_has_single_value(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    assert parse_settings(["clip=0.5", "equal_reviews=true"]) == {"clip": 0.5, "equal_reviews": True}
    with pytest.raises(ValueError, match="`param` 'clip=2': clip is given twice"):
        parse_settings(["clip=1", "clip=2"])
    with pytest.raises(ValueError, match=r"no setting 'device'; there are (?!.*device)(?!.*preset)"):
        parse_settings(["device=cpu"])
    with pytest.raises(ValueError, match="`param` clip: 2 values, expected one; grid tries several"):
        parse_settings(["clip=0.5,1"])
    answer = cli("train", dataset, "--out", tmp_path / "run", "--lr", "0.1", "--param", "lr=0.2")
    assert answer.code == 2
    assert "--param lr: has its own option, which is given too" in answer.err
    answer = cli("train", dataset, "--out", tmp_path / "run", "--num-epochs", "1", "--param", "clip=0.5")
    assert answer.code == 0, answer.err
    assert RunFolder.open(tmp_path / "run").train_config.clip == 0.5


def test_grid_runs_each_combination_once_and_sorts_by_metric(
    dataset: Path, tmp_path: Path, cli: CommandLine
) -> None:
    command = ["grid", dataset, "--out", tmp_path / "runs", "--num-epochs", "2", "--param", "lr=1e-2,1e-4"]
    answer = cli(*command, "--param", "aspc_num=2,3", "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    values = [trial["value"] for trial in result["trials"]]
    assert values == sorted(values, reverse=True)
    assert (
        len({json.dumps(trial["params"], sort_keys=True) for trial in result["trials"]}) == 4 == len(values)
    )
    assert result["best"] == result["trials"][0]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")}
    assert len(times) == 4
    again = json.loads(cli(*command, "--param", "aspc_num=2,3", "--json").out)
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(MismatchError, match=r"runs: holds a search of another common, params"):
        grid(dataset, tmp_path / "runs", params={"lr": [1e-2]}, settings={"num_epochs": 1})


def test_grid_of_one_combination_and_failed_trials(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(grid(dataset, tmp_path / "one", params={"lr": [1e-3]}, settings={"num_epochs": 1}).trials) == 1
    from llmdirect.training import search as module

    work = module.train_on

    def diverges(*args: object, **options: object) -> object:
        if options["training"].lr == 1e-2:  # type: ignore[attr-defined]
            raise DataError("the loss is nan")
        return work(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train_on", diverges)
    result = grid(dataset, tmp_path / "two", params={"lr": [1e-2, 1e-3]}, settings={"num_epochs": 1})
    assert [trial.params for trial in result.trials] == [{"lr": 1e-3}]
    assert result.failed == [{"lr": 1e-2}]


def test_interrupted_search_resumes(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmdirect.training import search as module

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    params = {"lr": [1e-2, 1e-3, 1e-4]}
    for patched in ("train_on", "run_name"):  # within a trial, and at its start
        with monkeypatch.context() as patch:
            patch.setattr(module, patched, killed)
            with pytest.raises(Killed):
                grid(dataset, tmp_path / "runs", params=params, settings={"num_epochs": 1})
    result = grid(dataset, tmp_path / "runs", params=params, settings={"num_epochs": 1})
    assert sorted(trial.params["lr"] for trial in result.trials) == [1e-4, 1e-3, 1e-2]


@pytest.mark.parametrize("preset", SEARCHED)
def test_default_search_space_is_valid(dataset: Path, preset: Preset) -> None:
    searched = SEARCHED[preset]
    combinations = [dict(zip(searched, values, strict=True)) for values in product(*searched.values())]
    assert len(combinations) > 1
    assert not _check_combinations(Dataset.open(dataset), {"preset": preset}, combinations)


def test_incomparable_runs(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runs that watch mse and ndcg@10 do not compare"):
        grid(dataset, tmp_path / "runs", params={"objective": ["softmax", "rating"]})
    with pytest.raises(ValueError, match=r"runs that watch auc and ndcg@10 do not compare"):
        grid(dataset, tmp_path / "runs", params={"metric": ["auc", "ndcg@10"]})
    message = "`param` sentiment=mlp, channels=1, token_epochs=2: token_epochs: every epoch of the mlp"
    params = {"sentiment": ["linear", "mlp"], "channels": [1], "token_epochs": [0, 2]}
    with pytest.raises(ValueError, match=message):
        grid(dataset, tmp_path / "runs", params=params)
    # On pooled text these losses would train parameters that no score uses.
    for loss, form in (("rate", "cosine"), ("orthogonality", "cosine"), ("orthogonality", "ratio")):
        params = {loss: [0.0, 1e-6], "score_form": [form]}
        with pytest.raises(ValueError, match=rf"{loss}=1e-06.*: `{loss}`: acts on .*`token_epochs=5`"):
            grid(dataset, tmp_path / "runs", params=params)
    assert not (tmp_path / "runs").exists()
    whole = Dataset.open(dataset)
    rows = replace(whole.interactions, rating=np.full(len(whole.interactions), np.nan, np.float32))
    unrated = replace(whole, interactions=rows)
    with pytest.raises(DataError, match=r"^(?!`param`).*has no ratings"):
        _check_combinations(unrated, {"objective": "rating"}, [{"lr": 0.1}])


def test_tpe_number_of_trials(dataset: Path, tmp_path: Path) -> None:
    options = {
        "params": {"lr": [1e-2, 1e-3, 1e-4]},
        "settings": {"num_epochs": 1, "objective": "bpr"},
        "sampler": "tpe",
    }
    for trials in (2, 5):
        result = grid(dataset, tmp_path / "runs", trials=trials, **options)  # type: ignore[arg-type]
        assert len(result.trials) == trials
    # A resumed search draws new trials instead of repeating the first.
    assert len({trial.params["lr"] for trial in result.trials}) > 1


def test_default_objective_minimises_error(dataset: Path, tmp_path: Path) -> None:
    settings = {"objective": "rating", "popularity": False, "num_epochs": 2}
    result = grid(dataset, tmp_path / "runs", params={"lr": [1e-2, 1e-5]}, settings=settings)
    values = [trial.value for trial in result.trials]
    assert values == sorted(values)
