"""Interactions without text: alone and beside reviews, with weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import CommandLine
from llmdirect.common.errors import DataError
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.subsets import active_users
from review_files import review, write_lines

ORDERS = """customer_id,product_id,date,qty
a,i1,2020-01-01,2
a,i1,2020-01-05,3
a,i2,2020-01-02,
b,i9,2020-01-03,1.5
"""


def pairs(dataset: Dataset) -> dict[tuple[str, str], tuple[str, float]]:
    """Text and weight of each pair."""
    rows = dataset.interactions
    weight = np.ones(len(rows)) if rows.weight is None else rows.weight
    return {
        (dataset.user_ids[user], dataset.item_ids[item]): (dataset.passages.text[int(passage)], float(number))
        for user, item, passage, number in zip(
            rows.user_idx, rows.item_idx, rows.passage_idx, weight, strict=True
        )
    }


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text(ORDERS)
    return path


def test_orders_alone(tmp_path: Path, orders: Path, cli: CommandLine) -> None:
    answer = cli("prepare", "--interactions", orders, "--out", tmp_path / "out")
    assert answer.code == 0
    assert ["weight", "qty", "3", "1", "0", "1.5", "to", "3"] in map(str.split, answer.out.splitlines())
    assert pairs(Dataset.open(tmp_path / "out")) == {
        ("a", "i1"): ("", 5.0),
        ("a", "i2"): ("", 1.0),
        ("b", "i9"): ("", 1.5),
    }


def test_orders_beside_reviews(tmp_path: Path, orders: Path) -> None:
    raw = write_lines(
        tmp_path / "raw.jsonl", [review("a", "i1", "warm", rating=5), review("c", "i1", "cold", rating=1)]
    )
    result = prepare(raw, tmp_path / "out", interactions=orders)
    assert pairs(Dataset.open(tmp_path / "out")) == {
        ("a", "i1"): ("warm", 6.0),
        ("a", "i2"): ("", 1.0),
        ("b", "i9"): ("", 1.5),
        ("c", "i1"): ("cold", 1.0),
    }
    assert {name: part["rows_read"] for name, part in result.counts["sources"].items()} == {
        "reviews": 2,
        "interactions": 4,
    }
    assert (result.counts["rows_read"], result.counts["duplicates_dropped"]) == (6, 2)
    assert prepare(raw, tmp_path / "out", interactions=orders).status == "unchanged"
    assert Dataset.open(tmp_path / "out").interactions.weight is not None
    assert active_users(Dataset.open(tmp_path / "out"), 2).interactions.weight.tolist() == [6.0, 1.0]


def test_ids_that_do_not_meet_are_noted(tmp_path: Path, orders: Path, cli: CommandLine) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", [review("a", "0001", "warm")])
    result = prepare(raw, tmp_path / "out", interactions=orders)
    assert result.counts["shared_ids"] == {"user": 1, "item": 0}
    assert any("have no item in common" in note for note in result.notes)


def test_a_rule_on_weights(tmp_path: Path, orders: Path) -> None:
    prepare(None, tmp_path / "out", interactions=orders, positive="weight>=1.5")
    assert Dataset.open(tmp_path / "out").interactions.positive.tolist() == [False, True, True]
    raw = write_lines(tmp_path / "raw.jsonl", [review("a", "i")])
    with pytest.raises(DataError, match="only interactions without text have weights"):
        prepare(raw, tmp_path / "no", positive="weight>1")


def test_interactions_are_train_in_a_split_of_ones_own(tmp_path: Path, orders: Path) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", [review("z", "i1", f="train"), review("z", "i2", f="test")])
    prepare(raw, tmp_path / "out", interactions=orders, split_column="f")
    dataset = Dataset.open(tmp_path / "out")
    of_orders = dataset.interactions.user_idx != dataset.user_ids.index("z")
    assert (dataset.interactions.split[of_orders] == TRAIN).all()


@pytest.mark.parametrize("weight", ["0", "-1", "inf", "many"])
def test_weights_are_above_0(tmp_path: Path, orders: Path, weight: str) -> None:
    orders.write_text(ORDERS + f"b,i3,2020-01-03,{weight}\n")
    with pytest.raises(DataError, match=f"line 6: weight '{weight}' is not a number above 0"):
        prepare(None, tmp_path / "out", interactions=orders)


def test_columns_of_interactions_can_be_named(tmp_path: Path, cli: CommandLine) -> None:
    (tmp_path / "orders.csv").write_text("who,what,n\na,i,3\n")
    named = ("--interaction-columns", "user=who,item=what,weight=n")
    answer = cli(
        "prepare", "--interactions", tmp_path / "orders.csv", "--out", tmp_path / "o", *named, "--json"
    )
    assert json.loads(answer.out)["counts"]["interactions"] == 1
    answer = cli("prepare", "--interactions", tmp_path / "orders.csv", "--out", tmp_path / "no")
    assert "cannot tell the user, item field; found: who, what, n" in answer.err
    assert "--interaction-columns user=FIELD,item=FIELD" in answer.err
    answer = cli("prepare", "--out", tmp_path / "no")
    assert (answer.code, "no reviews are given, nor --interactions" in answer.err) == (2, True)
    raw = write_lines(tmp_path / "raw.jsonl", [review("a", "i")])
    answer = cli("prepare", raw, "--out", tmp_path / "no", *named)
    assert (answer.code, "--interaction-columns: has no effect without --inter" in answer.err) == (2, True)
