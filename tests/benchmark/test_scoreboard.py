"""Scoreboard: agreement with `test`, caching, searches, failures of rows, and lists of other models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import llmdirect
from command_line import CommandLine
from llmdirect.benchmark import rows as scoreboard_rows
from llmdirect.benchmark import tuning
from llmdirect.benchmark.baselines import Baseline, TrainData
from llmdirect.benchmark.benchmark import Benchmark, FittedRow, Row
from llmdirect.benchmark.models import ItemBiasModel
from llmdirect.benchmark.rows import ROWS
from llmdirect.benchmark.scoreboard import scoreboard
from llmdirect.benchmark.spaces import Number, at_border, grow
from llmdirect.benchmark.summary import verdict
from llmdirect.cli.commands.scoreboard import show
from llmdirect.cli.console import stdout
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import Dataset
from llmdirect.evaluation.development import users_of
from llmdirect.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    holm_correction,
    minimum_detectable_effect,
    sign_flip_p_value,
)
from run_helpers import make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "NUM_TRIALS", 2)
    monkeypatch.setattr(tuning, "MORE_TRIALS", 1)


def figures(result: dict[str, Any], protocol: str = "random") -> dict[str, Any]:
    return {row["model"]: row["protocols"][protocol] for row in result["rows"]}


@pytest.mark.parametrize("protocol", ["random", "leave-last-out"])
@pytest.mark.usefixtures("few_trials")
def test_rows_match_test_command_and_are_cached(tmp_path: Path, cli: CommandLine, protocol: str) -> None:
    dataset = make_dataset(tmp_path / "reviews", split=protocol)
    out = tmp_path / "board"
    command = [
        "scoreboard",
        dataset,
        "--splits",
        "2",
        "--rows",
        "popularity,ease,llmdirect",
        "--users",
        "all",
    ]
    command += ["--protocols", "random,leave-last-out", "--out", out, "--json"]
    answer = cli(*command)
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    rows = figures(result, protocol)
    assert rows.keys() == {"popularity", "ease", "llmdirect"}
    for row in rows.values():
        interval = row["metrics"]["ndcg@10"]
        assert interval["low"] <= interval["mean"] <= interval["high"]
    # The first split is that of the dataset, so that `test` reproduces the figure of its run.
    first = json.loads(next(out.glob(f"llmdirect-{protocol}-0-*.json")).read_bytes())
    run = out / "runs" / first["run"]
    tested = cli("test", dataset, "--parameters", run, "--metrics", "ndcg@10", "--json")
    assert tested.code == 0, tested.err
    measured = json.loads(tested.out)["metrics"]["ndcg@10"]
    assert measured == pytest.approx(rows["llmdirect"]["per_split"][0])
    assert rows["popularity"]["ratio"]["mean"] == pytest.approx(
        rows["llmdirect"]["metrics"]["ndcg@10"]["mean"] / rows["popularity"]["metrics"]["ndcg@10"]["mean"]
    )
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert json.loads(cli(*command).out) == result
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == times
    text = (out / "scoreboard.md").read_text()
    assert "| llmdirect |" in text
    assert "### leave-last-out" in text
    per_user = pl.read_parquet(out / "per_user.parquet")
    means = per_user.filter(pl.col("protocol") == protocol, pl.col("split") == 0)
    means = means.group_by("model").agg(pl.col("ndcg@10").mean())
    assert dict(means.iter_rows())["ease"] == pytest.approx(rows["ease"]["per_split"][0])
    qrels = (out / f"qrels-{protocol}-0.trec").read_text().splitlines()
    assert all(line.split()[1::2] == ["0", "1"] for line in qrels)


@pytest.mark.usefixtures("few_trials")
def test_report_measures_the_users_that_decisions_do_not_see(dataset: Path, tmp_path: Path) -> None:
    seen = {}
    for half in ("report", "development", "all"):
        result = scoreboard(dataset, out=tmp_path, rows=["ease"], protocols=["random"], splits=1, users=half)
        seen[half] = set(pl.read_parquet(result["per_user"])["user_id"])
        ids = Dataset.open(dataset).user_ids
        expected = {name for name, is_in in zip(ids, users_of(half, ids), strict=True) if is_in}
        assert seen[half] == expected
    assert not seen["report"] & seen["development"]
    assert len(list(tmp_path.glob("ease-random-tuned-*"))) == 1  # validation is of all users


@pytest.mark.usefixtures("few_trials")
def test_unknown_rows_and_options(dataset: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"rows": ["magic"]}, "`rows`: 'magic' is unknown; there are popularity, recent"),
        ({"protocols": ["best"]}, "`protocols`: 'best' is unknown; there are random, leave-last-out"),
        ({"protocols": ["leave-last-out"], "splits": 3}, "`splits`: 3, but leave-last-out have no random"),
        ({"splits": 0}, "`splits`: 0, expected 1 to 100"),
        ({"budget_minutes": 0}, "`budget_minutes`: 0, expected above 0"),
        ({"users": "odd"}, "`users`: 'odd' is unknown; there are report, development, all"),
        ({"query_time": "event"}, '`query_time="event"`: belongs to leave-last-out'),
        (
            {"runs": ["x.trec"], "protocols": ["random"]},
            "`runs`: ranked lists are of the dataset's own split",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            scoreboard(dataset, out=tmp_path, **{"rows": ["popularity"], **options})
    board = scoreboard(
        dataset, out=tmp_path, rows=["popularity"], protocols=["leave-last-out"], query_time="event"
    )
    assert board["protocols"]["leave-last-out"]["splits"] == 1


@pytest.mark.usefixtures("few_trials")
def test_row_without_times_is_left_empty(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "reviews", columns={"time": ""})
    result = scoreboard(raw, out=tmp_path / "b", rows=["popularity", "recent-popularity"], splits=1)
    assert list(result["protocols"]) == ["random"]
    assert figures(result)["recent-popularity"]["failed"] == "needs times, which the dataset lacks"


@pytest.mark.usefixtures("few_trials")
def test_terminal_shows_every_row(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["popularity", "ease", "linear-text+ease-words", "llmdirect"]
    result = scoreboard(dataset, out=tmp_path, rows=names, splits=1, protocols=["random"])
    for width in (120, 60):
        monkeypatch.setattr(stdout(), "_width", width)
        capsys.readouterr()
        show(result)
        shown = capsys.readouterr().out
        for row in result["rows"]:
            [line] = [line for line in shown.splitlines() if line.startswith(f"{row['model']} ")]
            assert f"{row['protocols']['random']['metrics']['ndcg@10']['mean']:.4f}" in line
        assert ("llmdirect / row" in shown) == (width == 120)
        assert result["protocols"]["random"]["verdict"][:20] in " ".join(shown.split())


def test_verdict_says_no_more_than_the_interval() -> None:
    assert "is below" in str(verdict({"mean": 0.9, "low": 0.85, "high": 0.99}, "ease"))
    assert "is above" in str(verdict({"mean": 1.1, "low": 1.01, "high": 1.2}, "ease"))
    for low, high in ((0.8, 1.0), (0.8, 1.1), (1.0, 1.1)):
        sentence = str(verdict({"mean": 0.95, "low": low, "high": high}, "ease"))
        assert sentence.startswith("no difference")
        assert "below" not in sentence
    assert verdict(None, "ease") is None


def test_failed_row_reports_reason(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> FittedRow:
        raise ModuleNotFoundError("No module named 'implicit'")

    monkeypatch.setitem(scoreboard_rows.ROWS, "ials", Row(fails))
    result = scoreboard(dataset, out=tmp_path, rows=["popularity", "ials"], splits=1, protocols=["random"])
    failed = figures(result)["ials"]
    assert failed == {"failed": "ModuleNotFoundError: No module named 'implicit'"}
    text = (tmp_path / "scoreboard.md").read_text()
    assert "| ials | failed: ModuleNotFoundError: No module named 'implicit' |" in text
    assert "ials" not in (tmp_path / "scoreboard.svg").read_text()


@pytest.mark.usefixtures("few_trials")
def test_every_row_is_measured_in_every_protocol(dataset: Path, tmp_path: Path) -> None:
    """But for the slow ones, which `test_rows_match_test_command_and_are_cached` has."""
    names = [name for name in ROWS if not name.startswith(("llmdirect", "direct", "linear", "lightgcn"))]
    protocols = ["random", "leave-last-out", "global-time", "cold-items", "new-users"]
    result = scoreboard(
        dataset, out=tmp_path, rows=names, protocols=protocols, splits=1, users="all", budget_minutes=0.01
    )
    for row in result["rows"]:
        for protocol, values in row["protocols"].items():
            reason = values["failed"]
            assert reason is None, f"{row['model']} {protocol}: {reason}"
            assert 0 <= values["coverage"] <= 1
            assert 0 <= values["gini"] <= 1
            assert values["novelty"] > 0
    assert result["protocols"]["global-time"]["splits"] == 5


@pytest.mark.usefixtures("few_trials")
@pytest.mark.parametrize("protocol", ["leave-last-out", "global-time", "new-users"])
def test_direct_reads_what_the_protocol_allows(dataset: Path, tmp_path: Path, protocol: str) -> None:
    result = scoreboard(
        dataset,
        out=tmp_path,
        rows=["llmdirect", "direct-paper"],
        protocols=[protocol],
        splits=1,
        users="all",
        budget_minutes=1e-3,
    )
    for name, values in figures(result, protocol).items():
        assert values["failed"] is None, name
        assert values["trials"] == 1


def test_search_is_resumed_trial_by_trial(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "NUM_TRIALS", 4)
    monkeypatch.setattr(tuning, "MORE_TRIALS", 0)

    def search(folder: Path, minutes: float) -> list[Any]:
        scoreboard(dataset, out=folder, rows=["ease"], splits=2, protocols=["random"], budget_minutes=minutes)
        [file] = folder.glob("ease-random-tuned-*")
        return list(json.loads(file.read_text())["trials"])

    whole = search(tmp_path / "whole", 10)
    assert len(whole) == 4
    assert all(len(trial["values"]) == 2 for trial in whole)
    one = search(tmp_path / "cut", 1e-9)
    assert len(one) == 1
    assert search(tmp_path / "cut", 10) == whole
    assert search(tmp_path / "cut", 1e-9) == whole


def test_search_leaves_a_border(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best size is 30, far outside the range that the search starts with."""
    monkeypatch.setattr(tuning, "NUM_TRIALS", 6)
    monkeypatch.setattr(tuning, "MORE_TRIALS", 6)
    monkeypatch.setattr(
        Benchmark, "validation", lambda self, model, split: split - abs(float(np.log(model.bias[0] / 30)))
    )

    def fit(data: TrainData, size: float) -> ItemBiasModel:
        return ItemBiasModel(np.full(data.num_items, size))

    row = scoreboard_rows._baseline(Baseline(fit, {"size": Number(0.01, 1.0, log=True)}, finalists=1))
    monkeypatch.setitem(ROWS, "sized", row)
    result = scoreboard(dataset, out=tmp_path, rows=["sized"], splits=2, protocols=["random"])
    found = figures(result)["sized"]
    assert found["settings"][0]["size"] > 3
    assert 6 < found["trials"] <= 6 + 3 * 6


def test_ranges_grow_at_their_borders_alone() -> None:
    space = {"ridge": Number(1.0, 100.0, log=True), "power": Number(0, 1, floor=0, ceiling=1), "kind": (1, 2)}
    inside = {"ridge": 10.0, "power": 1.0, "kind": 2}
    assert grow(space, inside) == space
    assert at_border(space, inside) == []
    grown = grow(space, {**inside, "ridge": 99.0})["ridge"]
    assert isinstance(grown, Number)
    assert (grown.low, grown.high) == (1.0, pytest.approx(1000))
    count = Number(1, 8, integer=True, floor=1, ceiling=10)
    assert count.grown(8).high == 10
    assert count.grown(1) == count
    assert at_border({"n": count}, {"n": 8}) == ["n"]


def test_a_changed_row_is_measured_again(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure() -> int:
        scoreboard(dataset, out=tmp_path, rows=["popularity"], splits=1, protocols=["random"])
        return len(list(tmp_path.glob("popularity-random-0-*")))

    assert measure() == measure() == 1
    monkeypatch.setattr(tuning, "code_digest", lambda: "other code")
    assert measure() == 2
    monkeypatch.setattr(tuning, "_versions", lambda: {"numpy": "0"})
    assert measure() == 3


@pytest.mark.usefixtures("few_trials")
def test_registered_baseline_is_a_row(dataset: Path, tmp_path: Path) -> None:
    def fit(data: TrainData, weight: float) -> Any:
        return lambda queries: np.tile(weight * data.popularity, (len(queries), 1))

    llmdirect.register_baseline("mine", fit, {"weight": Number(0.1, 1.0)})
    try:
        result = scoreboard(
            dataset, out=tmp_path, rows=["popularity", "mine"], splits=1, protocols=["random"]
        )
        rows = figures(result)
        assert rows["mine"]["metrics"] == rows["popularity"]["metrics"]
        with pytest.raises(ValueError, match="there is a row 'mine' already"):
            llmdirect.register_baseline("mine", fit)
    finally:
        del ROWS["mine"]


@pytest.mark.usefixtures("few_trials")
def test_lists_of_another_model_are_measured(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    """Lists that `test --lists-out` wrote have the figures of `test`, as TREC and as Parquet with ids."""
    assert cli("train", dataset, "--out", tmp_path / "run", "--num-epochs", "2").code == 0
    lists = tmp_path / "mine.parquet"
    answer = cli("test", dataset, "--parameters", tmp_path / "run", "--lists-out", lists, "--json")
    expected = json.loads(answer.out)["metrics"]
    opened = Dataset.open(dataset)
    table = pl.read_parquet(lists)
    with_ids = tmp_path / "ids.parquet"
    pl.DataFrame(
        {
            "user_id": [opened.user_ids[user] for user in table["user_idx"]],
            "item_id": [opened.item_ids[item] for item in table["item_idx"]],
            "score": table["score"],
        }
    ).write_parquet(with_ids)
    result = scoreboard(
        dataset,
        out=tmp_path / "b",
        rows=["popularity"],
        runs=[lists.with_suffix(".trec"), with_ids],
        users="all",
    )
    rows = figures(result, "own")
    for name in ("run:mine", "run:ids"):
        for metric in ("ndcg@10", "recall@20"):
            assert rows[name]["metrics"][metric]["mean"] == pytest.approx(expected[metric])


def test_bad_lists_name_the_cause(dataset: Path, tmp_path: Path) -> None:
    for content, message in (
        ("", "the file is empty"),
        ("u1 Q0 i1 1 high tag\n", "line 1 is not `user Q0 item rank score tag`"),
        ("u1 Q0 nothing 1 0.5 tag\n", "1 items are not in .*, such as 'nothing'"),
        ("nobody Q0 i1 1 0.5 tag\n", "none of its users is in .*, such as 'nobody'"),
        ("u1 Q0 i1 1 0.5 tag\nu1 Q0 i1 2 0.4 tag\n", "lists an item twice"),
    ):
        path = tmp_path / "run.trec"
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            scoreboard(dataset, out=tmp_path / "b", rows=["popularity"], runs=[path])
    pl.DataFrame({"u": ["u1"], "i": ["i1"]}).write_parquet(tmp_path / "run.parquet")
    with pytest.raises(DataError, match="has the columns u, i; expected user or user_id"):
        scoreboard(dataset, out=tmp_path / "b", rows=["popularity"], runs=[tmp_path / "run.parquet"])


def test_statistics_of_paired_users() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(400)
    better = base + 0.05 + 0.1 * rng.standard_normal(400)
    assert sign_flip_p_value(better, base) < 0.001
    assert sign_flip_p_value(base, base) == 1
    null = [sign_flip_p_value(base, base + 0.1 * rng.standard_normal(400)) for _ in range(40)]
    assert 0.2 < np.mean(null) < 0.8
    ratio = bootstrap_ratio(better, base)
    assert ratio is not None
    assert ratio["low"] < ratio["mean"] == better.mean() / base.mean() < ratio["high"]
    assert bootstrap_ratio(base, np.zeros(400)) is None
    assert bootstrap_mean(base)["low"] < base.mean() < bootstrap_mean(base)["high"]
    assert holm_correction({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "c": 0.06, "b": 0.06}
    )
    # 2.8 standard errors of the difference, as a share of the mean.
    error = (better - base).std(ddof=1) / 20
    assert minimum_detectable_effect(better, base) == pytest.approx(2.8 * error / base.mean())
    assert minimum_detectable_effect(better[:1], base[:1]) is None
    assert minimum_detectable_effect(better, 0 * base) is None
