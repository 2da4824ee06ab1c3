"""Run report: figures of the run, plots, self-contained file."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from command_line import CommandLine
from html_page import Page
from llmdirect.cli.app import app
from llmdirect.config import configure, setting_names
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.plots import Line, intervals, lines, ticks
from llmdirect.reports.run_report import commands, report
from llmdirect.store.token_format import TokenFormat
from run_helpers import fit, make_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    fit(make_dataset(folder / "data"), folder / "run", lr=5e-3)
    return folder / "run"


def read(path: Path) -> Page:
    page = Page(path.read_text())
    page.close()
    return page


def test_report_is_self_contained_and_shows_run(run: Path, cli: CommandLine) -> None:
    out = run.parent / "report.html"
    answer = cli("report", run, "--out", out, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == {"report": str(out.resolve()), "explained": 12}
    page, text = read(out), out.read_text()
    assert not {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe"}
    assert not re.search(r"https?://|url\(", text)
    assert "default-src 'none'" in text
    shown, explainer = page.text(), Explainer.open(run)
    for fact in (
        explainer.texts.dataset.hash,
        explainer.texts.store.hash,
        f"{explainer.texts.store.num_rows:,}",
        "24",
        "14",
    ):
        assert fact in shown
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    best = max(entry["valid"]["ndcg@10"] for entry in history)
    assert f"{best:.4f}" in shown
    assert shown.count("Ranked 1 of") == 24  # the summary line and the explanation in it
    for name in explainer.trained.aspect_names:
        assert name in shown
    for title in ("Scoreboard", "Faithfulness"):
        assert f"#{title.lower()}" not in page.attributes("a", "href")


def test_rating_run_shows_error(run: Path, tmp_path: Path) -> None:
    fit(run.parent / "data", tmp_path / "run", "both", objective="rating")
    report(tmp_path / "run", tmp_path / "report.html")
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    best = min(history, key=lambda entry: entry["valid"]["mse"])
    shown = read(tmp_path / "report.html").text()
    assert f"{best['valid']['mse']:.4f}" in shown
    assert f"mse (dashed: best epoch, {best['epoch']})" in shown


def test_optional_results_are_drawn(run: Path, cli: CommandLine) -> None:
    folder = run.parent
    means = {"llmdirect": (0.2, 0.1, 0.3), "a<b": (0.1, 0.05, 0.15)}
    rows = [
        {
            "model": name,
            "protocols": {
                "random": {
                    "failed": None,
                    "metrics": {"ndcg@10": dict(zip(("mean", "low", "high"), values, strict=True))},
                }
            },
        }
        for name, values in means.items()
    ]
    broken = {"model": "broken", "protocols": {"random": {"failed": "no memory"}}}
    board = {
        "rows": [*rows, broken],
        "metrics": ["ndcg@10"],
        "protocols": {
            "random": {
                "splits": 1,
                "num_users": 24,
                "tied_share": None,
                "num_without_history": 0,
                "verdict": "llmdirect is above every other row",
            }
        },
        "num_items": 14,
        "encoder": "random",
        "positive": "every interaction",
        "users": "report",
        "query_time": "last",
        "minutes": 10.0,
    }
    curve = {"share": [0.0, 0.1, 1.0], "score": [3.0, 2.0, 0.5], "rank": [1, 2, 9]}
    figures = {
        name: {
            "direct": {"mean": 0.5, "low": 0.4, "high": 0.625},
            "random": {"mean": 0, "low": -1, "high": 1},
        }
        for name in ("comprehensiveness", "sufficiency")
    }
    faith = {
        "deletion": {"direct": curve, "random": curve},
        "insertion": {"direct": curve},
        "pairs": 7,
        **figures,
    }
    (folder / "board.json").write_text(json.dumps(board))
    (folder / "faith.json").write_text(json.dumps(faith))
    out = folder / "whole.html"
    options = ("--scoreboard", folder / "board.json", "--faithfulness", folder / "faith.json")
    assert cli("report", run, "--out", out, *options).code == 0
    page = read(out)
    assert {"#scoreboard", "#faithfulness"} <= set(page.attributes("a", "href"))
    assert "a<b" in page.text()
    assert "0.2000" in page.text()
    assert "broken: no memory" in page.text()
    assert "random: llmdirect is above every other row." in page.text()
    assert "0.500 (0.400 to 0.625)" in page.text()
    assert "7 recommendations" in page.text()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "is not JSON"), ("{}", "has no 'protocols'"), ("[]", "has no 'protocols'")],
)
def test_invalid_scoreboard_file(run: Path, cli: CommandLine, content: str, sentence: str) -> None:
    wrong, out = run.parent / "wrong.json", run.parent / "never.html"
    wrong.write_text(content)
    answer = cli("report", run, "--out", out, "--scoreboard", wrong)
    assert answer.code == 1
    assert sentence in answer.err
    assert "llmdirect scoreboard DATASET --json" in answer.err
    assert not out.exists()


def test_paths_are_checked_before_explaining(
    run: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Explainer, "explain", None)
    nowhere = run.parent / "nowhere" / "page.html"
    for options, sentence in (
        (("report", run, "--out", nowhere), "there is no folder"),
        (("report", run, "--out", run), "is a folder; give the name of a file"),
        (("report", run, "--scoreboard", nowhere), "not found; write it with `llmdirect scoreboard"),
        (("explain", run, "--user", "u0", "--html", nowhere), "there is no folder"),
    ):
        answer = cli(*options)
        assert answer.code == 1
        assert sentence in answer.err


def test_moved_dataset(run: Path, cli: CommandLine) -> None:
    path = Path(Explainer.open(run).texts.dataset.path)
    moved = path.rename(path.with_name("moved"))
    try:
        answer = cli("explain", run, "--user", "u0")
        assert answer.code == 1
        assert f"{path}: not found" in answer.err
        assert "--dataset" in answer.err
        assert cli("explain", run, "--user", "u0", "--dataset", moved).code == 0
    finally:
        moved.rename(path)


def test_commands_reproduce_run(run: Path, tmp_path: Path) -> None:
    shown_commands = commands(Explainer.open(run))
    data = run.parent / "data"
    assert shown_commands[0] == f"llmdirect prepare REVIEWS --out {data}"
    assert shown_commands[2] == f"llmdirect consolidate {data}"
    assert shown_commands[3] == (
        f"llmdirect train {data} --out {run} --aspc-num 3 --lr 0.005 --num-epochs 3 --batch-size 32 "
        "--param token_budget=200"
    )


UNUSUAL: list[dict[str, Any]] = [
    {
        "aspects": 5,
        "channels": 2,
        "user": "both",
        "equal_reviews": True,
        "lexicon": 32,
        "seed": 7,
        "metric": "mrr@5",
    },
    {"sentiment": "mlp", "channels": 1, "popularity": False, "collaborative": False},
    {"collaborative": True, "ridge": 7.5, "word_similarity": 2.0, "embedding_similarity": 0.0},
    {"score_form": "ratio", "channels": 1, "batch_norm": True, "history_term": "ease", "device": "cpu"},
    {"objective": "bpr", "negatives": 3, "num_epochs": 7, "batch_size": 64, "lr": 1e-5, "weight_decay": 0.25},
    {"objective": "rating", "damped_biases": False, "popularity": True, "collaborative": True, "liked": 3.5},
    {"clip": 0.5},
    {
        "ema_decay": 0.0,
        "history_dropout": 0.125,
        "train_on_duplicates": True,
        "patience": 2,
        "max_lr_drops": 1,
        "token_epochs": 3,
        "amp": False,
    },
    {
        "token_budget": 999,
        "amp": False,
        "contrastive": 0.5,
        "rate": 1e-7,
        "orthogonality": 2.5,
        "anchor": 0.5,
    },
    {"preset": "paper"},
    {"preset": "paper", "objective": "softmax", "negatives": 0, "lexicon": 64},
]


@pytest.mark.parametrize("settings", UNUSUAL)
def test_commands_round_trip_settings(
    run: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    explainer, trained_with = Explainer.open(run), []
    expected = configure(**settings)
    monkeypatch.setattr(type(explainer.trained.run), "model_config", expected[0])
    monkeypatch.setattr(type(explainer.trained.run), "train_config", expected[1])

    def train(dataset: Path, out: Path, **options: Any) -> NoReturn:
        trained_with.append((options["model"], options["training"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("llmdirect.training.train.train", train)
    CliRunner().invoke(app, shlex.split(commands(explainer)[3])[1:])
    assert trained_with == [expected]


def test_unusual_settings_cover_all_settings() -> None:
    assert {name for settings in UNUSUAL for name in settings} == setting_names() | {"preset", "device"}


def test_commands_keep_text_options(run: Path) -> None:
    explainer = Explainer.open(run)
    made_by = explainer.trained.run.manifest["store"]["encoder"]
    made_by |= {"id": "a/b", "revision": "0" * 39 + "f", "max_length": 128, "model_limit": 512}
    assert f"--encoder a/b --revision {made_by['revision']} --max-length 128" in commands(explainer)[1]
    made_by |= {"revision": "package 0.1", "max_length": 512}
    assert commands(explainer)[1].endswith("--encoder a/b --dtype float32")


def test_commands_of_a_split_without_fractions(run: Path) -> None:
    explainer = Explainer.open(run)
    explainer.texts.dataset.manifest["options"].update(split="leave-last-out", fractions=None)
    assert commands(explainer)[0].endswith("--split leave-last-out")


def test_commands_keep_token_format(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer.open(run)
    form = TokenFormat("bfloat16", 64, "content")
    monkeypatch.setattr(type(explainer.texts.store), "token_format", form)
    assert commands(explainer)[1].endswith(" --dtype bfloat16 --project 64 --tokens content")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0.013, 0.094, [0.02, 0.04, 0.06, 0.08]),
        (-3, 3, [-2, 0, 2]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_points_are_positioned_by_value() -> None:
    svg = lines(
        "t", "epoch", "loss", [Line("one", [1, 2, 3], [0.0, 5.0, 10.0]), Line("two", [1, 3], [10, 0])]
    )
    paths = re.findall(r'<path class="curve c(\d)" d="M([\d. L]+)"/>', svg)
    points = {name: [tuple(map(float, p.split())) for p in path.split("L")] for name, path in paths}
    one, two = points["0"], points["1"]
    assert one[1] == pytest.approx(((one[0][0] + one[2][0]) / 2, (one[0][1] + one[2][1]) / 2), abs=0.1)
    assert one[0][1] > one[2][1]  # the y axis points down
    assert two == [(one[0][0], one[2][1]), (one[2][0], one[0][1])]
    flat = lines("t", "x", "y", [Line("one", [1], [0.0])])
    assert "nan" not in flat
    rows = intervals("t", "x", [("a", 1, 2, 3), ("b", 2, 3, 4)], "b")
    ends = [tuple(map(float, position)) for position in re.findall(r'd="M([\d.]+) \d+H([\d.]+)"', rows)]
    centres = [float(position) for position in re.findall(r'cx="([\d.]+)"', rows)]
    assert centres[0] == pytest.approx(sum(ends[0]) / 2, abs=0.1)
    assert ends[1][0] == pytest.approx(centres[0], abs=0.1)
