"""Selection of the collaborative term's settings and weight on train and validation."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from llmdirect.collaborative import selection
from llmdirect.collaborative.combine import WeightedSum
from llmdirect.collaborative.ease import EaseInputs
from llmdirect.collaborative.random_walk import RandomWalkTerm
from llmdirect.collaborative.selection import LeftOutEvaluator, fit_ease_candidates, tune_ease
from llmdirect.collaborative.similarity import EmbeddingSimilarity, WordSimilarity
from llmdirect.collaborative.text_neighbours import TextNeighbourTerm
from llmdirect.common.csr import Csr
from llmdirect.config import HISTORY_TERMS, ModelConfig
from llmdirect.model.history_term import HistoryTerm
from llmdirect.model.item_documents import ItemDocuments
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.model.token_tables import PooledTable
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.scorer import ScoreTables, add_item_item
from model_helpers import Row, dataset_of, random_model, write_embeddings

USERS, ITEMS = 30, 12
ALL = torch.arange(ITEMS)
Alike = tuple[WordSimilarity, EmbeddingSimilarity]


@pytest.fixture(scope="module")
def documents_and_similarities(tmp_path_factory: pytest.TempPathFactory) -> tuple[ItemDocuments, Alike]:
    """Users have items of one kind and one of another, and texts of a kind share words."""
    rng, rows = np.random.default_rng(0), []
    for user in range(USERS):
        own = rng.choice(np.arange(user % 3, ITEMS, 3), 3, replace=False).tolist()
        for item in [*own, int(rng.choice(np.arange((user + 1) % 3, ITEMS, 3)))]:
            words = " ".join(f"k{item % 3}w{n}" for n in rng.integers(0, 5, 3))
            rows.append(Row(user, item, f"{words} u{user}i{item}"))
    dataset = dataset_of(rows, USERS, ITEMS)
    texts = dataset.passages.text.to_list()
    view = TrainView.from_dataset(
        dataset, write_embeddings(tmp_path_factory.mktemp("balance") / "store", texts)
    )
    documents = ItemDocuments(view, equal_reviews=False)
    texts = dataset.passages.text.gather(view.passage_idx)
    return documents, (WordSimilarity(view, texts), EmbeddingSimilarity(documents, view.pooled.mean(0)))


@pytest.fixture(scope="module")
def world(documents_and_similarities: tuple[ItemDocuments, Alike]) -> tuple[EaseInputs, LeftOutEvaluator]:
    documents, alike = documents_and_similarities
    evidence = EaseInputs(documents.view.positives, ALL, *alike)
    return evidence, LeftOutEvaluator(evidence, documents)


def test_selected_settings_are_local_optimum(world: tuple[EaseInputs, LeftOutEvaluator]) -> None:
    evidence, left_out = world
    chosen = tune_ease(evidence, left_out, (None, None, None))
    best = left_out.value(chosen)
    for axis in range(3):
        for factor in (4.0, 0.25):
            settings = [chosen.ridge, *chosen.text_weights]
            settings[axis] *= factor
            if settings[0] >= 1 and min(settings[1:]) >= 1 / 64 and max(settings[1:]) <= 1024:
                assert left_out.value(evidence.ease(*settings)) <= best
    start = left_out.value(evidence.ease(256.0, 4.0, 0.25))
    assert best >= start


def test_explicit_settings_are_kept(world: tuple[EaseInputs, LeftOutEvaluator]) -> None:
    evidence, left_out = world
    chosen = tune_ease(evidence, left_out, (3.0, None, 0.0))
    assert (chosen.ridge, chosen.text_weights[1]) == (3.0, 0.0)
    assert tune_ease(evidence, left_out, (3.0, 5.0, 7.0)).text_weights == (5.0, 7.0)


def test_value_matches_refitted_terms(world: tuple[EaseInputs, LeftOutEvaluator]) -> None:
    evidence, left_out = world
    positives, gains = evidence.positives, []
    for user in range(USERS):
        for item in positives.row(user).tolist():
            rows = [positives.row(other).tolist() for other in range(USERS)]
            rows[user] = [kept for kept in rows[user] if kept != item]
            pairs = [(other, kept) for other, row in enumerate(rows) for kept in row]
            users, items = zip(*pairs, strict=True)
            smaller = Csr.from_pairs(np.array(users), np.array(items), USERS)
            term = EaseInputs(smaller, ALL).ease(2.0).score_users(torch.tensor([user]))[0]
            others = term.clone()
            others[positives.row(user).tolist()] = -torch.inf
            rank = 1 + int((others > term[item]).sum())
            gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    assert left_out.value(evidence.ease(2.0, 0.0, 0.0)) == pytest.approx(np.mean(gains), abs=1e-6)


def test_settings_are_compared_on_the_most_popular_items(
    documents_and_similarities: tuple[ItemDocuments, Alike], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared by refits on popular items only; the selected terms cover all items."""
    documents, alike = documents_and_similarities
    monkeypatch.setattr(selection, "_SEARCHED", 9)
    view = documents.view
    items = torch.tensor(sorted(np.argsort(-view.popularity.numpy(), kind="stable")[:9].tolist()))
    whole = EaseInputs(view.positives, ALL, *alike)
    among = EaseInputs(view.positives, items, *alike)
    popular = set(items.tolist())
    rows = [[item for item in view.positives.row(user).tolist() if item in popular] for user in range(USERS)]
    grams = [pair.gram(ALL)[items][:, items] for pair in alike]

    def term(histories: list[list[int]], text_weight: float) -> torch.Tensor:
        table = torch.zeros(USERS, ITEMS, dtype=torch.float64)
        for user, history in enumerate(histories):
            table[user, history] = max(1, len(history)) ** -0.25
        table = table[:, items]
        gram = table.T @ table + 2.0 * torch.eye(9) + text_weight * grams[0]
        weights = -torch.linalg.inv(gram) / torch.linalg.inv(gram).diagonal()
        return (table > 0).double() @ weights.fill_diagonal_(0)

    chosen = among.ease(2.0, 3.0, 0.0).score_users(torch.arange(USERS))
    expected = term(rows, 3.0)
    for user, history in enumerate(rows):
        new = [position for position, item in enumerate(items.tolist()) if item not in history]
        torch.testing.assert_close(chosen[user, new].double(), expected[user, new], rtol=1e-5, atol=1e-6)

    gains = []
    for user, history in enumerate(rows):
        for item in history:
            fewer = [[*row] for row in rows]
            fewer[user].remove(item)
            left = term(fewer, 0.0)[user]
            position = items.tolist().index(item)
            others = [p for p, other in enumerate(items.tolist()) if other not in history]
            rank = 1 + sum(float(left[p]) > float(left[position]) for p in others)
            gains.append(1 / np.log2(rank + 1))
    value = LeftOutEvaluator(among, documents).value(among.ease(2.0, 0.0, 0.0))
    assert value == pytest.approx(np.mean(gains), abs=1e-6)

    (term_of_all,) = fit_ease_candidates(
        documents, alike, ModelConfig(ridge=3.0, word_similarity=2.0, embedding_similarity=0.0)
    )
    assert torch.equal(term_of_all.inverse, whole.ease(3.0, 2.0, 0.0).inverse)


@pytest.fixture(scope="module")
def text(documents_and_similarities: tuple[ItemDocuments, Alike]) -> CatalogueScores:
    documents, _ = documents_and_similarities
    model = random_model(ModelConfig(aspects=2, channels=2), documents.view)
    with torch.no_grad():
        return CatalogueScores(model, documents, PooledTable(model, documents), None)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", HISTORY_TERMS)
def test_selects_term_with_best_ranking(
    world: tuple[EaseInputs, LeftOutEvaluator], text: CatalogueScores, name: str, which: int
) -> None:
    """Validation prefers one table at one weight, and slightly the EASE in it."""
    evidence, _ = world
    eases = [evidence.ease(1e4, 0.0, 0.0), evidence.ease(4.0, 1.0, 0.0)]
    term: HistoryTerm = eases[which]
    plain, unit = export_tables(text), 1 / term.spread()
    liked = table_of(with_term(plain, term, unit))
    if name != "ease":
        other = (
            RandomWalkTerm(text.view.positives, ITEMS)
            if name == "ease+walk"
            else TextNeighbourTerm(text, ALL)
        )
        term = WeightedSum([term, other], [unit, 1 / other.spread()])
    preferred = table_of(with_term(plain, term, 1 / term.spread()))

    def values(tables: ScoreTables) -> NDArray[np.float64]:
        table = table_of(tables)
        return np.full(7, 2.0 * (table == preferred) + (table == liked))

    for option in ("auto", name):
        chosen = selection.select_term(text, eases, option, values)
        assert (chosen.name, chosen.ease) == (name, eases[which])
        assert chosen.weight * chosen.term.spread() == pytest.approx(1.0)
        assert torch.equal(chosen.term.table(), term.table())
        assert table_of(chosen.tables) == preferred


def test_ties_select_simplest_term(world: tuple[EaseInputs, LeftOutEvaluator], text: CatalogueScores) -> None:
    evidence, _ = world
    eases = [evidence.ease(4.0, 1.0, 0.0), evidence.ease(4.0, 2.0, 0.0)]
    chosen = selection.select_term(text, eases, "auto", lambda tables: np.ones(7))
    assert (chosen.name, chosen.ease, chosen.term) == ("ease", eases[0], eases[0])
    assert chosen.weight * chosen.term.spread() == pytest.approx(0.5)


@pytest.mark.parametrize("spread", [0.0, 1 / 16, 16.0])
def test_distant_weights_need_significant_gain(
    world: tuple[EaseInputs, LeftOutEvaluator], text: CatalogueScores, spread: float
) -> None:
    """By two standard errors, where scores are logits; otherwise the highest mean wins."""
    evidence, _ = world
    term, plain = evidence.ease(4.0, 1.0, 0.0), export_tables(text)
    far = table_of(with_term(plain, term, spread / term.spread())) if spread else b""

    def selected_weight(gains: NDArray[np.float64], logits: bool = True) -> float:
        def values(tables: ScoreTables) -> NDArray[np.float64]:
            return gains * (table_of(tables) == far)

        one = selection.select_term(text, [term], "ease", values, logits)
        assert table_of(one.tables) == (table_of(with_term(plain, term, one.weight)) if one.weight else b"")
        return one.weight * term.spread()

    noise = np.tile([1.0, -1.0], 50)
    assert selected_weight(0.21 + noise) == pytest.approx(spread)
    assert selected_weight(0.19 + noise) == pytest.approx(0.5)
    assert selected_weight(0.19 + noise, logits=False) == pytest.approx(spread)


def test_ratio_form_without_neighbours(
    documents_and_similarities: tuple[ItemDocuments, Alike], monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, alike = documents_and_similarities
    model = random_model(ModelConfig(aspects=2, channels=1, score_form="ratio"), documents.view)
    evidence, seen_tables = EaseInputs(documents.view.positives, ALL, *alike), set()
    with torch.no_grad():
        text = CatalogueScores(model, documents, PooledTable(model, documents), None)

        def values(tables: ScoreTables) -> NDArray[np.float64]:
            seen_tables.add(table_of(tables))
            return np.zeros(3)

        monkeypatch.setattr(selection, "TextNeighbourTerm", None)
        selection.select_term(text, [evidence.ease(4.0, 1.0, 0.0)], "auto", values)
    assert len(seen_tables) == 1 + 2 * 17  # without a term; EASE, and with a walk, at each weight
    with pytest.raises(ValueError, match="`history_term`: text neighbours need the cosine form"):
        ModelConfig(score_form="ratio", channels=1, history_term="ease+neighbours")
    ModelConfig(score_form="ratio", channels=1, history_term="ease+neighbours", collaborative=False)


def with_term(text: ScoreTables, term: HistoryTerm, weight: float) -> ScoreTables:
    return add_item_item(text, term.positives, term.item_item()).weighted(weight)


def table_of(tables: ScoreTables) -> bytes:
    return b"" if tables.item_item is None else np.asarray(tables.item_item[2]).tobytes()


def text_of(seed: int = 0) -> ScoreTables:
    rng = np.random.default_rng(seed)
    return ScoreTables(query=rng.standard_normal((USERS, 2)), item=rng.standard_normal((ITEMS, 2)))


def test_scorer_with_term_is_sum(world: tuple[EaseInputs, LeftOutEvaluator]) -> None:
    evidence, _ = world
    term, text = evidence.ease(4.0, 1.0, 0.5), text_of()
    tables = with_term(text, term, 2.0)
    expected = np.asarray(text.query) @ np.asarray(text.item).T
    expected = expected + 2.0 * term.score_users(torch.arange(USERS)).numpy()
    for user in range(USERS):
        unseen = np.setdiff1d(np.arange(ITEMS), evidence.positives.row(user))
        result = tables.score_pairs(np.full(len(unseen), user), unseen)
        np.testing.assert_allclose(result, expected[user, unseen], rtol=1e-4, atol=1e-5)
