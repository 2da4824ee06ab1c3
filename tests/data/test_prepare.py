"""Datasets written by `prepare`: positives, items, documents, counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import KINDS, NO_TIME, TEST, TRAIN, VALID, Dataset
from llmdirect.data.prepare import open_or_prepare, prepare
from llmdirect.data.readers.item_metadata import read_item_metadata
from llmdirect.store.audit import audit
from review_files import GOODREADS, INSTRUMENTS, Record, random_reviews, real, review, write_lines


def prepared(folder: Path, records: list[Record], name: str = "out", **options: Any) -> Dataset:
    raw = write_lines(folder / f"{name}.jsonl", records)
    prepare(raw, folder / name, overwrite=True, **options)
    return Dataset.open(folder / name)


# --- the tables ---


def test_published_counts(tmp_path: Path) -> None:
    """Published size of the dataset, and published split fractions of each user."""
    result = prepare(real(INSTRUMENTS), tmp_path / "out")
    counts = result.counts
    assert (counts["interactions"], counts["users"], counts["items"]) == (10_261, 1_429, 900)
    assert (counts["duplicates_dropped"], counts["bad_lines"], counts["empty_texts"]) == (0, 0, 7)
    raw = pl.read_ndjson(real(INSTRUMENTS), schema={"reviewerID": pl.String})
    sizes = raw.group_by("reviewerID").len()["len"].to_numpy()
    dataset = Dataset.open(tmp_path / "out")
    users = dataset.interactions.user_idx
    by_user = np.bincount(users)
    assert sorted(by_user) == sorted(sizes)
    text = dataset.passages.text.str.to_lowercase()
    alone = np.ones(len(by_user), dtype=bool)  # users with unique texts only: held-out sizes are exact
    alone[users[(text.is_duplicated() & (text != "")).to_numpy()]] = False
    assert alone.mean() > 0.9
    for code, expected in ((TEST, np.maximum(1, by_user * 2 // 10)), (VALID, np.maximum(1, by_user // 10))):
        held_out = np.bincount(users[dataset.interactions.split == code], minlength=len(by_user))
        assert (held_out[alone] == expected[alone]).all()
        assert (held_out <= expected).all()
    k_core = prepare(real(INSTRUMENTS), tmp_path / "core", k_core=5)
    assert k_core.counts["k_core_removed"] == {"rounds": 0, "interactions": 0, "users": 0, "items": 0}


def test_k_core_with_custom_columns(tmp_path: Path, cli: CommandLine) -> None:
    """Published size of the 3-core; times are in the long form with a zone."""
    columns = "user=user_id,item=book_id,text=review_text,rating=rating,time=date_added"
    answer = cli("prepare", real(GOODREADS), "--out", tmp_path / "out", "--k-core", 3, "--columns", columns,
                 "--split", "global-time", "--json")  # fmt: skip
    counts = json.loads(answer.out)["counts"]
    assert counts["rows_read"] == 16_862
    assert (counts["interactions"], counts["users"], counts["items"]) == (6_251, 398, 970)
    assert counts["without_time"] == 0
    assert audit(tmp_path / "out").ok


def test_order_and_values(tmp_path: Path) -> None:
    records = [
        review("b", 2, "late", rating=1.5, time=20),
        review("a", "x", "untimed"),
        review("b", 1, "early", rating=None, time=-5),
        review("a", "2", "timed", rating="4", time=0),
    ]
    dataset = prepared(tmp_path, records)
    rows = dataset.interactions
    assert (dataset.user_ids, dataset.item_ids) == (["a", "b"], ["1", "2", "x"])
    assert dataset.item_titles == [None] * 3
    assert rows.user_idx.tolist() == [0, 0, 1, 1]
    assert rows.item_idx.tolist() == [2, 1, 0, 1]
    assert rows.timestamp.tolist() == [NO_TIME, 0, -5, 20]
    np.testing.assert_array_equal(rows.rating, np.array([np.nan, 4, np.nan, 1.5], dtype=np.float32))
    assert dataset.passages.text.to_list() == ["untimed", "timed", "early", "late"]
    assert rows.passage_idx.tolist() == [0, 1, 2, 3]
    assert rows.positive.all()
    assert (rows.split == TRAIN).all()  # two reviews per user are too few to hold one out
    counts = dataset.manifest["counts"]
    assert (counts["without_rating"], counts["without_time"]) == (2, 1)
    assert (counts["interactions"], counts["passages"], counts["density"]) == (4, 4, 4 / 6)


def test_without_rating_and_time_fields(tmp_path: Path) -> None:
    rows = prepared(tmp_path, [review("u", n, f"t{n}") for n in range(5)]).interactions
    assert np.isnan(rows.rating).all()
    assert (rows.timestamp == NO_TIME).all()
    assert rows.positive.all()


def test_empty_text_is_kept_as_an_interaction(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, [review("u", n, text) for n, text in enumerate(["", " \n", "word", ""])])
    assert sorted(dataset.passages.text) == ["", "", " \n", "word"]
    assert dataset.manifest["counts"]["empty_texts"] == 3
    assert dataset.manifest["counts"]["copies_kept_together"] == {"groups": 0, "interactions": 0}
    assert sorted(dataset.duplicate_ids().tolist())[:3] == [-1, -1, -1]


RULES = {
    "rating>=4": [False, False, True, True, False],
    "rating > 4": [False, False, False, True, False],
    "rating<=2.3": [True, True, False, False, False],
    "rating<2.3": [True, False, False, False, False],
    "rating==4": [False, False, True, False, False],
}


@pytest.mark.parametrize("rule", RULES)
def test_positives(tmp_path: Path, rule: str) -> None:
    """2.3 is not a float32: a rating of 2.3 must equal a bound of 2.3. No rating, no positive."""
    ratings = [1, 2.3, 4, 5, None]
    raw = [review(f"u{n}", "i", f"t{n}", rating=rating) for n, rating in enumerate(ratings)]
    dataset = prepared(tmp_path, raw, positive=rule)
    assert dataset.interactions.positive.tolist() == RULES[rule]
    assert dataset.manifest["options"]["positive"] == rule.replace(" ", "")
    assert dataset.manifest["counts"]["positives"] == sum(RULES[rule])
    positives = dataset.csr(TRAIN)
    assert np.diff(positives.indptr).tolist() == [int(positive) for positive in RULES[rule]]
    assert np.diff(dataset.csr(TRAIN, positive_only=False).indptr).tolist() == [1] * 5


def test_different_positive_rules_are_distinguished(tmp_path: Path) -> None:
    raw = [review(f"u{n}", "i", f"t{n}", rating=n) for n in range(3)]
    prepared(tmp_path, raw, positive="rating>=1.00000001")
    with pytest.raises(DataError, match="different: positive"):
        prepare(tmp_path / "out.jsonl", tmp_path / "out", positive="rating>=1.00000002")


def test_csr_and_copy_groups_match_naive(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, random_reviews(5), positive="rating>=3")
    rows = dataset.interactions
    for splits in (TRAIN, (TRAIN, VALID), (TEST,)):
        for positive_only in (True, False):
            relevant = np.atleast_1d(splits).tolist()
            naive: list[list[int]] = [[] for _ in dataset.user_ids]
            for n in range(len(rows)):
                if rows.split[n] in relevant and (rows.positive[n] or not positive_only):
                    naive[rows.user_idx[n]].append(int(rows.item_idx[n]))
            interactions = dataset.csr(splits, positive_only)
            assert [interactions.row(user).tolist() for user in range(interactions.num_rows)] == [
                sorted(r) for r in naive
            ]
    passages = dataset.passages
    words = [" ".join(text.casefold().split()) for text in passages.text]
    groups = dataset.duplicate_ids()
    for n in range(len(passages)):
        assert (groups[n] == -1) == (words[n] == "")
        if words[n]:
            same = [
                m for m in range(len(words))
                if words[m] == words[n] and passages.user_idx[m] == passages.user_idx[n]
            ]  # fmt: skip
            assert np.flatnonzero(groups == groups[n]).tolist() == same


# --- items ---

METADATA = [
    {"parent_asin": "i0", "title": "Drum", "description": ["Loud.", " ", "Round."]},
    {"asin": "i1", "title": None, "description": "Own text 1"},
    {"id": "i2", "title": "Only a title", "description": []},
    {"item_id": "i3"},
    {"item": "unknown", "title": "Nobody asked"},
    {"book_id": "i4", "title": ["replaced"]},
    {"book_id": "i4", "name": "Nineteen", "title": 1984},
]


def with_metadata(tmp_path: Path, **options: Any) -> Dataset:
    raw = [review(f"u{n % 5}", f"i{n % 6}", f"own text {n}") for n in range(30)]
    items = write_lines(tmp_path / "items.jsonl", METADATA)
    return prepared(tmp_path, raw, items=items, **{"only_reviewed_items": True, **options})


def test_descriptions_are_train_passages(tmp_path: Path) -> None:
    dataset = with_metadata(tmp_path)
    assert dataset.item_titles == ["Drum", None, "Only a title", None, "1984", None]
    assert dataset.item_details is None
    descriptions = np.flatnonzero(dataset.passages.kind == KINDS.index("description"))
    assert descriptions.tolist() == list(range(30, 34))
    assert dataset.passages.text.gather(descriptions).to_list() == [
        "Drum\nLoud.\nRound.",
        "Own text 1",
        "Only a title",
        "1984",
    ]
    assert dataset.passages.item_idx[descriptions].tolist() == [0, 1, 2, 4]
    assert (dataset.passages.user_idx[descriptions] == -1).all()
    assert (dataset.passages.split[descriptions] == TRAIN).all()
    assert dataset.manifest["counts"]["item_metadata"] == {
        "items_found": 5,
        "items_without_interactions": 0,
        "descriptions": 4,
        "bad_lines": 0,
        "fields": {
            "item": "item or parent_asin or asin or item_id or book_id or id",
            "title": "title or name",
            "description": "description",
        },
    }


def test_copy_of_description_is_never_held_out(tmp_path: Path) -> None:
    for seed in range(6):
        dataset = with_metadata(tmp_path, seed=seed, fractions=(0.2, 0.4, 0.4))
        rows = dataset.interactions
        texts = dataset.passages.text.gather(rows.passage_idx).to_list()
        assert rows.split[texts.index("own text 1")] == TRAIN


@pytest.mark.parametrize("suffix", [".jsonl", ".py.json", ".csv", ".parquet"])
def test_metadata_formats(tmp_path: Path, suffix: str) -> None:
    records = [
        {"asin": "a", "title": 'A "good" one', "description": "first\nsecond"},
        {"asin": "b", "title": r"It's \d", "description": ""},
    ]
    path = tmp_path / f"items{suffix}"
    if suffix == ".py.json":  # as in the metadata of 2014; json.loads rejects single quotes
        path.write_text("\n".join(str(record).replace("\\\\", "\\") for record in records))
        assert "{'asin': 'a'" in path.read_text()
    elif suffix == ".jsonl":
        path.write_text("\ufeff" + "\n".join(map(json.dumps, records)), encoding="utf-8")
    else:
        frame = pl.DataFrame(records)
        frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    metadata = read_item_metadata(path, ["b", "c", "a"])
    assert metadata.titles == [r"It's \d", None, 'A "good" one']
    assert metadata.descriptions == ["", "", "first\nsecond"]
    assert (metadata.num_found, metadata.bad_lines) == (2, 0)


def test_invalid_metadata(tmp_path: Path) -> None:
    lines = [
        json.dumps({"asin": "a", "title": "A"}),
        "",
        "nonsense",
        json.dumps({"title": "no id"}),
        json.dumps({"asin": True}),
        json.dumps({"asin": "b", "description": {"text": "deep"}}),
        json.dumps({"asin": "b", "title": "\ud800"}),
        "{1: 2}",
    ]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_item_metadata(path, ["a", "b"])
    assert str(caught.value).splitlines() == [
        f"{path}: 6 lines are bad; mend them, or leave them out with `skip_bad_lines=True`:",
        "  line 3: not JSON (Expecting value at character 1)",
        "  line 4: no item (asin is missing)",
        "  line 5: asin is bool, expected text or a number",
        "  line 6: description is dict, expected text or a number; move its fields to the top level",
        "  line 7: title holds an unpaired surrogate, which is no character",
        "  line 8: not JSON (Expecting property name enclosed in double quotes at character 2)",
    ]
    metadata = read_item_metadata(path, ["a", "b"], skip_bad_lines=True)
    assert (metadata.titles, metadata.bad_lines) == (["A", None], 6)


def test_metadata_of_other_items(tmp_path: Path) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", [review("u", n) for n in range(4)])
    items = write_lines(tmp_path / "items.jsonl", [{"id": "z", "title": "Z"}])
    with pytest.raises(
        DataError, match=rf"{items}: its field id has none of the 4 items of the reviews \(such as '0'\)"
    ):
        prepare(raw, tmp_path / "out", items=items)
    (tmp_path / "items.csv").write_text("name,title\na,b\n")
    with pytest.raises(
        DataError, match=r"items.csv: cannot tell the field of the item ids; found: name, title. Name it with"
    ):
        prepare(raw, tmp_path / "out", items=tmp_path / "items.csv")
    assert not (tmp_path / "out").exists()


# --- documents ---


def naive_document(records: list[Record], role: str, name: str, train: set[tuple[str, str]]) -> str:
    own = [r for r in records if r[role] == name and (r["user"], r["item"]) in train and r["text"]]
    return "\n".join(r["text"] for r in sorted(own, key=lambda r: r["time"]))


def unlike(rows: int = 60) -> list[Record]:
    pairs = [(f"u{n % 7}", f"i{n % 11}") for n in range(rows)]
    return [review(u, i, f"text {n}" if n % 9 else "", time=(n * 37) % 101) for n, (u, i) in enumerate(pairs)]


def train_pairs(dataset: Dataset) -> set[tuple[str, str]]:
    rows = dataset.interactions
    keep = np.flatnonzero(rows.split == TRAIN)
    return {(dataset.user_ids[rows.user_idx[n]], dataset.item_ids[rows.item_idx[n]]) for n in keep}


def test_documents_consist_of_train_reviews(tmp_path: Path) -> None:
    records = unlike()
    dataset = prepared(tmp_path, records, passage_unit="document")
    train = train_pairs(dataset)
    assert 0 < len(train) < len(records)
    expected = [naive_document(records, "user", name, train) for name in dataset.user_ids]
    expected += [naive_document(records, "item", name, train) for name in dataset.item_ids]
    assert dataset.passages.text.to_list() == expected
    assert dataset.passages.user_idx.tolist() == [*range(7), *[-1] * 11]
    assert dataset.passages.item_idx.tolist() == [*[-1] * 7, *range(11)]
    assert (dataset.passages.kind == KINDS.index("document")).all()
    assert (dataset.interactions.passage_idx == -1).all()
    assert train == train_pairs(prepared(tmp_path, records, "reviews"))


@pytest.mark.slow
@given(st.integers(0, 59), st.text(max_size=20), st.sampled_from(["random", "leave-last-out", "global-time"]))
@settings(deadline=None, max_examples=25)
def test_documents_exclude_held_out_texts(
    tmp_path_factory: pytest.TempPathFactory, row: int, text: str, split: str
) -> None:
    """Changing a held-out text changes no passage; changing a train text changes two."""
    folder = tmp_path_factory.mktemp("d")
    records = unlike()
    before = prepared(folder, records, passage_unit="document", split=split)
    changed = [dict(record) for record in records]
    changed[row]["text"] = f"changed {text} end"  # no other text is equal
    after = prepared(folder, changed, passage_unit="document", split=split)
    np.testing.assert_array_equal(before.interactions.split, after.interactions.split)
    different = (before.passages.text != after.passages.text).sum()
    in_train = (records[row]["user"], records[row]["item"]) in train_pairs(before)
    assert different == (2 if in_train else 0)


def test_document_unit_invalid_options(tmp_path: Path, cli: CommandLine) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", unlike())
    for _ in range(2):  # written, then unchanged
        answer = cli("prepare", raw, "--out", tmp_path / "out", "--passage-unit", "document")
        assert answer.code == 0
        assert "note: passage unit document:" in answer.out
        assert "training pairs see their own review" in answer.out


# --- raw files as input of later stages ---


def test_raw_file_is_prepared_in_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    raw = write_lines(tmp_path / "data" / "shop.reviews.json", unlike())
    monkeypatch.chdir(tmp_path / "here")
    dataset = open_or_prepare(raw)
    assert dataset.path == Path("shop.reviews")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["shop.reviews.json"]
    prepare(raw, tmp_path / "own")
    assert dataset.hash == Dataset.open(tmp_path / "own").hash
    manifest = Path("shop.reviews") / "manifest.json"
    written = manifest.stat().st_mtime_ns
    assert open_or_prepare(raw).hash == open_or_prepare("shop.reviews").hash == dataset.hash
    assert manifest.stat().st_mtime_ns == written
    prepare(raw, "shop.reviews", seed=1, overwrite=True)
    with pytest.raises(DataError, match=r"shop.reviews: holds a dataset of other options \(different: seed"):
        open_or_prepare(raw)


def test_open_missing_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="none: not found; give a dataset folder or a file of reviews"
    ):
        open_or_prepare("none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty/manifest.json: not found; `llmdirect prepare"):
        open_or_prepare("empty")
    raw = write_lines(tmp_path / "reviews", unlike())
    with pytest.raises(ValueError, match="reviews: the folder for its dataset would have the same name"):
        open_or_prepare("reviews")
    assert raw.is_file()
