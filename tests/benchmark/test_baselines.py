"""Baselines of the scoreboard against references that are written out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmdirect.benchmark.baselines import BASELINES, TrainData
from llmdirect.benchmark.models import FittedModel
from llmdirect.data.dataset import TEST, VALID, Dataset
from llmdirect.evaluation.queries import DAY, Queries, build_queries
from llmdirect.store.store import open_store
from run_helpers import make_dataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def data(dataset: Path) -> TrainData:
    return TrainData(Dataset.open(dataset), open_store(dataset))


@pytest.fixture(scope="module")
def in_time(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    """The same reviews split by leave-last-out."""
    folder = make_dataset(tmp_path_factory.mktemp("time") / "reviews", split="leave-last-out")
    return TrainData(Dataset.open(folder), open_store(folder))


def dense(data: TrainData) -> np.ndarray:
    table = np.zeros((data.num_users, data.num_items))
    table[data.users, data.positives.indices] = 1
    return table


def scores(model: FittedModel, data: TrainData) -> np.ndarray:
    """[U, I] for the train histories of all users."""
    return model.scores(train_queries(data)).astype(float)


def train_queries(data: TrainData) -> Queries:
    """Queries of all users with their train histories."""
    queries = build_queries(data.dataset, TEST)
    assert len(queries) == data.num_users
    return queries


def test_linear_models_match_closed_forms(data: TrainData) -> None:
    rows, likeness = dense(data), data.directions @ data.directions.T
    for power, weight, words in ((0.0, 0.0, 0.0), (0.7, 0.0, 0.0), (0.5, 3.0, 0.0), (0.5, 1.0, 2.0)):
        counts = rows.sum(1).clip(1)
        gram = rows.T @ (counts[:, None] ** -power * rows) + weight * likeness + 5 * np.eye(rows.shape[1])
        gram += words * data.common_words
        inverse = np.linalg.inv(gram)
        table = -inverse / np.diag(inverse)
        np.fill_diagonal(table, 0)
        model = BASELINES["ease"].fit(data, 5.0, power, weight, words)
        np.testing.assert_allclose(scores(model, data), rows @ table, atol=1e-5)


def test_autoencoder_ridge_below_rounding_error(data: TrainData) -> None:
    with pytest.raises(ValueError, match=r"^ridge: 1e-30 is too small"):
        BASELINES["ease"].fit(data, 1e-30)
    with pytest.raises(ValueError, match=r"^ridge: 1e-30 is too small"):
        BASELINES["l3ae"].fit(data, ridge=1e-30, text_ridge=2.0, distil=0.0)
    with pytest.raises(ValueError, match=r"^text_ridge: 1e-30 is too small"):
        BASELINES["l3ae"].fit(data, ridge=3.0, text_ridge=1e-30, distil=20.0)


def test_text_autoencoder_minimises_loss(data: TrainData) -> None:
    rows = dense(data)
    inverse = np.linalg.inv(data.directions @ data.directions.T + 2 * np.eye(rows.shape[1]))
    semantic = -inverse / np.diag(inverse)
    np.fill_diagonal(semantic, 0)

    def loss(table: np.ndarray) -> float:
        parts = ((rows - rows @ table) ** 2).sum(), (table**2).sum(), ((table - semantic) ** 2).sum()
        return float(parts[0] + 3 * parts[1] + 20 * parts[2])

    model = BASELINES["l3ae"].fit(data, ridge=3.0, text_ridge=2.0, distil=20.0)
    table = model.weights.astype(float)
    assert not table.diagonal().any()
    best, rng = loss(table), np.random.default_rng(0)
    for _ in range(20):
        step = rng.standard_normal(table.shape) * 1e-2
        np.fill_diagonal(step, 0)
        assert loss(table + step) > best


def test_slim_minimises_loss(data: TrainData) -> None:
    rows, rng = dense(data), np.random.default_rng(0)
    model = BASELINES["slim"].fit(data, l1=0.5, l2=4.0)
    table = model.weights.astype(float)

    def loss(table: np.ndarray) -> float:
        return float(0.5 * ((rows - rows @ table) ** 2).sum() + 0.5 * table.sum() + 2 * (table**2).sum())

    assert (table >= 0).all()
    assert not table.diagonal().any()
    for _ in range(20):
        step = rng.standard_normal(table.shape) * 1e-3
        moved = np.maximum(table + step, 0)
        np.fill_diagonal(moved, 0)
        assert loss(moved) > loss(table) - 1e-6


def test_neighbourhood_models_match_formulas(data: TrainData) -> None:
    rows = dense(data)
    gram = rows.T @ rows
    lengths = np.sqrt(np.diag(gram))
    table = gram / (np.outer(lengths, lengths) + 7)
    np.fill_diagonal(table, 0)
    model = BASELINES["itemknn"].fit(data, neighbours=10_000, shrink=7.0, user_power=0.0)
    np.testing.assert_allclose(scores(model, data), rows @ table, atol=1e-5)

    common = rows @ rows.T
    lengths = np.sqrt(np.diag(common))
    likeness = common / (np.outer(lengths, lengths) + 7)
    np.fill_diagonal(likeness, 0)
    model = BASELINES["userknn"].fit(data, neighbours=10_000, shrink=7.0, item_power=0.0)
    np.testing.assert_allclose(scores(model, data), likeness @ rows, atol=1e-5)

    to_item = rows / rows.sum(1).clip(1)[:, None]
    to_user = rows / rows.sum(0).clip(1)[None, :]
    walk = (to_user.T @ to_item) / rows.sum(0).clip(1)[None, :] ** 0.4
    np.fill_diagonal(walk, 0)
    model = BASELINES["rp3beta"].fit(data, neighbours=10_000, alpha=1.0, beta=0.4)
    np.testing.assert_allclose(scores(model, data), rows @ walk, atol=1e-5)


def bpr_oracle(data: TrainData, layers: int, factors: int, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """LightGCN with dense matrices and gradients of each pair by hand-written propagation."""
    from llmdirect.training.negatives import sample_negatives

    generator = torch.Generator().manual_seed(data.seed)
    size, positives = data.num_users + data.num_items, dense(data)
    adjacency = np.zeros((size, size))
    adjacency[: data.num_users, data.num_users :] = positives
    adjacency += adjacency.T
    degree = adjacency.sum(1).clip(1)
    graph = torch.tensor(adjacency / np.sqrt(np.outer(degree, degree)))
    operator = sum(torch.linalg.matrix_power(graph, power) for power in range(layers + 1)) / (layers + 1)
    start = torch.randn(size, factors, generator=generator, dtype=torch.float64)
    vectors = (start.float() * 0.1).double().requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=0.02)
    users, items = torch.from_numpy(data.users), torch.tensor(data.positives.indices).long()
    for epoch in range(epochs):
        negatives = sample_negatives(users, data.positives, data.num_items, 1, seed=data.seed, draw=epoch)
        order = torch.randperm(len(users), generator=generator)
        out, loss = operator @ vectors, torch.zeros((), dtype=torch.float64)
        for row in order.tolist():
            nodes = [
                int(users[row]),
                data.num_users + int(items[row]),
                data.num_users + int(negatives[row, 0]),
            ]
            user, good, bad = (out[node] for node in nodes)
            loss = loss + torch.log1p(torch.exp(-(user @ (good - bad)))) / len(users)
            loss = loss + 1e-3 * sum(vectors[node].square().sum() for node in nodes) / len(users)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    out = (operator @ vectors).detach().numpy()
    return out[: data.num_users], out[data.num_users :]


@pytest.mark.parametrize("layers", [0, 2])
def test_graph_models_match_dense_oracle(data: TrainData, layers: int) -> None:
    settings = {"factors": 4, "learning_rate": 0.02, "regularisation": 1e-3, "epochs": 3}
    if layers:
        model = BASELINES["lightgcn"].fit(data, layers=layers, **settings)
    else:
        model = BASELINES["bpr-mf"].fit(data, **settings)
    user, item = bpr_oracle(data, layers, 4, 3)
    np.testing.assert_allclose(scores(model, data), user @ item.T, atol=1e-4)


def test_graph_models_learn_and_are_deterministic(data: TrainData) -> None:
    settings = {"factors": 8, "learning_rate": 0.02, "regularisation": 1e-4}
    positives = dense(data) > 0

    def margin(epochs: int) -> float:
        table = scores(BASELINES["bpr-mf"].fit(data, epochs=epochs, **settings), data)
        return float(table[positives].mean() - table[~positives].mean()) / float(table.std())

    assert margin(60) > margin(0) + 0.3
    once, again = (BASELINES["bpr-mf"].fit(data, epochs=5, **settings) for _ in range(2))
    np.testing.assert_array_equal(scores(once, data), scores(again, data))


def test_graph_models_are_fitted_again_on_validation(in_time: TrainData) -> None:
    """In leave-last-out validation is input of the test: the fit is that of a dataset with it in train."""
    settings = {"factors": 4, "learning_rate": 0.02, "regularisation": 1e-3, "epochs": 3, "layers": 2}
    model = BASELINES["lightgcn"].fit(in_time, **settings)
    queries = build_queries(in_time.dataset, TEST)
    found = model.scores(queries)
    split = in_time.dataset.interactions.split
    whole = TrainData(in_time.dataset.with_split(np.where(split == VALID, 0, split)))
    expected = BASELINES["lightgcn"].fit(whole, **settings)
    np.testing.assert_allclose(found, scores(expected, whole)[queries.users], atol=1e-6)


def test_implicit_least_squares_solve_their_equations(data: TrainData) -> None:
    """Each query's vector minimises the weighted squared error of Hu et al. with the items fixed."""
    model = BASELINES["ials"].fit(data, factors=4, regularisation=0.5, alpha=3.0, iterations=5)
    queries, rows = train_queries(data), dense(data)
    item = model.item.astype(float)
    for user in range(4):
        weights = 1 + (3.0 - 1) * rows[user]  # implicit scales the confidence of a positive to alpha
        left = item.T @ (weights[:, None] * item) + 0.5 * np.eye(4)
        expected = np.linalg.solve(left, item.T @ (weights * rows[user]))
        np.testing.assert_allclose(model.query(queries)[user], expected, rtol=2e-2, atol=2e-3)


def test_validation_is_input_of_every_row(in_time: TrainData) -> None:
    """Of a user whose validation item changes, the scores change in every row that reads histories."""
    queries = build_queries(in_time.dataset, TEST)
    last = queries.indptr[1:] - 1
    items = queries.items.copy()
    items[last[0]] = (items[last[0]] + 1) % queries.num_items
    changed = replace(queries, items=items, events=None)
    settings = {
        "itemknn": (20, 1.0, 0.0),
        "userknn": (20, 1.0, 0.0),
        "rp3beta": (20, 1.0, 0.4),
        "slim": (0.1, 1.0),
        "ease": (5.0,),
        "ials": (4, 0.5, 3.0, 5),
        "transition": (3, 1.0, 1.0, 1.0, 0.5),
        "temporal-ease": (5.0, 0.5, 1.0, 2.0),
        "embedding-knn": (0.1,),
        "tfidf-knn": (0.1, 1, True),
        "l3ae": (3.0, 2.0, 20.0),
    }
    for name, values in settings.items():
        model = BASELINES[name].fit(in_time, *values)
        one, two = (model.scores(replace(part, events=None)) for part in (queries, changed))
        assert np.abs(one[0] - two[0]).max() > 1e-6, name
        np.testing.assert_allclose(one[1:], two[1:], atol=1e-5, err_msg=name)


def test_transitions_match_loops(in_time: TrainData) -> None:
    rows = in_time.dataset.interactions
    for reach, gap_half_life in ((1, 1.0), (3, 2.0)):
        table = np.zeros((in_time.num_items, in_time.num_items))
        for user in range(in_time.num_users):
            own = rows.item_idx[(rows.user_idx == user) & (rows.split == 0)].tolist()
            for after, item in enumerate(own):
                for gap in range(1, min(reach, after) + 1):
                    table[own[after - gap], item] += 0.5 ** ((gap - 1) / gap_half_life)
        expected = table / np.sqrt(table.sum(1) + 2)[:, None] / (table.sum(0) + 2)[None, :] ** 0.3
        model = BASELINES["transition"].fit(in_time, reach, gap_half_life, 1.5, 2.0, 0.3)
        np.testing.assert_allclose(model.weights.toarray(), expected, atol=1e-6)
        queries = build_queries(in_time.dataset, TEST)
        own = queries.items[: queries.indptr[1]].tolist()
        score = sum(0.5 ** (age / 1.5) * expected[item] for age, item in enumerate(reversed(own)))
        np.testing.assert_allclose(model.scores(queries)[0], score, atol=1e-5)


def test_temporal_linear_model_minimises_its_loss(in_time: TrainData) -> None:
    rows, whole = in_time.dataset.interactions, dense(in_time)
    before, after = [], []
    for user in range(in_time.num_users):
        own = rows.item_idx[(rows.user_idx == user) & (rows.split == 0)].tolist()
        for place, item in enumerate(own):
            row, target = np.zeros(in_time.num_items), np.zeros(in_time.num_items)
            for gap in range(1, place + 1):
                row[own[place - gap]] += 0.5 ** ((gap - 1) / 2)
            target[item] = 1
            before.append(row)
            after.append(target)
    model = BASELINES["temporal-ease"].fit(in_time, 3.0, 0.6, 2.0, 2.0)

    def loss(table: np.ndarray) -> float:
        whole_part = ((whole - whole @ table) ** 2).sum()
        next_part = ((np.array(after) - np.array(before) @ table) ** 2).sum()
        return float(0.4 * whole_part + 0.6 * next_part + 3 * (table**2).sum())

    table, rng = model.weights.astype(float), np.random.default_rng(0)
    assert not table.diagonal().any()
    best = loss(table)
    for _ in range(20):
        step = rng.standard_normal(table.shape) * 1e-2
        np.fill_diagonal(step, 0)
        assert loss(table + step) > best
    undirected = BASELINES["temporal-ease"].fit(in_time, 3.0, 0.0, 2.0, 2.0)
    np.testing.assert_allclose(undirected.weights, BASELINES["ease"].fit(in_time, 3.0).weights, atol=1e-6)


def test_recent_popularity_counts_the_window_before_the_query(in_time: TrainData) -> None:
    queries = build_queries(in_time.dataset, TEST)
    model = BASELINES["recent-popularity"].fit(in_time, 3.0, 0.5)
    found = model.scores(queries)
    rows = in_time.dataset.interactions
    assert queries.now is not None
    for row, (user, now) in enumerate(zip(queries.users, queries.now, strict=True)):
        inputs = rows.split < TEST
        window = inputs & (rows.timestamp <= now) & (rows.timestamp > now - 3 * DAY)
        recent = np.bincount(rows.item_idx[window], minlength=in_time.num_items)
        expected = np.log1p(recent) + 0.5 * np.log1p(in_time.popularity)
        np.testing.assert_allclose(found[row], expected, atol=1e-5, err_msg=str(user))


def test_text_neighbours_match_formulas(data: TrainData) -> None:
    rows, item = dense(data), data.directions
    query = rows @ item
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    expected = query @ item.T + 0.2 * np.log1p(data.popularity)
    model = BASELINES["embedding-knn"].fit(data, 0.2)
    np.testing.assert_allclose(scores(model, data), expected, atol=1e-5)
