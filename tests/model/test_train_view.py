"""Training view of dataset and store: tokens, order of histories, documents, splits."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from llmdirect.common.errors import DataError
from llmdirect.config import HISTORY
from llmdirect.data.dataset import Dataset
from llmdirect.model.train_view import TrainView
from model_helpers import (
    DIM,
    ITEMS,
    USERS,
    Row,
    all_pairs,
    config,
    dataset_of,
    normal,
    random_model,
    scores_of,
    view_of,
    write_embeddings,
)


def test_passages_are_not_truncated_and_histories_are_newest(tmp_path: Path) -> None:
    """All 700 words of a passage are used; histories keep the newest entries."""
    rows = [Row(0, item, f"text {item}", time=item) for item in range(HISTORY + 5)]
    rows.append(Row(1, 0, " ".join(f"w{number}" for number in range(700)), time=1))
    dataset = dataset_of(rows, 2, HISTORY + 5)
    view = view_of(dataset, tmp_path)
    tokens, mask = view.tokens(torch.tensor([0, 1]))
    assert tokens.shape == (2, 2, DIM)
    assert mask.all()
    long = int(view.lengths.argmax())
    tokens, mask = view.tokens(torch.tensor([long]))
    assert tokens.shape == (1, 700, DIM)
    model = random_model(config(), view)
    moved = tokens.clone()
    moved[0, -1] += 1
    assert not torch.equal(model.passages(moved, mask)[0], model.passages(tokens, mask)[0])
    entries, _, history_mask = view.history.gather(torch.tensor([0]))
    assert entries[0, :HISTORY].tolist() == list(range(HISTORY + 4, 4, -1))
    assert history_mask.all()


def test_special_tokens_and_empty_passages_are_excluded(view: TrainView) -> None:
    store = view.store
    tokens, mask = view.tokens(torch.arange(len(view.lengths)))
    for passage, number in enumerate(view.stored.tolist()):
        rows = range(int(store.offsets[number]), int(store.offsets[number + 1]))
        real = [row for row in rows if store.spans[row, 1] > store.spans[row, 0]]
        assert mask[passage].sum() == len(real)
        np.testing.assert_array_equal(tokens[passage][mask[passage]], store.tokens_numpy[real])
    assert not tokens[~mask].any()
    empty = (view.lengths == 0).nonzero()[:, 0]
    assert len(empty) == 1
    assert empty not in view.texts.entries
    assert not view.pooled[empty].any()


def test_passage_missing_in_store(dataset: Dataset, tmp_path: Path) -> None:
    """Missing passages are never replaced by zeros."""
    store = write_embeddings(tmp_path / "store", dataset.passages.text.to_list()[:-1])
    with pytest.raises(
        DataError, match=r"1 of 14 passages are not in the store.*precompute.*which add what is new"
    ):
        TrainView.from_dataset(dataset, store)


def test_row_order_breaks_missing_times(tmp_path: Path) -> None:
    dataset = dataset_of([Row(0, item, f"t{item}", time=None) for item in (2, 0, 1)], 1, 3)
    view = view_of(dataset, tmp_path)
    assert view.history.entries.tolist() == [1, 0, 2]
    assert view.texts.entries.tolist() == [2, 1, 0]


def test_hide_positives(view: TrainView) -> None:
    users = torch.tensor([2, 4, 0, 2])
    table = normal(4, ITEMS)
    hidden = view.hide_positives(table, users)
    for row, user in enumerate(users.tolist()):
        for item in range(ITEMS):
            positive = item in view.positives.row(user)
            assert hidden[row, item] == (-torch.inf if positive else table[row, item])


def test_document_units(dataset: Dataset, tmp_path: Path) -> None:
    """Pairs of document units have no passage, so that only counts and histories exclude the pair."""
    rows = dataset.interactions
    texts = [f"user {user}" for user in range(USERS)] + [f"item {item}" for item in range(ITEMS)]
    passages = replace(
        dataset.passages,
        text=pl.Series(texts),
        kind=np.full(len(texts), 2, np.uint8),
        user_idx=np.array([*range(USERS), *[-1] * ITEMS], np.int32),
        item_idx=np.array([*[-1] * USERS, *range(ITEMS)], np.int32),
        split=np.zeros(len(texts), np.uint8),
    )
    documents = replace(
        dataset, interactions=replace(rows, passage_idx=np.full(len(rows), -1)), passages=passages
    )
    view = TrainView.from_dataset(documents, write_embeddings(tmp_path / "store", texts))
    assert (view.pair_passage == -1).all()
    pairs = all_pairs(view)
    with torch.no_grad():
        for form, user in product(("cosine", "ratio"), ("text", "both")):
            model = random_model(config(score_form=form, user=user), view)
            scores = scores_of(model, view, tokens=True)
            left_out, query = scores.left_out(pairs)
            expected = scores.catalogue(query)
            own = torch.arange(ITEMS) == pairs.item[:, None]
            torch.testing.assert_close(left_out[~own], expected[~own])
            count = view.popularity[pairs.item]
            difference = model.prior * (torch.log1p(count) - torch.log1p(count - 1))
            torch.testing.assert_close(expected[own] - left_out[own], difference, rtol=1e-4, atol=1e-5)


def test_unique_text_pairs_exclude_copies(tmp_path: Path) -> None:
    """Only copies by the same user count."""
    rows = [Row(0, 0, "same"), Row(0, 1, "same"), Row(0, 2, "own"), Row(1, 0, "same"), Row(1, 2, "")]
    view = view_of(dataset_of(rows, 2, 3), tmp_path / "some")
    pairs = {(int(view.pair_user[row]), int(view.pair_item[row])) for row in view.unique_text_pairs}
    assert pairs == {(0, 2), (1, 0), (1, 2)}
    alike = view_of(dataset_of([replace(row, text="same") for row in rows], 2, 3), tmp_path / "all")
    assert alike.unique_text_pairs.tolist() == list(range(5))
