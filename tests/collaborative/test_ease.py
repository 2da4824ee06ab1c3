"""EASE against its closed form, refitted from scratch."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import llmdirect.collaborative.gram
from llmdirect.collaborative.ease import USER_POWER, EaseInputs
from llmdirect.collaborative.gram import cooccurrences
from llmdirect.common.csr import Csr

USERS, ITEMS, RIDGE = 25, 11, 2.5
ALL = torch.arange(ITEMS)


def random_positives(seed: int = 0) -> Csr:
    """Users with no, all and a single item, and an item without users."""
    rng = np.random.default_rng(seed)
    dense = rng.random((USERS, ITEMS)) < 0.3
    dense[0], dense[1], dense[2] = False, True, False
    dense[2, 4] = True
    dense[:, ITEMS - 1] = False
    return Csr.from_pairs(*np.nonzero(dense), USERS)


def dense_of(positives: Csr) -> np.ndarray:
    dense = np.zeros((positives.num_rows, ITEMS))
    for user in range(positives.num_rows):
        dense[user, positives.row(user)] = 1
    return dense


TEXT_WEIGHT = 1.7


@dataclass
class Texts:
    """Text directions of items, with and without a passage; one passage per pair."""

    directions: torch.Tensor
    without: torch.Tensor

    def gram(self, items: torch.Tensor) -> torch.Tensor:
        return self.directions[items] @ self.directions[items].T

    def text_change(self, items: torch.Tensor, passages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        change = self.directions[items] - self.without[passages]
        return change @ self.directions.T, change.square().sum(1)


def random_texts(pairs: int) -> Texts:
    """Texts with an item without text, and an item with a single passage."""
    rng = np.random.default_rng(5)
    directions, without = rng.standard_normal((ITEMS, 4)), rng.standard_normal((pairs, 4))
    directions[3], without[2] = 0, 0
    return Texts(torch.from_numpy(directions), torch.from_numpy(without))


def gram_of(dense: np.ndarray, directions: np.ndarray | None = None) -> np.ndarray:
    """Xᵀ W X, and the similarity of texts."""
    weights = dense.sum(1).clip(1) ** -USER_POWER
    gram = dense.T @ (weights[:, None] * dense)
    return gram if directions is None else gram + TEXT_WEIGHT * directions @ directions.T


def ease(dense: np.ndarray, ridge: float, directions: np.ndarray | None = None) -> np.ndarray:
    """B of Steck (2019): -P_jc / P_cc, zero diagonal."""
    inverse = np.linalg.inv(gram_of(dense, directions) + ridge * np.eye(dense.shape[1]))
    table = -inverse / np.diag(inverse)
    np.fill_diagonal(table, 0)
    return table


@pytest.mark.parametrize("ridge", [0.01, RIDGE, 400.0])
def test_table_and_term_match_closed_form(ridge: float) -> None:
    positives = random_positives()
    dense = dense_of(positives)
    model = EaseInputs(positives, ALL).ease(ridge)
    expected, table = ease(dense, ridge), model.table()
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-7)
    assert table.dtype == torch.float32
    np.testing.assert_allclose(model.score_users(torch.arange(USERS)), dense @ expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("read", [False, True], ids=["interactions", "texts"])
@pytest.mark.parametrize("ridge", [0.01, RIDGE, 400.0])
def test_left_out_matches_refit(ridge: float, read: bool) -> None:
    positives = random_positives()
    dense = dense_of(positives)
    users, items = np.nonzero(dense)
    texts = random_texts(len(users)) if read else None
    model = (
        EaseInputs(positives, ALL, texts).ease(ridge, TEXT_WEIGHT)
        if texts
        else EaseInputs(positives, ALL).ease(ridge)
    )
    passages = torch.arange(len(users))
    term = model.left_out(torch.from_numpy(users), torch.from_numpy(items), passages).numpy()
    for row, (user, item) in enumerate(zip(users, items, strict=True)):
        without = dense.copy()
        without[user, item] = 0
        directions = None
        if texts is not None:
            directions = texts.directions.numpy().copy()
            directions[item] = texts.without[row]
        unseen = without[user] == 0
        expected = without[user] @ ease(without, ridge, directions)
        np.testing.assert_allclose(term[row, unseen], expected[unseen], rtol=0, atol=1e-9)


def test_in_sample_scores_are_optimistic() -> None:
    """In-sample scores are biased, so that training needs leave-one-out values."""
    positives = random_positives()
    users, items = (torch.from_numpy(part) for part in np.nonzero(dense_of(positives)))
    model = EaseInputs(positives, ALL).ease(RIDGE)
    in_sample = (torch.from_numpy(dense_of(positives)) @ model.table().double())[users, items]
    left_out = model.left_out(users, items, torch.full_like(users, -1)).gather(1, items[:, None])[:, 0]
    assert in_sample.mean() > 1.5 * left_out.mean()


@pytest.mark.parametrize("pairs_at_a_time", [1, 7, 1 << 20])
def test_co_occurrences_in_chunks(monkeypatch: pytest.MonkeyPatch, pairs_at_a_time: int) -> None:
    monkeypatch.setattr(llmdirect.collaborative.gram, "_PAIRS", pairs_at_a_time)
    positives = random_positives(1)
    dense = dense_of(positives)
    inverse = EaseInputs(positives, ALL).ease(RIDGE).inverse
    expected = np.linalg.inv(gram_of(dense) + RIDGE * np.eye(ITEMS))
    np.testing.assert_allclose(inverse, expected, atol=1e-12)


def test_table_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EaseInputs(random_positives(), ALL).ease(RIDGE)
    whole = model.table()
    monkeypatch.setattr(llmdirect.collaborative.gram, "_PART", 3)
    assert torch.equal(model.table(), whole)


def test_memory_independent_of_num_users() -> None:
    """Users times items in float64 would be 16 GB here."""
    users = np.arange(0, 1_000_000, 1000)
    positives = Csr.from_pairs(np.repeat(users, 2), np.tile([3, 1_999], len(users)), 1_000_000)
    gram = cooccurrences(positives, 2_000, USER_POWER)
    expected = pytest.approx(1000 * 2**-USER_POWER)
    assert gram[3, 1_999] == gram[1_999, 3] == gram[3, 3] == expected
    assert gram.count_nonzero() == 4


def test_spread_excludes_seen_items() -> None:
    nobody = Csr.from_pairs(np.empty(0, np.int32), np.empty(0, np.int32), 3)
    assert EaseInputs(nobody, torch.arange(4)).ease(RIDGE).spread() > 0
    positives = random_positives()
    dense = dense_of(positives)
    expected = (dense @ ease(dense, RIDGE))[dense == 0].std(ddof=1)
    assert EaseInputs(positives, ALL).ease(RIDGE).spread() == pytest.approx(expected)


def test_item_subset() -> None:
    """Equals EASE of a catalogue of these items only."""
    positives, items = random_positives(), torch.tensor([0, 2, 3, 7, 10])
    dense = dense_of(positives)[:, items]
    users, places = np.nonzero(dense)
    texts = random_texts(len(users))
    model = EaseInputs(positives, items, texts).ease(RIDGE, TEXT_WEIGHT)
    expected = ease(dense, RIDGE, texts.directions[items].numpy())
    np.testing.assert_allclose(model.table(), expected, rtol=0, atol=1e-7)
    assert model.items.tolist() == items.tolist()
    term = model.left_out(torch.from_numpy(users), torch.from_numpy(places), torch.arange(len(users)))
    for row, (user, position) in enumerate(zip(users, places, strict=True)):
        without, directions = dense.copy(), texts.directions[items].numpy().copy()
        without[user, position], directions[position] = 0, texts.without[row]
        unseen = without[user] == 0
        refitted = without[user] @ ease(without, RIDGE, directions)
        np.testing.assert_allclose(term[row, unseen], refitted[unseen], rtol=0, atol=1e-9)


def test_ridge_below_rounding_error() -> None:
    """Checked before factorisation, whose failure depends on the processor."""
    same = EaseInputs(Csr.from_pairs([0, 0], [0, 1], 1), torch.arange(2))
    swallowed = np.finfo(float).eps * 2**0.5  # the trace: two entries of 2^-1/2
    for ridge in (1e-30, 0.99 * swallowed):
        with pytest.raises(ValueError, match=f"ridge: {ridge} is too small"):
            same.ease(ridge)
    same.ease(1e4 * swallowed)
    # Invalid by its size alone: this matrix is invertible without ridge.
    apart = EaseInputs(Csr.from_pairs([0, 1], [0, 1], 2), torch.arange(2))
    with pytest.raises(ValueError, match="ridge: 1e-30 is too small"):
        apart.ease(1e-30)


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan")])
def test_ridge_must_be_positive(ridge: float) -> None:
    with pytest.raises(ValueError, match=f"ridge: {ridge}, expected above 0"):
        EaseInputs(random_positives(), ALL).ease(ridge)
