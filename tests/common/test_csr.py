"""CSR tables of sorted unique indices against Python sets."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmdirect.common.csr import Csr

sets = st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=6)


def table(rows: list[set[int]]) -> Csr:
    pairs = [(row, col) for row, cols in enumerate(rows) for col in cols]
    return Csr.from_pairs([row for row, _ in pairs], [col for _, col in pairs], len(rows))


@given(sets, st.data())
def test_rows_difference_and_union_match_sets(rows: list[set[int]], data: st.DataObject) -> None:
    csr = table(rows)
    assert [csr.row(n).tolist() for n in range(csr.num_rows)] == [sorted(row) for row in rows]
    subset = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    part = csr.rows(subset)
    assert [part.row(n).tolist() for n in range(part.num_rows)] == [sorted(rows[n]) for n in subset]
    others = data.draw(st.lists(st.sets(st.integers(0, 12)), min_size=len(rows), max_size=len(rows)))
    columns = sorted(data.draw(st.sets(st.integers(0, 14), min_size=1)))
    kept = csr.columns(columns)
    for n, row in enumerate(rows):
        assert kept.row(n).tolist() == [position for position, col in enumerate(columns) if col in row]
    rest = csr.without(table(others))
    expected = [sorted(a - b) for a, b in zip(rows, others, strict=True)]
    assert [rest.row(n).tolist() for n in range(rest.num_rows)] == expected
    both = csr.union(table(others))
    expected = [sorted(a | b) for a, b in zip(rows, others, strict=True)]
    assert [both.row(n).tolist() for n in range(both.num_rows)] == expected


def test_invalid_arrays() -> None:
    with pytest.raises(ValueError, match="row 1 holds index 2 twice"):
        Csr(np.array([0, 1, 3]), np.array([2, 2, 2]))
    with pytest.raises(ValueError, match=r"cols\[1\] is -1, below 0"):
        Csr.from_pairs([0, 1], [0, -1], 2)
    with pytest.raises(ValueError, match="row 0 holds index 1 out of order"):
        Csr(np.array([0, 2]), np.array([3, 1]))
    with pytest.raises(ValueError, match=r"rows\[1\] is 2, outside 0 to 1"):
        Csr.from_pairs([0, 2], [0, 0], 2)
    with pytest.raises(ValueError, match="differ in length: 1 and 2"):
        Csr.from_pairs([0], [0, 1], 2)
    with pytest.raises(ValueError, match="indptr runs from 0 to 3"):
        Csr(np.array([0, 3]), np.array([1, 2]))
    with pytest.raises(ValueError, match="must hold integers, not float64"):
        Csr(np.array([0, 1]), np.array([1.0]))
    with pytest.raises(ValueError, match="does not fit into int32"):
        Csr(np.array([0, 1]), np.array([1 << 31]))
    with pytest.raises(ValueError, match="tables of 1 and 2 rows"):
        table([{1}]).without(table([{1}, {2}]))
    with pytest.raises(ValueError, match="tables of 2 and 1 rows"):
        table([{1}, {2}]).union(table([{1}]))
    for row in (-1, 1):
        with pytest.raises(IndexError):
            table([{1}]).row(row)
        with pytest.raises(IndexError):
            table([{1}]).rows([row])


@pytest.mark.parametrize("columns", [[], [1, 1], [2, 0]])
def test_columns_are_ascending(columns: list[int]) -> None:
    with pytest.raises(ValueError, match="subset: expected ascending columns"):
        table([{0, 1}]).columns(columns)


def test_arrays_are_read_only_and_outlive_table() -> None:
    source = np.array([4, 9], dtype=np.int32)
    csr = Csr(np.array([0, 2]), source)
    source[0] = 10
    indices = csr.indices
    with pytest.raises(ValueError, match="read-only"):
        indices[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        indices.flags.writeable = True
    del csr
    assert indices.tolist() == [4, 9]


def test_from_pairs_removes_duplicates() -> None:
    csr = Csr.from_pairs([1, 0, 1, 1], [2, 0, 2, 1], 2)
    assert csr.indptr.tolist() == [0, 1, 3]
    assert csr.indices.tolist() == [0, 1, 2]
    nothing = Csr.from_pairs([], [], 0)
    assert nothing.num_rows == 0
    assert nothing.rows([]).num_rows == 0


def test_tensor_input_and_pickling() -> None:
    csr = Csr.from_pairs(torch.tensor([1, 0]), torch.tensor([5, 6]), 3)
    again = pickle.loads(pickle.dumps(csr))
    assert again.indptr.tolist() == [0, 1, 2, 2]
    assert again.indices.tolist() == [6, 5]
