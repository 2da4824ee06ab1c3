"""`audit`: valid datasets pass; leaks, damage and contradictions are reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command_line import CommandLine
from llmdirect._core import passage_keys
from llmdirect.common.errors import DataError
from llmdirect.common.files import digest, write_hashed
from llmdirect.common.types import canonical_json
from llmdirect.data.dataset import TEST, TRAIN, VALID, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.store.audit import audit
from llmdirect.text.duplicates import normalize_text
from review_files import INSTRUMENTS, MAGAZINES, random_reviews, real, review, write_lines
from store_helpers import data_file, random_content, write_content

Frames = dict[str, pl.DataFrame]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six users, eight items, 48 distinct texts."""
    raw = [review(f"u{u}", f"i{i}", f"text {u} {i}", time=u * i) for u in range(6) for i in range(8)]
    prepare(write_lines(tmp_path / "raw.jsonl", raw), tmp_path / "out")
    return tmp_path / "out"


def rewrite(folder: Path, change: Callable[[Frames], None]) -> None:
    """Replace tables by changed ones with valid hashes, so that only their content is wrong."""
    manifest = json.loads((folder / "manifest.json").read_text())
    frames = {name: pl.read_parquet(folder / file["name"]) for name, file in manifest["files"].items()}
    change(frames)
    for name, frame in frames.items():
        (folder / manifest["files"][name]["name"]).unlink()
        manifest["files"][name] = write_hashed(folder, name, ".parquet", frame.write_parquet)
    manifest["hash"] = digest(canonical_json({"options": manifest["options"], "files": manifest["files"]}))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def put(frames: Frames, table: str, column: str, row: int, value: object) -> None:
    values = frames[table][column].to_list()
    values[row] = value
    frames[table] = frames[table].with_columns(pl.Series(column, values, frames[table].schema[column]))


# --- valid datasets ---


@pytest.mark.parametrize("name", [INSTRUMENTS, MAGAZINES])
def test_real_data_passes(tmp_path: Path, cli: CommandLine, name: str) -> None:
    prepare(real(name), tmp_path / "out")
    result = audit(tmp_path / "out")
    assert (result.ok, result.num_leaks, result.problems) == (True, 0, [])
    assert result.files_checked == 4
    answer = cli("audit", tmp_path / "out")
    assert answer.code == 0
    assert "files, indices and splits are sound" in answer.out
    dataset = Dataset.open(tmp_path / "out")  # naive reference
    train = set()
    passages = dataset.passages
    words = [normalize_text(text) for text in passages.text]
    for n, split in enumerate(passages.split):
        if split == TRAIN and words[n]:
            train |= {("user", passages.user_idx[n], words[n]), ("item", passages.item_idx[n], words[n])}
    held_out = np.flatnonzero(passages.split != TRAIN)
    assert not any(("user", passages.user_idx[n], words[n]) in train for n in held_out)
    assert not any(("item", passages.item_idx[n], words[n]) in train for n in held_out)
    elsewhere = {key[2] for key in train}
    coincidences = sum(words[n] in elsewhere for n in held_out)
    noted = [note for note in result.notes if "by another user about another item" in note]
    assert noted == (
        [f"{coincidences} held-out texts have a copy in train by another user about another item"]
        if coincidences
        else []
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"split": "leave-last-out"}, {"split": "global-time"}, {"passage_unit": "document"}, {"k_core": 3}],
)
def test_prepared_datasets_pass(tmp_path: Path, options: dict[str, Any]) -> None:
    for seed in range(4):
        raw = write_lines(tmp_path / f"{seed}.jsonl", random_reviews(seed))
        items = write_lines(tmp_path / "items.jsonl", [{"id": f"i{n}", "title": f"T {n}"} for n in range(9)])
        prepare(raw, tmp_path / str(seed), items=items, **options)
        result = audit(tmp_path / str(seed))
        assert (result.ok, result.leaks, result.problems) == (True, [], [])


# --- leaks ---


@pytest.mark.parametrize("relation", ["same user", "same item", "description"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_planted_leak(folder: Path, cli: CommandLine, relation: str, split: str) -> None:
    code = {"valid": VALID, "test": TEST}[split]
    planted: dict[str, Any] = {}

    def plant(frames: Frames) -> None:
        passages = frames["passages"]
        held_out = next(n for n, split_code in enumerate(passages["split"]) if split_code == code)
        user, item = passages["user_idx"][held_out], passages["item_idx"][held_out]
        planted.update(row=held_out, user=f"u{user}", item=f"i{item}", text=f"text {user} {item}")
        copy = f"  TEXT\n{user} {item}"
        if relation == "description":
            described = {
                "text": copy,
                "kind": "description",
                "user_idx": -1,
                "item_idx": item,
                "split": TRAIN,
            }
            frames["passages"] = pl.concat([passages, pl.DataFrame([described], schema=passages.schema)])
            return
        same, other = ("user_idx", "item_idx") if relation == "same user" else ("item_idx", "user_idx")
        train = next(
            n
            for n, row in enumerate(passages.rows(named=True))
            if row["split"] == TRAIN and row[same] == passages[same][held_out]
        )
        assert passages[other][train] != passages[other][held_out]
        put(frames, "passages", "text", train, copy)

    rewrite(folder, plant)
    answer = cli("audit", folder, "--json")
    assert answer.code == 1
    result = json.loads(answer.out)
    assert (result["ok"], result["num_leaks"]) == (False, 1)
    leak = result["leaks"][0]
    assert leak["relation"] == ("same user" if relation == "same user" else "same item")
    assert (leak["passage_idx"], leak["split"], leak["text"]) == (planted["row"], split, planted["text"])
    assert (leak["user_id"], leak["item_id"]) == (planted["user"], planted["item"])
    train = [leak["train_user_id"], leak["train_item_id"]]
    assert train[0] == (planted["user"] if relation == "same user" else train[0])
    assert train[1] == (planted["item"] if relation != "same user" else train[1])
    shown = cli("audit", folder)
    assert shown.code == 1
    assert f"leak: {split} text of user {planted['user']} on item {planted['item']} is in train" in shown.out
    assert f"{folder}: 1 leaks, 0 problems" in shown.err


def test_many_leaks_are_counted(folder: Path, cli: CommandLine) -> None:
    def plant(frames: Frames) -> None:
        frames["passages"] = frames["passages"].with_columns(
            pl.format("by {}", "user_idx").alias("text")  # all texts of a user are equal
        )

    before = Dataset.open(folder).interactions.split
    rewrite(folder, plant)
    result = audit(folder)
    assert result.num_leaks == (before != TRAIN).sum() > 6
    answer = cli("audit", folder)
    assert answer.out.count("leak: ") == min(20, result.num_leaks)
    assert answer.code == 1


def test_copy_by_other_user_about_other_item_is_noted(folder: Path) -> None:
    def plant(frames: Frames) -> None:
        rows = frames["passages"].rows(named=True)
        test = next(n for n, row in enumerate(rows) if row["split"] == TEST)
        train = next(
            n
            for n, row in enumerate(rows)
            if row["split"] == TRAIN
            and row["user_idx"] != rows[test]["user_idx"]
            and row["item_idx"] != rows[test]["item_idx"]
        )
        put(frames, "passages", "text", train, rows[test]["text"])

    rewrite(folder, plant)
    result = audit(folder)
    assert (result.ok, result.leaks) == (True, [])
    assert result.notes == ["1 held-out texts have a copy in train by another user about another item"]


# --- damage ---


@pytest.mark.parametrize("table", ["interactions", "users", "items", "passages"])
def test_any_changed_byte_is_detected(folder: Path, cli: CommandLine, table: str) -> None:
    path = data_file(folder, table)
    good = path.read_bytes()
    for position in (4, len(good) // 3, len(good) - 9):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        answer = cli("audit", folder)
        assert answer.code == 1
        assert f"{path}: " in answer.err
        assert "llmdirect prepare" in answer.err
        assert "--overwrite" in answer.err
    path.write_bytes(good[:-1])
    with pytest.raises(
        DataError, match=rf"{path}: {len(good) - 1} bytes, the manifest says {len(good)}; run"
    ):
        audit(folder)
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"{path}: not found, though {folder / 'manifest.json'} names"
    ):
        audit(folder)
    path.write_bytes(good)
    assert audit(folder).ok


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_wrong_manifest_hash(folder: Path, cli: CommandLine) -> None:
    edit_manifest(folder, hash="0" * 32)
    answer = cli("audit", folder)
    assert answer.code == 1
    assert f"{folder / 'manifest.json'}: hash is {'0' * 32}, its contents hash to" in answer.err
    assert "the file was edited; run `llmdirect prepare` again with --overwrite" in answer.err


def test_edited_options_are_detected(folder: Path) -> None:
    options = json.loads((folder / "manifest.json").read_text())["options"]
    edit_manifest(folder, options=options | {"seed": 1})
    with pytest.raises(DataError, match="the file was edited"):
        audit(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": {}}, "`files`: object missing required field `interactions`"),
        ({"files": None}, "`files`: expected `object`, got `null`"),
        ({"hash": 1}, "`hash`: expected `str`, got `int`"),
        ({"hash": "0" * 31}, "`hash`: expected a hash of 32 hex digits"),
        ({"options": {}}, "`options`: object missing required field `unit`"),
        ({"options": {"unit": "page"}}, "`options.unit`: invalid enum value 'page'"),
        ({"counts": []}, "`counts`: expected `object`, got `array`"),
        ({"options": None}, "`options`: expected `object`, got `null`"),
        ({"extra": 1}, "object contains unknown field `extra`"),
    ],
)
def test_incomplete_manifest(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(DataError, match=rf"{folder / 'manifest.json'}: {words}.*; run `llmdirect pre"):
        audit(folder)


def test_folder_without_dataset(tmp_path: Path, cli: CommandLine) -> None:
    answer = cli("audit", tmp_path)
    assert answer.code == 1
    assert f"{tmp_path / 'manifest.json'}: not found; `llmdirect prepare` makes it" in answer.err


CONTRADICTIONS: dict[str, tuple[str, str, int, object, str]] = {
    "user": ("interactions", "user_idx", 3, 6, r"interactions-.*: user_idx is 6 in row 3, expected 0 to 5"),
    "item": ("interactions", "item_idx", 2, -1, r"interactions-.*: item_idx is -1 in row 2, expected 0 to 7"),
    "passage": ("interactions", "passage_idx", 1, 48, r"passage_idx is 48 in row 1, expected 0 to 47"),
    "no passage": ("interactions", "passage_idx", 0, -1, r"passage_idx is -1 in row 0, expected 0 to 47"),
    "split": ("interactions", "split", 0, 3, r"interactions-.*: split is 3 in row 0, expected 0 to 2"),
    "passage split": ("passages", "split", 47, 9, r"passages-.*: split is 9 in row 47, expected 0 to 2"),
    "passage user": ("passages", "user_idx", 0, 99, r"passages-.*user_idx is 99 in row 0, expected -1 to 5"),
    "other user": ("passages", "user_idx", 0, 1, r"an interaction and its passage disagree \(first: row 0\)"),
    "user id": ("users", "user_id", 1, "u0", r"users-.*: user_id 'u0' is there twice, again in row 1"),
    "item id": ("items", "item_id", 7, "i1", r"items-.*: item_id 'i1' is there twice, again in row 7"),
    "null": ("interactions", "split", 5, None, r"interactions-\w+.parquet: column 'split' lacks 1 values"),
    "null id": ("users", "user_id", 5, None, r"users-\w+.parquet: column 'user_id' lacks 1 values"),
    "kind": ("passages", "kind", 5, "poem", r"passages-\w+.parquet: passage of kind 'poem', there are"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradicting_tables(folder: Path, name: str) -> None:
    table, column, row, value, words = CONTRADICTIONS[name]
    rewrite(folder, lambda frames: put(frames, table, column, row, value))
    with pytest.raises(DataError, match=rf"{folder}.*{words}.*run `llmdirect prepare"):
        audit(folder)


def test_interaction_moved_to_train(folder: Path) -> None:
    """A test row moved to train, with its passage still marked as held out."""
    test = int(np.flatnonzero(Dataset.open(folder).interactions.split == TEST)[0])
    rewrite(folder, lambda frames: put(frames, "interactions", "split", test, TRAIN))
    with pytest.raises(DataError, match=rf"an interaction and its passage disagree \(first: row {test}\)"):
        audit(folder)


def test_duplicate_pair(folder: Path) -> None:
    def double(frames: Frames) -> None:
        for table in ("interactions", "passages"):
            put(frames, table, "item_idx", 1, frames[table]["item_idx"][0])

    rewrite(folder, double)
    with pytest.raises(
        DataError,
        match=r"the pair of user \d and item \d is there twice, again in row 1; run `llmdirect prepare`",
    ):
        audit(folder)


def test_passage_without_interaction(folder: Path) -> None:
    def add(frames: Frames) -> None:
        last = frames["passages"].tail(1).with_columns(text=pl.lit("smuggled"), split=pl.lit(TRAIN, pl.UInt8))
        frames["passages"] = pl.concat([frames["passages"], last])

    rewrite(folder, add)
    with pytest.raises(DataError, match=r"a passage is the review of no interaction \(first: row 48\)"):
        audit(folder)


# --- stores ---


def add_store(folder: Path, keys: np.ndarray, **changes: Any) -> Path:
    content = random_content(np.random.default_rng(0), [2] * len(keys))
    content.keys[:] = keys
    path = folder / "stores" / "tiny"
    write_content(path, content, **changes)
    return path


def test_store_with_every_passage(folder: Path) -> None:
    dataset = Dataset.open(folder)
    more = passage_keys(["another text"])
    add_store(folder, np.concatenate([more, dataset.passage_keys()]), source={"dataset": dataset.hash})
    result = audit(folder)
    assert (result.ok, result.stores_checked, result.notes) == (True, ["tiny"], [])


def test_store_with_missing_passages(folder: Path, cli: CommandLine) -> None:
    path = add_store(folder, Dataset.open(folder).passage_keys()[:-2])
    answer = cli("audit", folder)
    assert answer.code == 1
    lacking = (
        f"problem: {path}: lacks 2 of 48 texts of the dataset (first: 'text 5 6'); run `llmdirect precomp"
    )
    assert lacking in answer.out
    assert f"{folder}: 0 leaks, 1 problems" in answer.err


def test_store_of_another_dataset_is_noted(folder: Path) -> None:
    path = add_store(folder, Dataset.open(folder).passage_keys(), source={"dataset": "abc"})
    result = audit(folder)
    assert result.ok
    assert [note for note in result.notes if note.startswith(f"{path}: was made from dataset abc, this is")]


def test_damaged_store(folder: Path, cli: CommandLine) -> None:
    path = add_store(folder, Dataset.open(folder).passage_keys())
    tokens = data_file(path, "tokens")
    good = tokens.read_bytes()
    tokens.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    answer = cli("audit", folder)
    assert answer.code == 1
    assert f"problem: {tokens}: " in answer.out
    assert cli("audit", folder, "--quick").code == 0
    tokens.write_bytes(good[:-1])
    assert cli("audit", folder, "--quick").code == 1
    tokens.unlink()
    answer = cli("audit", folder)
    assert answer.code == 1
    assert str(tokens) in answer.out


def test_unconsolidated_store_is_noted(folder: Path) -> None:
    (folder / "stores" / "half" / "shards").mkdir(parents=True)
    result = audit(folder)
    assert result.ok
    assert result.notes == [
        f"{folder / 'stores' / 'half'}: no manifest yet; `llmdirect consolidate {folder}` completes it"
    ]
