"""Categories, features, prices and images of items, and items without interactions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command_line import CommandLine
from llmdirect.collaborative import selection
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import KINDS, TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.readers.item_metadata import read_item_metadata
from llmdirect.data.resplit import resplit
from llmdirect.data.subsets import active_users, cold_items
from llmdirect.explanation.explain import explain
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.recommend import recommend
from llmdirect.store.audit import audit
from llmdirect.training.train import train
from review_files import review, write_lines
from run_helpers import WORDS, write_reviews
from word_encoder import write_words

AMAZON_2014 = {
    "asin": "i0",
    "title": "Drum",
    "price": 12.5,
    "imUrl": "http://img/0.jpg",
    "categories": [["Music", "Drums"], ["Music", "Loud"]],
}
AMAZON_2018 = {
    "asin": "i1",
    "title": "Pick",
    "category": ["Music", "Guitar"],
    "feature": ["Thin.", "Blue &amp; green."],
    "description": ["For you."],
    "price": "$1.99",
    "imageURL": ["http://img/1a.jpg", "http://img/1b.jpg"],
}
AMAZON_2023 = {
    "parent_asin": "i2",
    "title": "Strap",
    "categories": ["Music"],
    "features": ["Long"],
    "description": [],
    "price": None,
    "images": [{"thumb": "http://img/t.jpg", "large": "http://img/l.jpg", "hi_res": None}],
}


def test_usual_fields(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "items.jsonl", [AMAZON_2014, AMAZON_2018, AMAZON_2023])
    items = read_item_metadata(path, ["i0", "i1", "i2", "i3"])
    assert items.categories == [["Music", "Drums", "Loud"], ["Music", "Guitar"], ["Music"], []]
    assert items.features == [[], ["Thin.", "Blue & green."], ["Long"], []]
    assert items.prices == ["12.5", "$1.99", None, None]
    assert items.images == ["http://img/0.jpg", "http://img/1a.jpg", "http://img/l.jpg", None]
    assert [items.passage(index) for index in range(4)] == [
        "Drum\nMusic, Drums, Loud",
        "Pick\nMusic, Guitar\nThin.\nBlue & green.\nFor you.",
        "Strap\nMusic\nLong",
        "",
    ]


def test_formats_and_odd_values(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        "movieId,title,genres\n1,Heat,Action|Crime\n2,Up,\"['Fun', 'Kids']\"\n"
    )
    items = read_item_metadata(tmp_path / "movies.csv", ["1", "2"])
    assert items.categories == [["Action", "Crime"], ["Fun", "Kids"]]
    odd = {"asin": "a", "title": "A", "price": True, "categories": {"x": 1}, "image": 3, "features": "one"}
    items = read_item_metadata(write_lines(tmp_path / "odd.jsonl", [odd]), ["a"])
    assert (items.prices, items.categories, items.features) == ([None], [[]], [["one"]])
    named = read_item_metadata(tmp_path / "odd.jsonl", ["a"], columns={"features": "title", "price": ""})
    assert (named.features, "price" in named.fields) == ([["A"]], False)


def test_ids_are_not_cleaned(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "items.jsonl", [{"asin": " a<b>&amp;\u200b ", "title": "A &amp; <b>B</b>"}])
    items = read_item_metadata(path, ["a<b>&amp;\u200b"], excluded=())
    assert (items.titles, items.new_ids) == (["A & B"], [])


def prepared(tmp_path: Path, items: list[dict[str, Any]], **options: Any) -> Dataset:
    raw = [review(f"u{n % 5}", f"i{n % 6}", f"own text {n}") for n in range(30)]
    prepare(
        write_lines(tmp_path / "raw.jsonl", raw),
        tmp_path / "data",
        items=write_lines(tmp_path / "items.jsonl", items),
        **options,
    )
    return Dataset.open(tmp_path / "data")


def test_details_are_kept(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, [AMAZON_2014, AMAZON_2018, AMAZON_2023])
    assert dataset.item_details is not None
    assert dataset.item_details.columns == ["categories", "features", "price", "image"]
    assert dataset.item_details["price"].to_list() == ["12.5", "$1.99", None, None, None, None]
    texts = dataset.passages.text.gather(np.flatnonzero(dataset.passages.kind == KINDS.index("description")))
    assert texts.to_list()[1].splitlines()[1] == "Music, Guitar"
    subset = active_users(dataset, 2)
    assert subset.item_details is not None
    assert subset.item_details.height == subset.num_items
    assert audit(tmp_path / "data").ok


def test_items_without_interactions(tmp_path: Path, cli: CommandLine) -> None:
    items = [AMAZON_2014, {"asin": "z", "title": "Zither"}, {"asin": "b", "title": None}]
    dataset = prepared(tmp_path, items)
    assert dataset.item_ids == ["i0", "i1", "i2", "i3", "i4", "i5", "b", "z"]
    assert dataset.item_titles[-2:] == [None, "Zither"]
    assert dataset.popularity(TRAIN)[-2:].tolist() == [0, 0]
    assert dataset.passages.item_idx.tolist()[-2:] == [0, 7]
    assert dataset.manifest["counts"]["item_metadata"]["items_without_interactions"] == 2
    for other in (resplit(dataset, seed=5), active_users(dataset, 6), cold_items(dataset, seed=1)):
        assert other.item_ids[-2:] == ["b", "z"]
    raw, path = tmp_path / "raw.jsonl", tmp_path / "items.jsonl"
    prepare(raw, tmp_path / "only", items=path, only_reviewed_items=True)
    assert Dataset.open(tmp_path / "only").num_items == 6
    answer = cli("prepare", raw, "--out", tmp_path / "only", "--items", path)
    assert (answer.code, "different: only_reviewed_items" in answer.err) == (1, True)
    answer = cli("prepare", raw, "--out", tmp_path / "cli", "--items", path)
    assert "items without a review" in answer.out
    assert cli("prepare", raw, "--out", tmp_path / "no", "--only-reviewed-items").code == 2


def test_items_that_the_core_removed_do_not_return(tmp_path: Path) -> None:
    raw = [review(user, item) for user in "ab" for item in "xy"] + [review("a", "rare")]
    items = [{"id": name, "title": name} for name in ("x", "y", "rare", "new")]
    prepare(
        write_lines(tmp_path / "raw.jsonl", raw),
        tmp_path / "data",
        k_core=2,
        items=write_lines(tmp_path / "items.jsonl", items),
    )
    assert Dataset.open(tmp_path / "data").item_ids == ["x", "y", "new"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten times more items in the catalogue than are reviewed."""
    raw = write_reviews(tmp_path / "raw.jsonl")
    rng = np.random.default_rng(0)
    items = [
        {"asin": f"{'i' if n < 14 else 'new'}{n}", "title": f"title {n}", "features": [rng.choice(WORDS)]}
        for n in range(154)
    ]
    prepare(raw, tmp_path / "data", items=write_lines(tmp_path / "items.jsonl", items))
    write_words(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("searched", [4096, 10])
def test_unreviewed_items_are_candidates(
    tmp_path: Path, shop: Path, searched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_SEARCHED", searched)
    run = tmp_path / "run"
    train(shop, run, model=ModelConfig(aspects=3), training=TrainConfig(num_epochs=3))
    result = evaluate(shop, run)
    assert (result.num_items, result.metrics["ndcg@10"] > 0.2) == (154, True)
    [lists] = recommend(run, ["u1"], k=154).recommendations
    assert len(lists.items) > 140
    assert all(np.isfinite(item.score) for item in lists.items)
    new = next(item.item_id for item in lists.items if item.item_id.startswith("new"))
    [entry] = explain(run, "u1", [new])["explanations"]
    assert [passage["kind"] for passage in entry["passages"]] == ["description"]
    assert audit(shop).ok


def test_a_dataset_without_details_is_read(tmp_path: Path) -> None:
    prepared(tmp_path, [{"asin": "i0", "title": "Drum"}])
    manifest = json.loads((tmp_path / "data/manifest.json").read_text())
    table = pl.read_parquet(tmp_path / "data" / manifest["files"]["items"]["name"])
    assert table.columns == ["item_id", "title"]
