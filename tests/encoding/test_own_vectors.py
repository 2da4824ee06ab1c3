"""Vectors of one's own instead of an encoder: by item and by passage, from files and from memory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command_line import CommandLine
from llmdirect.benchmark.scoreboard import scoreboard
from llmdirect.common.errors import DataError, MismatchError, MissingError
from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.data.dataset import KINDS, TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.subsets import cold_items
from llmdirect.encoding.precompute import precompute
from llmdirect.explanation.explain import explain
from llmdirect.model.train_view import TrainView
from llmdirect.reports.explanation_page import render
from llmdirect.runs.evaluate import evaluate
from llmdirect.runs.recommend import recommend, recommend_new
from llmdirect.store.audit import audit
from llmdirect.store.consolidation import consolidate
from llmdirect.store.store import EmbeddingStore, open_store, with_item_passages
from llmdirect.training.train import train
from run_helpers import write_reviews

DIM = 6


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    prepare(write_reviews(tmp_path / "raw.jsonl"), tmp_path / "data")
    return tmp_path / "data"


def item_vectors(dataset: Path) -> np.ndarray:
    """Vectors that tell the two kinds of items apart."""
    ids = Dataset.open(dataset).item_ids
    rng = np.random.default_rng(0)
    odd = np.array([int(name[1:]) % 2 for name in ids], np.float32)
    vectors = rng.standard_normal((len(ids), DIM)).astype(np.float32) * 0.1
    vectors[:, 0] += 2 * odd - 1
    return vectors


def passage_vectors(dataset: Path) -> np.ndarray:
    opened = Dataset.open(dataset)
    noise = np.random.default_rng(1).standard_normal((opened.num_passages, DIM)) * 0.1
    return item_vectors(dataset)[opened.passages.item_idx] + noise.astype(np.float32)


def sources(dataset: Path, folder: Path) -> dict[str, tuple[Any, Any]]:
    """The same vectors by item in every form: embeddings, ids."""
    vectors, ids = item_vectors(dataset), Dataset.open(dataset).item_ids
    shuffled = np.random.default_rng(2).permutation(len(ids))
    np.save(folder / "items.npy", vectors)
    np.save(folder / "shuffled.npy", vectors[shuffled])
    (folder / "ids.txt").write_text("".join(f"{ids[row]}\n" for row in shuffled))
    table = pl.DataFrame({"asin": [*ids, "unknown"], "vector": [*vectors.tolist(), [0.0] * DIM]})
    table.write_parquet(folder / "table.parquet")
    table.write_ipc(folder / "table.feather")
    wide = pl.DataFrame({"item_id": ids, **{f"v{n}": vectors[:, n] for n in range(DIM)}})
    return {
        "npy": (folder / "items.npy", None),
        "ids in a file": (str(folder / "shuffled.npy"), folder / "ids.txt"),
        "array": (vectors, None),
        "array and ids": (vectors[shuffled], [ids[row] for row in shuffled]),
        "parquet": (folder / "table.parquet", None),
        "feather": (folder / "table.feather", None),
        "polars": (table, None),
        "arrow": (table.to_arrow(), None),
        "columns of numbers": (wide, None),
    }


def test_items_in_every_form(tmp_path: Path, dataset: Path) -> None:
    opened = Dataset.open(dataset)
    expected = item_vectors(dataset)[opened.passages.item_idx]
    for name, (source, ids) in sources(dataset, tmp_path).items():
        result = precompute(dataset, embeddings=source, embedding_ids=ids, dtype="float32", store="own")
        assert (result.texts, result.tokens, result.vectors) == (opened.num_items, opened.num_items, "item")
        consolidate(dataset, store="own")
        store = open_store(dataset, "own")
        assert store.keyed_by == "item"
        stored = store.lookup(opened.passage_keys("item"))
        read = np.concatenate([store.read(passage)[1] for passage in stored.tolist()])
        np.testing.assert_array_equal(read, expected, err_msg=name)
        for path in sorted((dataset / "stores" / "own").glob("*")):
            path.unlink()
        (dataset / "stores" / "own").rmdir()


def test_passages_in_every_form(tmp_path: Path, dataset: Path) -> None:
    opened, vectors = Dataset.open(dataset), passage_vectors(dataset)
    np.save(tmp_path / "p.npy", vectors)
    table = pl.DataFrame(
        {
            "user_id": [opened.user_ids[user] for user in opened.passages.user_idx],
            "item_id": [opened.item_ids[item] for item in opened.passages.item_idx],
            "vector": vectors.tolist(),
        }
    ).sample(fraction=1, shuffle=True, seed=0)
    for source in (tmp_path / "p.npy", table):
        out = tmp_path / f"store-{type(source).__name__}"
        result = precompute(dataset, embeddings=source, dtype="float32", store=str(out), shard_tokens=50)
        assert (result.vectors, result.encoded_shards) == ("passage", -(-opened.num_passages // 50))
        consolidate(dataset, store=str(out))
        store = EmbeddingStore.open(out)
        stored = store.lookup(opened.passage_keys("passage")).tolist()
        for row, passage in enumerate(stored):
            spans, tokens = store.read(passage)
            assert spans.tolist() == [[0, len(opened.passages.text[row])]]
            np.testing.assert_array_equal(tokens[0], vectors[row])


@pytest.mark.parametrize("by", ["item", "passage"])
@pytest.mark.parametrize("equal_reviews", [False, True])
def test_the_whole_road(
    tmp_path: Path, dataset: Path, by: str, equal_reviews: bool, cli: CommandLine
) -> None:
    np.save(tmp_path / "own.npy", item_vectors(dataset) if by == "item" else passage_vectors(dataset))
    answer = cli("precompute", dataset, "--embeddings", tmp_path / "own.npy")
    assert (answer.code, f"{by}s, " in answer.out, "vectors" in answer.out) == (0, True, True)
    assert cli("consolidate", dataset).code == 0
    assert cli("precompute", dataset, "--embeddings", tmp_path / "own.npy").code == 0
    assert audit(dataset).ok
    run = tmp_path / "run"
    config = ModelConfig(aspects=3, equal_reviews=equal_reviews)
    training = TrainConfig(num_epochs=4, batch_size=32, token_epochs=1)
    train(dataset, run, model=config, training=training)
    assert evaluate(dataset, run).metrics["ndcg@10"] > 0.1
    result = explain(run, "u1", than="i0", k=2)
    entry = result["explanations"][0]
    assert sum(p["contribution"] for p in entry["passages"]) == pytest.approx(
        entry["terms"]["words"], abs=1e-4
    )
    assert all(passage["words"] == [] for passage in entry["passages"])
    assert [passage["kind"] for passage in entry["passages"]] == (
        ["item"] if by == "item" else [KINDS[0]] * len(entry["passages"])
    )
    assert "single words have no figures" in render(result, "title")
    answer = cli("explain", run, "--user", "u1")
    assert (answer.code, "single words have no figures" in answer.out) == (0, True)
    assert cli("aspects", run).code == 0
    for command in (
        ("recommend", run, "--text", "warm sound"),
        ("faithfulness", dataset, "--parameters", run),
        ("explain", run, "--user", "u1", "--counterfactual", "10"),
    ):
        answer = cli(*command)
        assert (answer.code, "which is no language model" in answer.err) == (1, True), answer.err
    assert recommend_new(run, history=["i1"]).recommendations[0].items


def test_vectors_of_items_without_text(tmp_path: Path, dataset: Path) -> None:
    rows = Dataset.open(dataset).interactions
    pairs = zip(rows.user_idx.tolist(), rows.item_idx.tolist(), strict=True)
    ids = Dataset.open(dataset).item_ids
    orders = pl.DataFrame([{"user_id": str(user), "item_id": ids[item]} for user, item in pairs])
    prepare(None, tmp_path / "shop", interactions=orders)
    assert not Dataset.open(tmp_path / "shop").has_text
    precompute(tmp_path / "shop", embeddings=item_vectors(dataset), embedding_ids=ids)
    consolidate(tmp_path / "shop")
    result = train(
        tmp_path / "shop",
        tmp_path / "run",
        model=ModelConfig(aspects=2, collaborative=False, popularity=False),
        training=TrainConfig(num_epochs=5),
    )
    assert result.best_value > 0.3  # chance is about 0.2
    assert recommend(tmp_path / "run", ["1"]).recommendations
    [entry] = explain(tmp_path / "run", "1", k=1)["explanations"]
    assert entry["passages"][0]["effect"] != 0


def test_items_without_a_vector(tmp_path: Path, dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = Dataset.open(dataset).item_ids
    vectors = item_vectors(dataset)[2:]
    result = precompute(dataset, embeddings=vectors, embedding_ids=ids[2:])
    assert result.plan is not None
    assert (result.plan.texts_without_tokens, result.tokens) == (2, len(ids) - 2)
    assert f"2 of {len(ids)} items have no vector ({ids[0]!r}, {ids[1]!r})" in caplog.text
    consolidate(dataset)
    train(dataset, tmp_path / "run", model=ModelConfig(aspects=2), training=TrainConfig(num_epochs=1))
    explain(tmp_path / "run", "u0", [ids[0]])


def test_an_item_without_reviews_is_ranked_by_its_vector(tmp_path: Path) -> None:
    raw = write_reviews(tmp_path / "raw.jsonl")
    held_out = pl.col("asin").is_in(["i0", "i1"])
    every_ninth = pl.int_range(pl.len()) % 9 == 0
    split = pl.when(held_out).then(pl.lit("test")).when(every_ninth).then(pl.lit("valid"))
    reviews = pl.read_ndjson(raw).with_columns(split=split.otherwise(pl.lit("train")))
    names = ["new0", "new1", "new2", "new3"]
    items = pl.DataFrame({"asin": ["i2", *names], "title": ["Two", *[None] * 4]})
    prepare(reviews, tmp_path / "shop", items=items, split_column="split")
    shop = Dataset.open(tmp_path / "shop")
    ids = shop.item_ids
    assert set(names) <= set(ids)
    parity = np.array([int(name[-1]) % 2 for name in ids])
    vectors = np.random.default_rng(0).standard_normal((len(ids), DIM)).astype(np.float32) * 0.1
    vectors[:, 0] += 2 * parity - 1
    precompute(tmp_path / "shop", embeddings=vectors, embedding_ids=ids)
    consolidate(tmp_path / "shop")
    assert consolidate(tmp_path / "shop").dropped == 0
    assert precompute(tmp_path / "shop", embeddings=vectors, embedding_ids=ids).consolidated
    assert audit(tmp_path / "shop").ok
    store = open_store(tmp_path / "shop")
    completed = with_item_passages(shop, store)
    view = TrainView.from_dataset(completed, store)
    assert (completed.passages.split[view.passage_idx] == TRAIN).all()
    texts = dict(
        zip(view.passage_item.tolist(), completed.passages.text.gather(view.passage_idx), strict=True)
    )
    lacking = [ids.index(name) for name in ("i0", "i1", *names)]
    assert [texts[item] for item in lacking] == [""] * len(lacking)  # no text of a held-out review
    run = tmp_path / "run"
    model = ModelConfig(aspects=2, collaborative=False, popularity=False)
    train(tmp_path / "shop", run, model=model, training=TrainConfig(num_epochs=6, batch_size=32))
    for user, others in (("u0", ("0", "2")), ("u1", ("1", "3"))):
        [lists] = recommend(run, [user], k=len(ids)).recommendations
        new = [item.item_id for item in lists.items if item.item_id in names]
        assert sorted(new[:2]) == [f"new{other}" for other in others]
    assert evaluate(tmp_path / "shop", run).metrics["ndcg@10"] > 0.3
    [entry] = explain(run, "u1", ["new1"])["explanations"]
    assert [passage["kind"] for passage in entry["passages"]] == ["item"]
    assert entry["passages"][0]["effect"] != 0
    board = scoreboard(tmp_path / "shop", rows=["ease-text"], splits=1, budget_minutes=1e-6)
    assert board["rows"][0]["protocols"]["own"]["failed"] is None


def test_cold_items_with_vectors_of_passages(dataset: Path) -> None:
    precompute(dataset, embeddings=passage_vectors(dataset))
    consolidate(dataset)
    opened = Dataset.open(dataset)
    cold = cold_items(opened, seed=3)
    assert (cold.passages.user_idx != opened.passages.user_idx).any()
    np.testing.assert_array_equal(cold.passage_keys("passage"), opened.passage_keys("passage"))
    board = scoreboard(
        dataset,
        rows=["popularity", "ease-text"],
        protocols=["cold-items"],
        splits=1,
        users="all",
        budget_minutes=1e-6,
    )
    popularity, text = (row["protocols"]["cold-items"] for row in board["rows"])
    assert (popularity["failed"], text["failed"]) == (None, None)
    assert text["metrics"]["ndcg@10"]["mean"] > 0.3


def test_what_is_refused(tmp_path: Path, dataset: Path, cli: CommandLine) -> None:
    ids, vectors = Dataset.open(dataset).item_ids, item_vectors(dataset)
    nan, big = vectors.copy(), vectors.copy()
    nan[3, 2], big[4, 1] = np.nan, 1e6
    (tmp_path / "ids.txt").write_text("a\n\nb\n")
    table = {"item_id": ids, "vector": vectors.tolist()}
    for source, options, message in [
        (vectors[1:], {}, "13 vectors, .* has 14 items and 168 passages"),
        (vectors[0], {}, r"float32 \[6\], expected numbers \[vectors, dimensions\]"),
        (nan, {}, "row 4 holds NaN"),
        (nan, {"embedding_ids": ids}, f"row 4 \\(item {ids[3]!r}\\) holds NaN"),
        (vectors, {"embedding_ids": ids[1:]}, "13 ids for the 14 vectors"),
        (vectors, {"embedding_ids": [ids[0], *ids[:-1]]}, "row 2 .* is also in row 1"),
        (vectors, {"embedding_ids": [f"x{name}" for name in ids]}, "none of its ids is in"),
        (vectors[:3], {"embedding_ids": tmp_path / "ids.txt"}, "ids.txt: line 2 has no id"),
        (big, {"dtype": "float16"}, "row 5 is not finite in float16; store it as `dtype='float32'`"),
        (pl.DataFrame({"vector": vectors.tolist()}), {}, "no column of item ids"),
        (pl.DataFrame({"item_id": ids}), {}, "expected one column of vectors"),
        (pl.DataFrame({**table, "item_id": [None, *ids[1:]]}), {}, "row 1 has no item id"),
        (pl.DataFrame({**table, "vector": [[1.0], *vectors[1:].tolist()]}), {}, "row 2 has a vector of 6"),
        (pl.DataFrame({**table, "vector": [None, *vectors[1:].tolist()]}), {}, "row 1 has no vector"),
    ]:
        with pytest.raises(DataError, match=message):
            precompute(dataset, embeddings=source, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`project`: 7, expected at most the 6"):
        precompute(dataset, embeddings=vectors, project=7)
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    np.save(tmp_path / "pickle.npy", np.array([{}, None], object), allow_pickle=True)
    np.save(tmp_path / "good.npy", vectors)
    for name in ("bad.npy", "pickle.npy"):
        with pytest.raises(DataError, match=rf"{name}: not an array of numbers"):
            precompute(dataset, embeddings=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        precompute(dataset, embeddings=tmp_path / "none.npy")
    for options in (("--encoder", "minilm"), ("--device", "cpu"), ("--token-budget", "9"), ("--estimate",)):
        answer = cli("precompute", dataset, "--embeddings", tmp_path / "good.npy", *options)
        assert (answer.code, "no effect with --embeddings" in answer.err) == (2, True), answer.err
        assert options[0] in answer.err
    assert cli("precompute", dataset, "--embedding-ids", tmp_path / "ids.txt").code == 2
    assert not (dataset / "stores").exists() or not list((dataset / "stores").glob("*/manifest.json"))


def test_another_store_is_not_replaced(dataset: Path) -> None:
    vectors = item_vectors(dataset)
    precompute(dataset, embeddings=vectors, store="own")
    consolidate(dataset)
    assert precompute(dataset, embeddings=vectors, store="own").consolidated
    with pytest.raises(MismatchError, match="another `store`"):
        precompute(dataset, embeddings=vectors + 1, store="own")
    assert json.loads((dataset / "stores/own/manifest.json").read_text())["encoder"]["vectors"] == "item"


def test_new_texts_need_an_encoder(tmp_path: Path, dataset: Path) -> None:
    precompute(dataset, embeddings=item_vectors(dataset))
    consolidate(dataset)
    train(dataset, tmp_path / "run", training=TrainConfig(num_epochs=1))
    with pytest.raises(MissingError, match=r"trained on given vectors, which is no language model"):
        recommend_new(tmp_path / "run", texts=["warm"])
