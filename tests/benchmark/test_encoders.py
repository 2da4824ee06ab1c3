"""Comparison of encoders: every figure is that of a scoreboard, and sentences follow the intervals."""

import json
from pathlib import Path

import pytest

from command_line import CommandLine
from llmdirect.benchmark.encoders import compare_encoders, verdict, without_text
from llmdirect.benchmark.rows import OURS
from llmdirect.benchmark.scoreboard import scoreboard
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from run_helpers import write_reviews

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    prepare(write_reviews(folder / "raw.json"), folder / "data")
    return folder / "data"


def test_encoders_are_measured_like_rows(dataset: Path, tmp_path: Path, cli: CommandLine) -> None:
    command = ["scoreboard", dataset, "--encoders", "none,lexical", "--protocols", "random,cold-items"]
    command += ["--splits", "1", "--users", "all", "--out", tmp_path]
    answer = cli(*command, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["mark"] == "lexical"
    silent, lexical = result["encoders"]
    assert (silent["encoder"], silent["bytes"]) == ("none", 0)
    assert lexical["bytes"] > 0
    assert lexical["seconds"] > 0
    board = scoreboard(
        dataset, out=tmp_path, rows=[OURS], protocols=["random"], splits=1, users="all", store="lexical-int8"
    )
    [row] = board["rows"]
    assert lexical["protocols"]["random"]["metrics"] == row["protocols"]["random"]["metrics"]["ndcg@10"]
    ratio = silent["protocols"]["random"]["ratio"]
    means = (entry["protocols"]["random"]["metrics"]["mean"] for entry in (silent, lexical))
    assert ratio["mean"] == pytest.approx(next(means) / next(means))
    assert len(result["verdicts"]) == 1
    assert result["verdicts"][0].startswith("none: ")
    again = cli(*command)
    assert again.code == 0
    assert result["verdicts"][0].split("(")[0] in " ".join(again.out.split())


def test_dataset_without_text_has_no_words(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    silent = without_text(opened)
    assert opened.has_text
    assert not silent.has_text
    assert silent.hash != opened.hash


def test_unusable_lists_of_encoders(dataset: Path, tmp_path: Path) -> None:
    for encoders in (["lexical"], ["lexical", "lexical"]):
        with pytest.raises(ValueError, match="expected two or more different names"):
            compare_encoders(dataset, encoders, out=tmp_path)


def test_sentence_follows_the_intervals() -> None:
    def figures(low: float, mean: float, high: float) -> dict:
        return {"ratio": {"low": low, "mean": mean, "high": high}}

    row = {
        "encoder": "large",
        "protocols": {
            "random": figures(1.01, 1.05, 1.1),
            "leave-last-out": figures(0.9, 0.95, 0.99),
            "global-time": figures(0.9, 1.0, 1.2),
            "cold-items": {"ratio": None},
        },
    }
    assert verdict(row, "lexical") == (
        "large: ranks better than lexical in random (1.05, 1.01-1.10); ranks worse in leave-last-out (0.95, "
        "0.90-0.99); no difference is shown in global-time (1.00, 0.90-1.20)"
    )
