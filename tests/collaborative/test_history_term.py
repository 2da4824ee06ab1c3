"""Random walks and neighbours against their definitions; `test_left_out` covers leave-one-out."""

from pathlib import Path

import numpy as np
import pytest
import torch

from llmdirect.collaborative.combine import WeightedSum
from llmdirect.collaborative.random_walk import STEPS, RandomWalkTerm
from llmdirect.collaborative.text_neighbours import TextNeighbourTerm
from llmdirect.common.csr import Csr
from llmdirect.config import ModelConfig
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.train_view import TrainView
from model_helpers import Row, dataset_of, random_model, scores_of, view_of, write_embeddings

USERS, ITEMS = 9, 7
ALL = torch.arange(ITEMS)
HISTORIES = [[0, 1], [1, 2], [2, 3], [0, 1, 2, 3], [4], [4, 5], [], [1, 5], [3]]
"""Item 6 is nobody's; nobody has both 0 and 5."""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> CatalogueScores:
    """Scores with one user's text copied to two items; item 5 has no text of its own."""
    rows = [
        Row(user, item, "the same" if user == 3 and item < 2 else "" if item == 5 else f"u{user} i{item}")
        for user, history in enumerate(HISTORIES)
        for item in history
    ]
    dataset = dataset_of(rows, USERS, ITEMS)
    store = write_embeddings(tmp_path_factory.mktemp("terms") / "store", dataset.passages.text.to_list())
    view = TrainView.from_dataset(dataset, store)
    model = random_model(ModelConfig(aspects=2, channels=2), view)
    with torch.no_grad():
        return scores_of(model, view, False)


def dense_of(positives: Csr) -> np.ndarray:
    dense = np.zeros((USERS, ITEMS))
    for user in range(USERS):
        dense[user, positives.row(user)] = 1
    return dense


def terms_of(scores: CatalogueScores) -> list[HistoryTerm]:
    return [RandomWalkTerm(scores.view.positives, ITEMS), TextNeighbourTerm(scores, ALL)]


def test_walk_reaches_items_without_common_users(scores: CatalogueScores) -> None:
    dense = dense_of(scores.view.positives)
    votes = 1 / dense.sum(1).clip(1)
    gram = dense.T @ (votes[:, None] * dense)
    lengths = np.sqrt(np.diag(gram))
    with np.errstate(invalid="ignore"):
        cosines = np.nan_to_num(gram / np.outer(lengths, lengths))
    expected = np.linalg.matrix_power(cosines, STEPS)
    np.fill_diagonal(expected, 0.0)
    walk = RandomWalkTerm(scores.view.positives, ITEMS)
    np.testing.assert_allclose(walk.table(), expected, rtol=1e-6, atol=1e-7)
    assert gram[0, 5] == 0 < walk.table()[0, 5]
    assert not walk.table()[6].any()
    walk.table().zero_()
    assert walk.table().any(), "what is given away is a copy"


def test_neighbour_weights_sum_to_one(scores: CatalogueScores) -> None:
    view = scores.view
    directions = torch.zeros(ITEMS, scores.preference.shape[1])
    for passage in range(len(view.lengths)):
        if view.passage_item[passage] >= 0 and not view.copied[passage]:
            directions[view.passage_item[passage]] += scores.table.rows(torch.tensor([passage]))[0][0]
    unit = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    logits = scores.model.temperature() * unit @ unit.T
    expected = torch.softmax(logits.fill_diagonal_(-torch.inf), 1)
    table = TextNeighbourTerm(scores, ALL).table()
    torch.testing.assert_close(table, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(table.sum(1), torch.ones(ITEMS))
    assert view.copied.any()
    assert (directions == 0).all(1).any(), "an item without text stays"


def test_small_temperature_is_finite(scores: CatalogueScores) -> None:
    """exp(1 / tau) exceeds float32, and other items are negligible compared with the nearest one."""
    model = scores.model
    kept = model.log_temperature.detach().clone()
    with torch.no_grad():
        model.log_temperature.fill_(float(np.log(400.0)))
        term = TextNeighbourTerm(scores, ALL)
        left_out = term.left_out(scores.view.pair_user, scores.view.pair_item, scores.view.pair_passage)
        model.log_temperature.copy_(kept)
    for values in (term.table(), left_out):
        assert torch.isfinite(values).all()
        assert values.min() >= 0
    assert term.table().sum(1).max() <= 1 + 1e-6


def test_single_item_has_no_neighbours(tmp_path: Path) -> None:
    dataset = dataset_of([Row(0, 0, "one"), Row(1, 0, "two")], 2, 1)
    view = view_of(dataset, tmp_path)
    with torch.no_grad():
        scores = scores_of(random_model(ModelConfig(aspects=2, channels=2), view), view, False)
        term = TextNeighbourTerm(scores, torch.arange(1))
    assert term.table().tolist() == [[0.0]]
    assert term.left_out(view.pair_user, view.pair_item, view.pair_passage).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("which", [0, 1])
def test_user_term_sums_over_history(scores: CatalogueScores, which: int) -> None:
    term = terms_of(scores)[which]
    result = term.score_users(torch.tensor([3, 6, 0]))
    expected = dense_of(term.positives)[[3, 6, 0]] @ term.table().numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)
    indptr, indices, values = term.item_item()
    assert np.array_equal(values.reshape(ITEMS, ITEMS), term.table())
    assert np.array_equal(indptr, np.arange(ITEMS + 1) * ITEMS)
    assert np.array_equal(indices.reshape(ITEMS, ITEMS), np.tile(np.arange(ITEMS), (ITEMS, 1)))


def test_sum_of_terms_is_weighted(scores: CatalogueScores) -> None:
    walk, neighbours = terms_of(scores)
    both = WeightedSum([walk, neighbours], [2.0, 0.5])
    torch.testing.assert_close(both.table(), 2.0 * walk.table() + 0.5 * neighbours.table())
    pair = torch.tensor([3]), torch.tensor([2]), scores.view.pair_passage[scores.view.pair_item == 2][-1:]
    expected = 2.0 * walk.left_out(*pair) + 0.5 * neighbours.left_out(*pair)
    torch.testing.assert_close(both.left_out(*pair), expected)


def test_spread_excludes_seen_items(scores: CatalogueScores) -> None:
    term = RandomWalkTerm(scores.view.positives, ITEMS)
    values = (dense_of(term.positives) @ term.table().numpy())[dense_of(term.positives) == 0]
    assert term.spread() == pytest.approx(values.std(ddof=1), rel=1e-6)
    nobody = RandomWalkTerm(Csr.from_pairs(np.empty(0, np.int32), np.empty(0, np.int32), 3), 4)
    assert nobody.spread() == 1e-12, "to divide by"
