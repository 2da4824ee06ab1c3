"""Splits of one's own: from a column, from three files, in memory; each has its own hash."""

from pathlib import Path

import numpy as np
import pytest

from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import SPLIT_NAMES, TEST, TRAIN, VALID, Dataset
from llmdirect.data.prepare import prepare
from review_files import Record, review, write_lines

NAMES = {"train": TRAIN, "validation": VALID, "Test": TEST}


def records() -> list[Record]:
    names = ["train"] * 4 + ["validation", "Test"]
    return [
        review(f"u{user}", f"i{item}", f"text {user} {item}", fold=names[(user + item) % 6])
        for user in range(5)
        for item in range(6)
    ]


def expected() -> dict[tuple[str, str], int]:
    return {(row["user"], row["item"]): NAMES[row["fold"]] for row in records()}


def split_of(dataset: Dataset) -> dict[tuple[str, str], int]:
    rows = dataset.interactions
    return {
        (dataset.user_ids[user], dataset.item_ids[item]): code
        for user, item, code in zip(rows.user_idx, rows.item_idx, rows.split.tolist(), strict=True)
    }


def test_a_column_with_the_split(tmp_path: Path, cli: CommandLine) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", records())
    answer = cli("prepare", raw, "--out", tmp_path / "out", "--split-column", "fold")
    assert answer.code == 0
    assert ["split", "fold", "30", "0", "0"] in [line.split()[:5] for line in answer.out.splitlines()]
    dataset = Dataset.open(tmp_path / "out")
    assert split_of(dataset) == expected()
    assert (dataset.passages.split == dataset.interactions.split).all()
    assert dataset.manifest["options"]["split"] == "given"
    assert prepare(raw, tmp_path / "out", split_column="fold").status == "unchanged"


def test_three_files(tmp_path: Path) -> None:
    paths = {
        name: write_lines(tmp_path / f"{name}.jsonl", [row for row in records() if row["fold"] == name])
        for name in NAMES
    }
    prepare(paths["train"], tmp_path / "out", valid=paths["validation"], test=paths["Test"])
    assert split_of(Dataset.open(tmp_path / "out")) == expected()
    other = write_lines(tmp_path / "other.jsonl", records()[:1])
    with pytest.raises(DataError, match="different: test"):
        prepare(paths["train"], tmp_path / "out", valid=paths["validation"], test=other)


def test_a_split_that_is_none_of_the_three(tmp_path: Path) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", [*records(), review("u", "i", fold="held out")])
    with pytest.raises(DataError, match=r"line 31: split \(fold\) is none of train, valid, test"):
        prepare(raw, tmp_path / "out", split_column="fold")
    with pytest.raises(DataError, match="no field 'part' \\(`split_column`\\); found: user, item"):
        prepare(raw, tmp_path / "out", split_column="part")
    rest = write_lines(tmp_path / "rest.jsonl", [row for row in records() if row["fold"] != "train"])
    with pytest.raises(DataError, match="no review is in train"):
        prepare(rest, tmp_path / "out", split_column="fold")


def test_a_split_is_given_once(tmp_path: Path, cli: CommandLine) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", records())
    for options, words in (
        (("--split", "random", "--split-column", "fold"), "--split: has no effect with --split-column"),
        (("--valid", raw, "--split-column", "fold"), "--valid: has no effect with --split-column"),
        (("--valid", raw, "--seed", "3"), "--seed: has no effect with --valid"),
    ):
        answer = cli("prepare", raw, "--out", tmp_path / "out", *options)
        assert (answer.code, words in answer.err) == (2, True)


def test_a_replaced_split_has_another_hash(tmp_path: Path) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", records())
    prepare(raw, tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    codes = np.roll(dataset.interactions.split, 1)
    replaced = dataset.with_split(codes)
    assert replaced.hash != dataset.hash
    assert replaced.with_split(dataset.interactions.split).hash == dataset.hash
    assert replaced.manifest["counts"]["per_split"] == {
        name: int((codes == code).sum()) for code, name in enumerate(SPLIT_NAMES)
    }
    for wrong in (codes[1:], np.full_like(codes, 3)):
        with pytest.raises(ValueError, match="split: expected 30 numbers, 0 to 2"):
            dataset.with_split(wrong)
