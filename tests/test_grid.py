"""Grid search and scoreboard: resumable, refused where something else is there."""

import json
from pathlib import Path

import pytest
from command_line import CommandLine
from run_helpers import make_dataset

from llmdirect.errors import MismatchError
from llmdirect.grid import grid, parse_params
from llmdirect.scoreboard import scoreboard


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


def test_params_are_typed_and_checked() -> None:
    assert parse_params(["lr=1e-3,0.1", "aspc-num=3,5", "vote=true", "form=cosine", "g2=1e-6"]) == {
        "lr": [1e-3, 0.1],
        "aspects": [3, 5],
        "vote": [True],
        "form": ["cosine"],
        "rate": [1e-6],
    }
    for text, message in (
        ("lr", "expected name=value"),
        ("speed=1", "no setting 'speed'; there are .*lr"),
        ("aspects=3.5", "'3.5' is no value of aspects"),
        ("form=flat", "'flat' is no value of form"),
        ("vote=perhaps", "'perhaps' is no value of vote"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_params([text])


def test_every_combination_once_and_the_best_first(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
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
    with pytest.raises(MismatchError, match=r"runs: holds a search of another common"):
        grid(dataset, tmp_path / "runs", params={"lr": [1e-2]}, settings={"num_epochs": 1})


def test_tpe_makes_as_many_trials_as_asked(dataset: Path, tmp_path: Path) -> None:
    options = {
        "params": {"lr": [1e-2, 1e-3, 1e-4]},
        "settings": {"num_epochs": 1, "setup": "bpr"},
        "sampler": "tpe",
    }
    assert len(grid(dataset, tmp_path / "runs", trials=2, **options)["trials"]) == 2  # type: ignore[arg-type]
    assert len(grid(dataset, tmp_path / "runs", trials=3, **options)["trials"]) == 3  # type: ignore[arg-type]


def test_the_default_setup_prefers_a_smaller_error(dataset: Path, tmp_path: Path) -> None:
    settings = {"setup": "default", "popularity": False, "num_epochs": 2}
    result = grid(dataset, tmp_path / "runs", params={"lr": [1e-2, 1e-5]}, settings=settings)
    values = [trial["value"] for trial in result["trials"]]
    assert values == sorted(values)


def test_scoreboard_rows_agree_with_test_and_are_kept(
    dataset: Path, tmp_path: Path, cli: CommandLine
) -> None:
    command = [
        "scoreboard",
        dataset,
        "--splits",
        "2",
        "--rows",
        "popularity,ease,direct",
        "--out",
        tmp_path,
        "--json",
    ]
    answer = cli(*command)
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    rows = {row["model"]: row for row in result["rows"]}
    assert rows.keys() == {"popularity", "ease", "direct"}
    for row in rows.values():
        interval = row["metrics"]["ndcg@10"]
        assert interval["low"] <= interval["mean"] <= interval["high"]
    # The first split is the dataset's own: the run kept there gives the same figure through `test`.
    tested = json.loads(
        cli(
            "test",
            dataset,
            "--parameters",
            tmp_path / "runs" / "default-242",
            "--metrics",
            "ndcg@10",
            "--json",
        ).out
    )
    assert tested["metrics"]["ndcg@10"] == pytest.approx(rows["direct"]["per_split"][0])
    assert rows["popularity"]["ratio_direct"]["mean"] == pytest.approx(
        rows["direct"]["metrics"]["ndcg@10"]["mean"] / rows["popularity"]["metrics"]["ndcg@10"]["mean"]
    )
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert json.loads(cli(*command).out) == result
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == times
    assert "| direct |" in (tmp_path / "scoreboard.md").read_text()
    with pytest.raises(ValueError, match=r"--rows: 'magic' is unknown"):
        scoreboard(dataset, rows=["magic"], out=tmp_path)
