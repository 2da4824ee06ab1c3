"""The collaborative term's settings and weight: found where they are best, from what may be looked at."""

import numpy as np
import pytest
import torch
from model_helpers import Row, dataset_of, write_embeddings

from llmdirect import balance
from llmdirect.balance import LeftOut, candidates, choose, weigh
from llmdirect.collaboration import Collaboration, Evidence
from llmdirect.config import ModelConfig
from llmdirect.csr import Csr
from llmdirect.likeness import EmbeddingLikeness, WordLikeness
from llmdirect.ranking import Scorer, with_item_item
from llmdirect.scores import Documents
from llmdirect.views import View

USERS, ITEMS = 30, 12
Alike = tuple[WordLikeness, EmbeddingLikeness]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Documents, Alike]:
    """Users have items of one kind and one of another, and texts of a kind share words."""
    rng, rows = np.random.default_rng(0), []
    for user in range(USERS):
        own = rng.choice(np.arange(user % 3, ITEMS, 3), 3, replace=False).tolist()
        for item in [*own, int(rng.choice(np.arange((user + 1) % 3, ITEMS, 3)))]:
            words = " ".join(f"k{item % 3}w{n}" for n in rng.integers(0, 5, 3))
            rows.append(Row(user, item, f"{words} u{user}i{item}"))
    dataset = dataset_of(rows, USERS, ITEMS)
    texts = dataset.passages.text.to_list()
    view = View.build(dataset, write_embeddings(tmp_path_factory.mktemp("balance") / "store", texts))
    documents = Documents(view, vote=False)
    texts = dataset.passages.text.gather(view.passage_idx)
    return documents, (WordLikeness(view, texts), EmbeddingLikeness(documents, view.pooled.mean(0)))


@pytest.fixture(scope="module")
def world(made: tuple[Documents, Alike]) -> tuple[Evidence, LeftOut]:
    documents, alike = made
    evidence = Evidence(documents.view.positives, ITEMS, *alike)
    return evidence, LeftOut(evidence, documents)


def test_no_step_of_one_setting_improves(world: tuple[Evidence, LeftOut]) -> None:
    evidence, left_out = world
    found = choose(evidence, left_out, (None, None, None))
    best = left_out.value(found)
    for axis in range(3):
        for factor in (4.0, 0.25):
            settings = [found.ridge, *found.likeness]
            settings[axis] *= factor
            if settings[0] >= 1 and min(settings[1:]) >= 1 / 64 and max(settings[1:]) <= 1024:
                assert left_out.value(evidence.collaboration(*settings)) <= best
    start = left_out.value(evidence.collaboration(256.0, 4.0, 0.25))
    assert best >= start


def test_given_settings_stay(world: tuple[Evidence, LeftOut]) -> None:
    evidence, left_out = world
    found = choose(evidence, left_out, (3.0, None, 0.0))
    assert (found.ridge, found.likeness[1]) == (3.0, 0.0)
    assert choose(evidence, left_out, (3.0, 5.0, 7.0)).likeness == (5.0, 7.0)


def test_value_is_that_of_refitted_terms(world: tuple[Evidence, LeftOut]) -> None:
    evidence, left_out = world
    positives, gains = evidence.positives, []
    for user in range(USERS):
        for item in positives.row(user).tolist():
            rows = [positives.row(other).tolist() for other in range(USERS)]
            rows[user] = [kept for kept in rows[user] if kept != item]
            pairs = [(other, kept) for other, row in enumerate(rows) for kept in row]
            users, items = zip(*pairs, strict=True)
            smaller = Csr.from_pairs(np.array(users), np.array(items), USERS)
            term = Evidence(smaller, ITEMS).collaboration(2.0).of_users(torch.tensor([user]))[0]
            others = term.clone()
            others[positives.row(user).tolist()] = -torch.inf
            rank = 1 + int((others > term[item]).sum())
            gains.append(1 / np.log2(rank + 1) if rank <= 10 else 0.0)
    assert left_out.value(evidence.collaboration(2.0, 0.0, 0.0)) == pytest.approx(np.mean(gains), abs=1e-6)


def test_settings_are_compared_on_the_most_popular_items(
    made: tuple[Documents, Alike], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On these alone, every pair refitted without; the terms themselves are of all items."""
    documents, alike = made
    monkeypatch.setattr(balance, "_SEARCHED", 9)
    view = documents.view
    items = torch.tensor(sorted(np.argsort(-view.popularity.numpy(), kind="stable")[:9].tolist()))
    whole = Evidence(view.positives, ITEMS, *alike)
    among = whole.among(items)
    popular = set(items.tolist())
    rows = [[item for item in view.positives.row(user).tolist() if item in popular] for user in range(USERS)]
    grams = [one.gram()[items][:, items] for one in alike]

    def term(histories: list[list[int]], likeness: float) -> torch.Tensor:
        table = torch.zeros(USERS, ITEMS, dtype=torch.float64)
        for user, history in enumerate(histories):
            table[user, history] = max(1, len(history)) ** -0.25
        table = table[:, items]
        gram = table.T @ table + 2.0 * torch.eye(9) + likeness * grams[0]
        weights = -torch.linalg.inv(gram) / torch.linalg.inv(gram).diagonal()
        return (table > 0).double() @ weights.fill_diagonal_(0)

    found = among.collaboration(2.0, 3.0, 0.0).of_users(torch.arange(USERS))
    expected = term(rows, 3.0)
    for user, history in enumerate(rows):
        new = [place for place, item in enumerate(items.tolist()) if item not in history]
        torch.testing.assert_close(found[user, new], expected[user, new])

    gains = []
    for user, history in enumerate(rows):
        for item in history:
            fewer = [[*row] for row in rows]
            fewer[user].remove(item)
            left = term(fewer, 0.0)[user]
            place = items.tolist().index(item)
            others = [p for p, other in enumerate(items.tolist()) if other not in history]
            rank = 1 + sum(float(left[p]) > float(left[place]) for p in others)
            gains.append(1 / np.log2(rank + 1))
    value = LeftOut(among, documents).value(among.collaboration(2.0, 0.0, 0.0))
    assert value == pytest.approx(np.mean(gains), abs=1e-6)

    (term_of_all,) = candidates(
        documents, alike, ModelConfig(ridge=3.0, word_likeness=2.0, embedding_likeness=0.0)
    )
    assert torch.equal(term_of_all.inverse, whole.collaboration(3.0, 2.0, 0.0).inverse)


def text_of(seed: int = 0) -> Scorer:
    rng = np.random.default_rng(seed)
    return Scorer(query=rng.standard_normal((USERS, 2)), item=rng.standard_normal((ITEMS, 2)))


def test_weight_of_a_term_that_tells_and_of_one_that_misleads(world: tuple[Evidence, LeftOut]) -> None:
    evidence, _ = world
    term = evidence.collaboration(4.0, 1.0, 0.0)
    relevant = evidence.positives
    kinds = np.equal.outer(np.arange(USERS) % 3, np.arange(ITEMS) % 3)
    kinds[np.repeat(np.arange(USERS), np.diff(relevant.indptr)), relevant.indices] = False

    def value(scorer: Scorer, sign: int = 1) -> float:
        table = np.array([scorer.of_pairs(np.full(ITEMS, user), np.arange(ITEMS)) for user in range(USERS)])
        return sign * float(table[kinds].mean() - table[~kinds].mean())

    text = text_of()
    found, weight, scorer = weigh(text, [term], value)
    assert found is term
    assert weight * term.spread() == pytest.approx(16.0)
    assert value(scorer) > value(text)
    _, weight, scorer = weigh(text, [term], lambda scorer: value(scorer, -1))
    assert weight == 0.0
    pairs = torch.arange(ITEMS), torch.arange(ITEMS)
    np.testing.assert_allclose(scorer.of_pairs(*pairs), text.of_pairs(*pairs), atol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_the_better_of_two_terms_is_taken(world: tuple[Evidence, LeftOut], which: int) -> None:
    evidence, _ = world
    terms = [evidence.collaboration(1e4, 0.0, 0.0), evidence.collaboration(4.0, 1.0, 0.0)]
    wanted = table_of(with_term(text_of(), terms[which], 1 / terms[which].spread()))
    found, weight, _ = weigh(text_of(), terms, lambda scorer: float(table_of(scorer) == wanted))
    assert found is terms[which]
    assert weight * found.spread() == pytest.approx(1.0)


def with_term(text: Scorer, term: Collaboration, weight: float) -> Scorer:
    return with_item_item(text, term.positives, term.item_item(), weight)


def table_of(scorer: Scorer) -> bytes:
    return b"" if scorer.item_item is None else np.asarray(scorer.item_item[2]).tobytes()


def test_the_scorer_with_a_term_is_the_sum(world: tuple[Evidence, LeftOut]) -> None:
    evidence, _ = world
    term, text = evidence.collaboration(4.0, 1.0, 0.5), text_of()
    scorer = with_term(text, term, 2.0)
    expected = np.asarray(text.query) @ np.asarray(text.item).T
    expected = expected + 2.0 * term.of_users(torch.arange(USERS)).numpy()
    for user in range(USERS):
        unseen = np.setdiff1d(np.arange(ITEMS), evidence.positives.row(user))
        found = scorer.of_pairs(np.full(len(unseen), user), unseen)
        np.testing.assert_allclose(found, expected[user, unseen], rtol=1e-4, atol=1e-5)
