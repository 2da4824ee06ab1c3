"""All commands from raw reviews to explained recommendations, on tiny T5Gemma checkpoints."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import tiny
from command_line import CommandLine
from llmdirect.demo import demo
from review_files import real
from run_helpers import write_reviews


@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_all_stages_on_t5gemma(
    tmp_path: Path, name: str, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMDIRECT_CACHE", str(tmp_path / "cache"))
    checkpoint, _ = tiny.build(name, tmp_path)
    raw, data, run = write_reviews(tmp_path / "reviews.json"), tmp_path / "data", tmp_path / "run"
    encoder = tmp_path / "encoder"

    def run_json(*arguments: object) -> dict[str, object]:
        result = cli(*arguments, "--json")
        assert result.code == 0, result.err
        output: dict[str, object] = json.loads(result.out)
        return output

    run_json("cache-model", checkpoint, "--out", encoder, "--dtype", "float32")
    run_json("prepare", raw, "--out", data)
    run_json("precompute", data, "--encoder", encoder)
    run_json("consolidate", data)
    assert run_json("audit", data)["ok"]
    trained = run_json(
        "train", data, "--out", run, "--num-epochs", "3", "--token-epochs", "1", "--aspc-num", "4"
    )
    lists = tmp_path / "lists.parquet"
    tested = run_json("test", data, "--parameters", run, "--metrics", "ndcg@10,auc", "--lists-out", lists)
    assert trained["epochs"] == 4
    assert tested["metrics"].keys() == {"ndcg@10", "auc"}  # type: ignore[attr-defined]
    assert tested["num_items"] == 14
    check_ndcg(data, lists, tested["metrics"]["ndcg@10"])  # type: ignore[index]
    text = "warm sound, bright strings"
    new = run_json("recommend", run, "--text", text, "--history", "i1", "--encoder", encoder, "-k", "3")
    assert len(new["recommendations"][0]["items"]) == 3  # type: ignore[index]
    failed = cli("recommend", run, "--text", text, "--encoder", checkpoint / "nowhere")
    assert failed.code == 1
    page = tmp_path / "why.html"
    explanation_output = run_json("explain", run, "--user", "u3", "-k", "2", "--html", page)
    for entry in explanation_output["explanations"]:  # type: ignore[attr-defined]
        words = sum(word["contribution"] for passage in entry["passages"] for word in passage["words"])
        parts = sum(value for part, value in entry["terms"].items() if part != "words")
        assert words + parts == pytest.approx(entry["score"], rel=1e-5)
    assert "u3" in page.read_text()


def check_ndcg(dataset: Path, lists: Path, value: float) -> None:
    """Check NDCG@10 against a plain loop over the ranked lists and the dataset's tables."""
    (table,) = dataset.glob("interactions-*.parquet")
    rows = pl.read_parquet(table)
    ranked = pl.read_parquet(lists)
    gains = []
    for user in sorted(set(rows.filter(pl.col("split") == 2)["user_idx"])):
        own_rows = rows.filter(pl.col("user_idx") == user)
        relevant = set(own_rows.filter(pl.col("split") == 2)["item_idx"])
        seen = set(own_rows.filter(pl.col("split") < 2)["item_idx"])
        items = ranked.filter(pl.col("user_idx") == user).sort("rank")["item_idx"].to_list()
        assert not seen & set(items)
        dcg = sum(1 / np.log2(position + 2) for position, item in enumerate(items[:10]) if item in relevant)
        gains.append(dcg / sum(1 / np.log2(position + 2) for position in range(min(10, len(relevant)))))
    assert value == pytest.approx(np.mean(gains), abs=1e-9)


@pytest.mark.slow
def test_demo_recovers_planted_words_and_aspects(tmp_path: Path) -> None:
    result = demo(tmp_path / "demo")
    ndcg = {row["model"]: row["metrics"]["ndcg@10"] for row in result.table}
    assert ndcg["popularity"] * 1.5 < ndcg["direct"] < ndcg["oracle"]
    assert result.recovery is not None
    words, aspects = result.recovery["words"], result.recovery["aspects"]
    assert words["of_interest"] > 4 * words["of_interest_by_chance"]
    assert words["sentence_of_interest"] > 1.5 * words["sentence_of_interest_by_chance"]
    assert aspects["nmi"] > 2 * aspects["nmi_by_chance"]
    assert len(result.explanations["explanations"]) == 3
    assert result.page.read_text().count("Ranked") >= 3
    again = demo(tmp_path / "demo")
    assert again.table == result.table


@pytest.mark.parametrize(
    ("name", "columns", "k_core"),
    [
        ("Magazine_Subscriptions_5.json.gz", None, 0),
        (
            "goodreads_reviews.json.gz",
            "user=user_id,item=book_id,text=review_text,rating=rating,time=date_added",
            3,
        ),
    ],
)
def test_prepare_and_audit_real_reviews(
    tmp_path: Path, cli: CommandLine, name: str, columns: str | None, k_core: int
) -> None:
    options = ["--columns", columns, "--k-core", k_core] if columns else []
    assert cli("prepare", real(name), "--out", tmp_path / "data", *options).code == 0
    assert cli("audit", tmp_path / "data").code == 0
