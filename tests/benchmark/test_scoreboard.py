"""Scoreboard: agreement with `test`, caching and failures of rows; baselines against references."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import CommandLine
from llmdirect.benchmark import rows as scoreboard_rows
from llmdirect.benchmark.baselines import BASELINES, TrainData
from llmdirect.benchmark.rows import ROWS, Benchmark, Budget, row_identity
from llmdirect.benchmark.scoreboard import scoreboard
from llmdirect.cli.commands.scoreboard import show
from llmdirect.cli.console import stdout
from llmdirect.common.progress import SILENT
from llmdirect.data.dataset import Dataset
from llmdirect.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    holm_correction,
    minimum_detectable_effect,
    sign_flip_p_value,
)
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.store.store import open_store
from run_helpers import make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def data(dataset: Path) -> TrainData:
    return TrainData(Dataset.open(dataset), open_store(dataset))


def test_rows_match_test_command_and_are_cached(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    command = [
        "scoreboard",
        dataset,
        "--splits",
        "2",
        "--rows",
        "popularity,ease,direct",
        "--budget-minutes",
        "0.05",
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
    # The first split is that of the dataset, so that `test` reproduces the figure of its run.
    tested = json.loads(
        cli(
            "test",
            dataset,
            "--parameters",
            next((tmp_path / "runs").glob("default-242-*")),
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
    with pytest.raises(ValueError, match=r"`rows`: 'magic' is unknown"):
        scoreboard(dataset, rows=["magic"], out=tmp_path)


def test_figures_fit_narrow_terminal(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row_names = ["popularity", "ease", "linear-text+ease-text"]
    monkeypatch.setattr(scoreboard_rows, "NUM_TRIALS", 1)
    result = scoreboard(dataset, out=tmp_path, rows=row_names, splits=1)
    for width, last in ((100, "s"), (80, "valid")):
        monkeypatch.setattr(stdout(), "_width", width)
        capsys.readouterr()
        show(result)
        lines = capsys.readouterr().out.splitlines()
        assert any(line.split()[-1:] == [last] for line in lines[:2])
        for row in result["rows"]:
            [line] = [line for line in lines if line.startswith(f"{row['model']} ")]
            assert f"{row['metrics']['ndcg@10']['mean']:.4f} ±" in line
            assert f"{row['validation']:.4f}" in line
        assert ("Holm" in (tmp_path / "scoreboard.md").read_text()) > any("Holm" in line for line in lines)


def dense(data: TrainData) -> np.ndarray:
    table = np.zeros((data.num_users, data.num_items))
    table[data.users, data.positives.indices] = 1
    return table


def scores(tables: ScoreTables) -> np.ndarray:
    """[U, I], from the parts of a tables."""
    table = np.asarray(tables.query, float) @ np.asarray(tables.item, float).T + np.asarray(tables.item_bias)
    if tables.item_item is not None:
        assert tables.history is not None
        indptr, indices, values = tables.item_item
        item_item = np.zeros((tables.num_items, tables.num_items))
        item_item[np.repeat(np.arange(tables.num_items), np.diff(indptr)), indices] = values
        for user in range(tables.num_users):
            table[user] += item_item[tables.history.row(user)].sum(0)
    return table


def test_linear_models_match_closed_forms(data: TrainData) -> None:
    rows, likeness = dense(data), data.directions @ data.directions.T
    for power, weight, words in ((0.0, 0.0, 0.0), (0.7, 0.0, 0.0), (0.5, 3.0, 0.0), (0.5, 1.0, 2.0)):
        counts = rows.sum(1).clip(1)
        gram = rows.T @ (counts[:, None] ** -power * rows) + weight * likeness + 5 * np.eye(rows.shape[1])
        gram += words * data.common_words
        inverse = np.linalg.inv(gram)
        table = -inverse / np.diag(inverse)
        np.fill_diagonal(table, 0)
        tables = BASELINES["ease"].fit(data, 5.0, power, weight, words)
        np.testing.assert_allclose(scores(tables), rows @ table, atol=1e-5)


def test_autoencoder_ridge_below_rounding_error(data: TrainData) -> None:
    with pytest.raises(ValueError, match=r"^ridge: 1e-30 is too small"):
        BASELINES["ease"].fit(data, 1e-30)
    with pytest.raises(ValueError, match=r"^ridge: 1e-30 is too small"):
        BASELINES["l3ae"].fit(data, ridge=1e-30, text_ridge=2.0, distil=0.0)
    with pytest.raises(ValueError, match=r"^text_ridge: 1e-30 is too small"):
        BASELINES["l3ae"].fit(data, ridge=3.0, text_ridge=1e-30, distil=20.0)


def test_text_autoencoder_minimises_loss(data: TrainData) -> None:
    rows = dense(data)
    inverse = np.linalg.inv(data.directions @ data.directions.T + 2 * np.eye(rows.shape[1]))
    semantic = -inverse / np.diag(inverse)
    np.fill_diagonal(semantic, 0)

    def loss(table: np.ndarray) -> float:
        parts = ((rows - rows @ table) ** 2).sum(), (table**2).sum(), ((table - semantic) ** 2).sum()
        return float(parts[0] + 3 * parts[1] + 20 * parts[2])

    tables = BASELINES["l3ae"].fit(data, ridge=3.0, text_ridge=2.0, distil=20.0)
    indptr, indices, values = tables.item_item
    table = np.zeros((data.num_items, data.num_items))
    table[np.repeat(np.arange(data.num_items), np.diff(indptr)), indices] = values
    assert not table.diagonal().any()
    best, rng = loss(table), np.random.default_rng(0)
    for _ in range(20):
        step = rng.standard_normal(table.shape) * 1e-2
        np.fill_diagonal(step, 0)
        assert loss(table + step) > best


def test_slim_minimises_loss(data: TrainData) -> None:
    rows, rng = dense(data), np.random.default_rng(0)
    tables = BASELINES["slim"].fit(data, l1=0.5, l2=4.0)
    indptr, indices, values = tables.item_item
    table = np.zeros((data.num_items, data.num_items))
    table[np.repeat(np.arange(data.num_items), np.diff(indptr)), indices] = values

    def loss(table: np.ndarray) -> float:
        return float(0.5 * ((rows - rows @ table) ** 2).sum() + 0.5 * table.sum() + 2 * (table**2).sum())

    assert (table >= 0).all()
    assert not table.diagonal().any()
    for _ in range(20):
        step = rng.standard_normal(table.shape) * 1e-3
        moved = np.maximum(table + step, 0)
        np.fill_diagonal(moved, 0)
        assert loss(moved) > loss(table) - 1e-6


def test_neighbourhood_models_match_formulas(data: TrainData) -> None:
    rows = dense(data)
    gram = rows.T @ rows
    lengths = np.sqrt(np.diag(gram))
    table = gram / (np.outer(lengths, lengths) + 7)
    np.fill_diagonal(table, 0)
    tables = BASELINES["itemknn"].fit(data, neighbours=10_000, shrink=7.0, user_power=0.0)
    np.testing.assert_allclose(scores(tables), rows @ table, atol=1e-5)

    common = rows @ rows.T
    lengths = np.sqrt(np.diag(common))
    likeness = common / (np.outer(lengths, lengths) + 7)
    np.fill_diagonal(likeness, 0)
    tables = BASELINES["userknn"].fit(data, neighbours=10_000, shrink=7.0, item_power=0.0)
    np.testing.assert_allclose(scores(tables), likeness @ rows, atol=1e-5)

    to_item = rows / rows.sum(1).clip(1)[:, None]
    to_user = rows / rows.sum(0).clip(1)[None, :]
    walk = (to_user.T @ to_item) / rows.sum(0).clip(1)[None, :] ** 0.4
    np.fill_diagonal(walk, 0)
    tables = BASELINES["rp3beta"].fit(data, neighbours=10_000, alpha=1.0, beta=0.4)
    np.testing.assert_allclose(scores(tables), rows @ walk, atol=1e-5)


def test_graph_network_learns_and_is_deterministic(data: TrainData) -> None:
    settings = {"factors": 8, "layers": 2, "learning_rate": 0.02, "regularisation": 1e-4}
    once = BASELINES["lightgcn"].fit(data, epochs=60, **settings)
    again = BASELINES["lightgcn"].fit(data, epochs=60, **settings)
    np.testing.assert_array_equal(once.query, again.query)
    untrained = BASELINES["lightgcn"].fit(data, epochs=0, **settings)
    positives = dense(data) > 0

    def margin(tables: ScoreTables) -> float:
        table = scores(tables)
        return float(table[positives].mean() - table[~positives].mean()) / float(table.std())

    assert margin(once) > margin(untrained) + 0.3


def test_failed_row_reports_reason(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> ScoreTables:
        raise ModuleNotFoundError("No module named 'implicit'")

    monkeypatch.setitem(scoreboard_rows.ROWS, "ials", scoreboard_rows.Row(fails))
    result = scoreboard(dataset, out=tmp_path, rows=["popularity", "ials"], splits=1)
    failed = result["rows"][1]
    assert failed["failed"] == "ModuleNotFoundError: No module named 'implicit'"
    assert "metrics" not in failed
    text = (tmp_path / "scoreboard.md").read_text()
    assert "| ials | failed: ModuleNotFoundError: No module named 'implicit' |" in text
    assert "ials" not in (tmp_path / "scoreboard.svg").read_text()


def test_naive_mix_is_sum_of_parts(dataset: Path, tmp_path: Path) -> None:
    rows = ["linear-text+ease-text"]
    result = scoreboard(dataset, out=tmp_path, rows=rows, splits=1, budget_minutes=1e-6)
    assert result["rows"][0]["failed"] is None
    assert result["rows"][0]["settings"].keys() == {"weight"}
    assert result["rows"][0]["trials"] == 1  # at least one, whatever the budget
    assert sorted(path.name.split("-tuned-")[0] for path in tmp_path.glob("*-tuned-*")) == [
        "ease-text",
        "linear-text",
        "linear-text+ease-text",
    ]


def test_rows_share_budget(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent of the number of splits, and of rows being requested or parts of others."""
    left: list[float] = []

    def seconds_of(budget: Budget, share: float) -> float:
        left.append(budget.shares)
        return 1e9

    monkeypatch.setattr(Budget, "seconds_of", seconds_of)
    monkeypatch.setattr(scoreboard_rows, "NUM_TRIALS", 1)
    row_names = ["popularity", "itemknn", "linear-text+ease-text", "ease"]
    scoreboard(dataset, out=tmp_path, rows=row_names, splits=2)
    assert left == pytest.approx([4.1, 3.1, 2.1, 1.1, 1])


def test_unused_budget_passes_to_later_rows() -> None:
    budget = Budget(210.0, 2.1)
    assert budget.seconds_of(1.0) == pytest.approx(100)
    budget.spend(10.0, 1.0)
    assert budget.seconds_of(1.0) == pytest.approx(200 / 1.1)
    budget.spend(500.0, 1.0)  # the first trial may exceed the budget
    assert budget.seconds_of(0.1) == 0


def test_truncated_search_is_repeated_with_larger_budget(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoreboard_rows, "NUM_TRIALS", 3)

    searched: list[int] = []

    def trials(minutes: float) -> int:
        [row] = scoreboard(dataset, out=tmp_path, rows=["ease"], splits=1, budget_minutes=minutes)["rows"]
        [file] = tmp_path.glob("ease-tuned-*")
        searched.append(file.stat().st_mtime_ns)
        return int(row["trials"])

    assert [trials(minutes) for minutes in (1e-6, 1.2e-6, 60, 1e-6)] == [1, 1, 3, 3]
    assert searched[0] == searched[1] < searched[2] == searched[3]


def test_repeated_command_is_deterministic(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if earlier rows left almost no budget at first, and are cached the second time."""
    monkeypatch.setattr(scoreboard_rows, "NUM_TRIALS", 3)
    allowed = iter([1e9, 0.0, 1e9, 1e9])
    monkeypatch.setattr(Budget, "seconds_of", lambda self, share: next(allowed))
    boards = [scoreboard(dataset, out=tmp_path, rows=["ease", "itemknn"], splits=1)["rows"] for _ in range(2)]
    assert [[row["trials"] for row in rows] for rows in boards] == [[3, 1], [3, 1]]
    assert boards[0][1]["metrics"] == boards[1][1]["metrics"]


def test_cached_search_uses_at_most_its_share(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached long search leaves the budget of other rows unchanged."""
    monkeypatch.setattr(scoreboard_rows, "NUM_TRIALS", 1)
    scoreboard(dataset, out=tmp_path, rows=["ease"], splits=1)
    [file] = tmp_path.glob("ease-tuned-*")
    result = json.loads(file.read_text())
    file.write_text(json.dumps(result | {"seconds": 9000.0}))
    [slow, quick] = scoreboard(dataset, out=tmp_path, rows=["ease", "itemknn"], splits=1, budget_minutes=4)[
        "rows"
    ]
    assert slow["seconds"] >= 9000
    [file] = tmp_path.glob("itemknn-tuned-*")
    assert json.loads(file.read_text())["share"] == pytest.approx(120)
    assert quick["seconds"] < 100


def test_mix_is_updated_with_parts(dataset: Path, tmp_path: Path) -> None:
    def parts(settings: dict[str, float]) -> str:
        benchmark = Benchmark([Dataset.open(dataset)], open_store(dataset), tmp_path, SILENT, Budget(1.0, 1))
        benchmark.tuning["ease-text"] = {"settings": {}}
        benchmark.tuning["linear-text"] = {"settings": settings}
        return row_identity(benchmark, "linear-text+ease-text")

    assert parts({"lr": 0.1}) == parts({"lr": 0.1}) != parts({"lr": 0.2})


def test_invalid_arguments(dataset: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"protocol": "best"}, "`protocol`: 'best' is unknown; there are direct, mmrec"),
        (
            {"protocol": "leave-last-out", "splits": 3},
            '`splits`: 3, but `protocol="leave-last-out"`',
        ),
        ({"splits": 0}, "`splits`: 0, expected 1 to 100"),
        ({"budget_minutes": 0}, "`budget_minutes`: 0, expected above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            scoreboard(dataset, out=tmp_path, rows=["popularity"], **options)
    board = scoreboard(dataset, out=tmp_path, rows=["popularity"], protocol="leave-last-out")
    assert (board["splits"], board["protocol"]) == (1, "leave-last-out")
    assert len(ROWS) == 19


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
