"""SASRec: what a state may depend on, its loss against plain loops, and what it learns."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmdirect.benchmark.baselines import BASELINES, TrainData
from llmdirect.benchmark.baselines import sasrec as module
from llmdirect.benchmark.baselines.sasrec import (
    SequenceModel,
    Sequences,
    _Network,
    batch_loss,
    principal_components,
    sampled_softmax,
    sasrec,
    sasrec_text,
)
from llmdirect.benchmark.rows import ROWS
from llmdirect.data.dataset import TEST, VALID, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.evaluation.queries import build_queries, new_user_queries
from llmdirect.ranking.metrics import metrics
from llmdirect.store.store import open_store
from run_helpers import make_dataset

NUM_ITEMS = 23
SETTINGS = {
    "dim": 16,
    "blocks": 1,
    "dropout": 0.1,
    "learning_rate": 5e-3,
    "negatives": 32,
    "weight_decay": 1e-3,
    "max_length": 6,
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users who walk through the items in a circle."""
    folder, rng = tmp_path_factory.mktemp("cycle"), np.random.default_rng(0)
    lines = ["user,item,time"]
    for user in range(150):
        start, length = rng.integers(NUM_ITEMS), rng.integers(4, 12)
        items = [(start + step) % NUM_ITEMS for step in range(length)]
        lines += [f"u{user},{item},{1_300_000_000 + step}" for step, item in enumerate(items)]
    (folder / "walks.csv").write_text("\n".join(lines) + "\n")
    prepare(None, folder / "dataset", interactions=folder / "walks.csv", split="leave-last-out")
    return Dataset.open(folder / "dataset")


def network(blocks: int = 2, max_length: int = 40) -> _Network:
    """Network with large random parameters, so that everything has an effect."""
    torch.manual_seed(1)
    result = _Network(NUM_ITEMS, 8, blocks, 0.3, max_length)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return result.eval()


def sequences(*items: list[int], length: int = 40) -> Sequences:
    indptr = np.cumsum([0, *map(len, items)])
    return Sequences.newest(np.concatenate(items).astype(np.int32), indptr, length)


def test_later_item_changes_no_earlier_state() -> None:
    one, other = sequences([3, 1, 4, 1, 5]), sequences([3, 1, 4, 9, 5])
    states, changed = network()(one), network()(other)
    torch.testing.assert_close(states[:3], changed[:3], rtol=0, atol=0)
    assert (states[3:] - changed[3:]).abs().amax(1).min() > 1e-3  # the last one attends to it


def test_padding_changes_no_state() -> None:
    """Alone, among longer ones of the same group, and among groups of other lengths."""
    rng = np.random.default_rng(0)
    walks = [rng.integers(NUM_ITEMS, size=size).tolist() for size in (3, 8, 1, 30, 5, 17, 8, 2)]
    together = sequences(*walks)
    states = network()(together).split(together.lengths.tolist())
    for walk, batched in zip(walks, states, strict=True):
        torch.testing.assert_close(network()(sequences(walk)), batched, rtol=1e-4, atol=1e-5)


def test_newest_items_are_read() -> None:
    long, short = sequences([9, 9, 3, 1, 4], [2], length=3), sequences([3, 1, 4], [2])
    assert long.items.tolist() == [3, 1, 4, 2]
    assert long.ages.tolist() == [2, 1, 0, 0]
    assert long.last.tolist() == [2, 3]
    assert long.select(torch.tensor([1, 0])).items.tolist() == [2, 3, 1, 4]
    torch.testing.assert_close(network()(long), network()(short))


def test_states_match_plain_loops() -> None:
    """One block, one sequence, number by number."""
    model, items = network(blocks=1), [3, 1, 4, 2]
    block, size = model.blocks[0], len(items)
    weights = {name: value.detach().double().numpy() for name, value in model.named_parameters()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        scaled = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
        return weights[f"{name}.weight"] * scaled + weights[f"{name}.bias"]

    inputs = [
        weights["item"][item] * math.sqrt(8) + weights["position"][size - 1 - place]
        for place, item in enumerate(items)
    ]
    states = []
    for place in range(size):
        query = norm("blocks.0.attention_norm", inputs[place])
        asked = linear("blocks.0.query", query)
        keys, values = zip(*(np.split(linear("blocks.0.key_value", x), 2) for x in inputs), strict=True)
        weight = [math.exp(asked @ keys[earlier] / math.sqrt(8)) for earlier in range(place + 1)]
        mixed = sum(weight[earlier] * values[earlier] for earlier in range(place + 1)) / sum(weight)
        x = norm("blocks.0.layer_norm", query + linear("blocks.0.out", mixed))
        x = x + linear("blocks.0.layer.3", np.maximum(linear("blocks.0.layer.0", x), 0))
        states.append(norm("norm", x))
    assert not block.training
    np.testing.assert_allclose(model(sequences(items)).detach(), states, rtol=1e-3, atol=1e-4)


def cross_entropy(state: torch.Tensor, table: torch.Tensor, target: int, drawn: list[int]) -> float:
    others = [math.exp(float(state @ table[item])) for item in drawn if item != target]
    own = math.exp(float(state @ table[target]))
    return -math.log(own / (own + sum(others)))


def test_loss_matches_plain_loops() -> None:
    """Two slices, of three and of two positions; all drawn for the second are hits of the last position."""
    torch.manual_seed(0)
    states, table = torch.randn(5, 4), torch.randn(7, 4)
    targets, drawn = [2, 0, 6, 3, 1], [[2, 2, 5, 0], [1, 1, 1, 1]]
    expected = [cross_entropy(states[i], table, targets[i], drawn[i // 3]) for i in range(5)]
    loss = sampled_softmax(
        states, torch.tensor(targets), torch.tensor(drawn), table[targets], table[torch.tensor(drawn)]
    )
    assert expected[4] == 0
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_loss_of_batch_is_that_of_its_sequences() -> None:
    """The mean over all positions; each state is told from the item after it."""
    model, walks = network().requires_grad_(False), [[3, 1, 4], [2, 7], [5, 6, 8, 9, 1, 0, 2, 4, 11, 12] * 3]
    after = [[*walk[1:], 17] for walk in walks]
    targets = [item for walk in after for item in walk]
    torch.manual_seed(5)
    loss = batch_loss(model, sequences(*walks), torch.tensor(targets), 6)
    torch.manual_seed(5)
    drawn = torch.randint(NUM_ITEMS, (16, 6)).tolist()
    states = torch.cat([model(sequences(walk)) for walk in walks])
    size = math.ceil(len(states) / 16)
    expected = [
        cross_entropy(state, model.item, target, drawn[place // size])
        for place, (state, target) in enumerate(zip(states, targets, strict=True))
    ]
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-4)


def test_loss_has_a_gradient_where_all_drawn_items_are_hits() -> None:
    states = torch.zeros(2, 3, requires_grad=True)
    ones = torch.ones(2, 3)
    sampled_softmax(states, torch.tensor([1, 1]), torch.tensor([[1]]), ones, torch.ones(1, 1, 3)).backward()
    assert states.grad is not None
    assert not states.grad.any()


def test_learns_planted_cycle(cycle: Dataset) -> None:
    queries, data = build_queries(cycle, TEST), TrainData(cycle)

    def ndcg(name: str, **settings: object) -> float:
        top = BASELINES[name].fit(data, **settings).top(queries, 10)
        return float(metrics(top, queries.relevant, ["ndcg@10"])["ndcg@10"].mean())

    assert ndcg("sasrec", **SETTINGS) > 0.9 > 2 * ndcg("popularity")


def test_best_epoch_is_kept(cycle: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training at a learning rate that makes it jump, up to a limit of positions."""
    values: list[float] = []

    def recorded(*arguments: Any) -> dict[str, np.ndarray]:
        result = metrics(*arguments)
        values.append(float(np.nanmean(result["ndcg@10"])))
        return result

    monkeypatch.setattr(module, "metrics", recorded)
    data = TrainData(cycle)
    model = sasrec(data, **{**SETTINGS, "learning_rate": 0.3})
    assert len(values) > module._PATIENCE
    assert values[-1] < max(values)
    queries = build_queries(cycle, VALID)
    ndcg = metrics(model.top(queries, 10), queries.relevant, ["ndcg@10"])["ndcg@10"]
    assert float(np.nanmean(ndcg)) == max(values)

    values.clear()
    monkeypatch.setattr(module, "_MAX_POSITIONS", 1)
    sasrec(data, **SETTINGS)
    assert len(values) == 1


def test_is_deterministic_and_leaves_random_state(cycle: Dataset) -> None:
    queries = build_queries(cycle, TEST)
    state = torch.get_rng_state()
    once = sasrec(TrainData(cycle), **SETTINGS).scores(queries)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    np.testing.assert_array_equal(sasrec(TrainData(cycle), **SETTINGS).scores(queries), once)
    other = sasrec(TrainData(cycle, seed=1), **SETTINGS).scores(queries)
    assert np.abs(other - once).max() > 1e-3


def test_new_user_gets_what_follows_the_history(cycle: Dataset) -> None:
    """Neither the index of a user nor the train items of one matter, only the history of the query."""
    new = np.arange(cycle.num_users) < 20
    rows = cycle.interactions
    data = TrainData(cycle.with_split(np.where(new[rows.user_idx], TEST, rows.split)))
    assert not new[data.sequence[0]].any()
    model = sasrec(data, **SETTINGS)
    queries = new_user_queries(cycle, new, minimum=2)
    assert queries.users.tolist() == list(range(20))
    names = np.array(cycle.item_ids, int)
    newest = names[queries.items[queries.indptr[1:] - 1]]
    assert ((newest + 1) % NUM_ITEMS == names[model.top(queries, 1)[:, 0]]).mean() > 0.9


def test_scores_do_not_depend_on_the_block(cycle: Dataset) -> None:
    queries = build_queries(cycle, TEST)
    model = SequenceModel(network(max_length=6))
    some = np.array([7, 3, 40])
    np.testing.assert_allclose(model.scores(queries.select(some)), model.scores(queries)[some], atol=1e-4)


def test_text_start_differs_from_random_start(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "reviews", split="leave-last-out")
    data = TrainData(Dataset.open(folder), open_store(folder))
    queries = build_queries(data.dataset, TEST)
    settings = {**SETTINGS, "learning_rate": 1e-12, "dim": 5, "weight_decay": 0.0}
    plain, text = sasrec(data, **settings), sasrec_text(data, **settings, text_norm=3.0)
    start = principal_components(data.directions, 5)
    assert data.directions.any(axis=1).all()
    np.testing.assert_allclose(text.network.item.detach(), 3 * start, atol=1e-5)
    assert np.abs(text.scores(queries) - plain.scores(queries)).max() > 1e-2
    for name, value in plain.network.named_parameters():
        if name != "item":  # everything else starts alike
            torch.testing.assert_close(value, dict(text.network.named_parameters())[name])
    wide = sasrec_text(data, **{**settings, "dim": 16}, text_norm=3.0).network.item.detach()
    assert 0 < wide[:, 12:].abs().mean() < 0.1  # the embeddings of the store have 12 numbers


def test_principal_components_are_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 6)) * [5, 1, 3, 0.1, 0.2, 0.3]
    vectors[4] = 0
    reduced = principal_components(vectors, 2)
    assert not reduced[4].any()
    assert (reduced**2).sum(1)[vectors.any(axis=1)].mean() == pytest.approx(1)
    _, _, axes = np.linalg.svd(vectors, full_matrices=False)
    exact = vectors @ axes[:2].T
    gram = reduced @ reduced.T
    np.testing.assert_allclose(gram / np.trace(gram), exact @ exact.T / np.trace(exact @ exact.T), atol=1e-10)
    assert principal_components(vectors, 10).shape == (50, 6)


@pytest.mark.parametrize("name", ["sasrec", "sasrec-text"])
def test_search_starts_at_given_settings(name: str) -> None:
    first = ROWS[name].first_trial
    assert first is not None
    assert first == BASELINES[name].first_trial
    assert first.keys() == ROWS[name].space.keys()
    assert ROWS[name].needs == ({"order", "text"} if name == "sasrec-text" else {"order"})
