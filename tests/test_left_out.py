"""Delete and rebuild: a train pair is scored as if it, and every same-user copy of its text, did not exist.

One side is `Scores.left_out` on the view of the whole train split. The other deletes the interaction and the
copies from the data set, makes view, documents, tables and collaborative term from scratch, and ranks: the
path of evaluation. All candidates must get the same scores.

The parameters are the same on both sides, and with them what `initialise` fixed before the first step: the
linear map, the topics, and the centre and scale of the embeddings. Centre and scale are computed from train,
so one may ask whether they count among "every statistic of train that enters its score". They are kept as
they are, as the encoder's frozen affine map, for three reasons. They belong to the projections and scales
that are to be made from train only, like the projection that is fitted before the first shard; they are the
same numbers for every pair, user and item, so they cannot tell a pair's own item from the others; and what
one passage moves in them is its distance from the mean over the number of passages. The last claim is
measured below: eight times the passages, less than a quarter of the effect on scores.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import (
    Row,
    copies_of,
    dataset_of,
    delete,
    random_model,
    row_of,
    scores_of,
    write_embeddings,
)
from review_files import review, write_lines
from torch import Tensor

from llmdirect.config import HISTORY, ModelConfig
from llmdirect.dataset import Dataset
from llmdirect.documents import prepare
from llmdirect.ease import Ease, Evidence
from llmdirect.history_term import HistoryTerm, Sum
from llmdirect.likeness import EmbeddingLikeness, WordLikeness
from llmdirect.model import Direct
from llmdirect.neighbours import Neighbours
from llmdirect.ranking import rank
from llmdirect.scores import Documents, Pairs, PooledTable, Scores, TokenTable, scorer
from llmdirect.store import EmbeddingStore
from llmdirect.views import Slots, View
from llmdirect.walk import Walk

TOLERANCE = 1e-5
RIDGE = 3.0
WORDS = [f"w{number}" for number in range(200)]
USERS, ITEMS = 12, 44
LONG, SINGLE, DESCRIBED, COPIED_ONLY, COLD = 36, 42, 43, 41, 38
PAIRS = [
    (0, 0),  # the newest of 36: the 31st of history and passages moves up
    (0, 34),  # beyond the newest 30
    (0, 3),  # with copies at items 20 and 33, one of them beyond the newest 30: more move up
    (0, 33),
    (1, 40),  # all that the user has
    (2, 10),  # copies at four items: one no positive, one whose whole document is the copy
    (2, COPIED_ONLY),
    (3, 12),  # without text
    (4, SINGLE),  # the only passage about the item
    (5, DESCRIBED),  # a description stays
    (6, LONG),  # its words outnumber those of the rest of the document a thousandfold
    (7, LONG),
    (8, 15),
    (9, 16),
]


def sentence(rng: np.random.Generator, length: int = 0) -> str:
    """Random words."""
    return " ".join(rng.choice(WORDS, length or int(rng.integers(1, 12))))


def rows_of_the_world() -> list[Row]:
    """Interactions that have every trait for which leaving one out may go wrong."""
    rng = np.random.default_rng(5)
    same, again = "the same words everywhere", "posted once, posted twice"
    rows = [Row(0, item, sentence(rng), time=1000 - item) for item in range(36)]
    for item, text in ((3, same), (20, same.upper()), (33, f"  {same.replace(' ', '  ')} ")):
        rows[item] = replace(rows[item], text=text)
    rows.append(Row(1, 40, sentence(rng), time=7))
    rows += [Row(2, item, again, time=item) for item in (10, 11, COPIED_ONLY)]
    rows += [Row(2, 14, f" {again}", time=14, positive=False, rating=1.0), Row(2, 39, sentence(rng), time=39)]
    rows += [Row(3, item, "", time=None) for item in (12, 13)]
    rows += [Row(4, SINGLE, sentence(rng), time=3), Row(4, 12, sentence(rng), time=4)]
    rows += [Row(5, DESCRIBED, sentence(rng), time=5), Row(5, 40, sentence(rng), time=6)]
    rows += [Row(6, LONG, sentence(rng, 4000), time=1), Row(7, LONG, "short", time=2)]
    for user in range(6, USERS):
        for item in rng.choice(38, 8, replace=False).tolist():
            if item != LONG:
                split = int(rng.choice(3, p=[0.7, 0.1, 0.2])) if item not in (15, 16) else 0
                rows.append(
                    Row(user, item, sentence(rng), time=int(rng.integers(20)), split=split, rating=3.0)
                )
    taken = {(row.user, row.item) for row in rows}
    rows += [Row(user, item, sentence(rng)) for user, item in ((8, 15), (9, 16)) if (user, item) not in taken]
    rows.append(Row(11, COLD, sentence(rng), time=50, split=2))
    return rows


def ease_of(dataset: Dataset, view: View, centre: Tensor, like: WordLikeness | None = None) -> Ease:
    """With texts that weigh as much as a few users; like: whose map of words is taken."""
    texts, documents = dataset.passages.text.gather(view.passage_idx), Documents(view, vote=False)
    alike = WordLikeness(view, texts, like), EmbeddingLikeness(documents, centre)
    return Evidence(view.positives, view.num_items, *alike).ease(RIDGE, 3.0, 2.0)


def history_term(ease: Ease, model: Direct, view: View, tokens: bool) -> HistoryTerm | None:
    """All that a history can say, each with a weight of its own, where the model has such a term."""
    if not model.config.collaborative:
        return None
    terms: list[HistoryTerm] = [ease, Walk(view.positives, view.num_items)]
    if model.config.form == "cosine":
        terms.append(Neighbours(scores_of(model, view, tokens)))
    return Sum(terms, [1.0, 0.01, 3.0][: len(terms)])


@dataclass
class World:
    """A data set, and what is left of it without each of some train pairs."""

    dataset: Dataset
    store: EmbeddingStore
    view: View
    pairs: Pairs
    ease: Ease
    without: list[tuple[View, Ease]]

    @classmethod
    def of(cls, dataset: Dataset, store: EmbeddingStore, pairs: list[tuple[int, int]]) -> "World":
        """Deletes each pair in turn; the copies' texts are emptied, or their passages go."""
        plain = View.build(dataset, store)
        centre = plain.pooled.mean(0)  # a fixed map, as of the model
        ease = ease_of(dataset, plain, centre)
        words = ease.texts[0]
        assert isinstance(words, WordLikeness)
        lexicon = words.lexicon(plain, 3)
        assert lexicon.dim == 3
        view = plain.with_lexicon(lexicon, dataset.passages.text.gather(plain.passage_idx))
        places = [
            int(((view.pair_user == user) & (view.pair_item == item)).nonzero()[0, 0]) for user, item in pairs
        ]
        without = []
        for number, (user, item) in enumerate(pairs):
            smaller = delete(dataset, row_of(dataset, user, item), drop_copies=number % 2 == 1)
            rebuilt = View.build(smaller, store)
            again = ease_of(smaller, rebuilt, centre, words)
            texts = smaller.passages.text.gather(rebuilt.passage_idx)
            without.append((rebuilt.with_lexicon(lexicon, texts), again))
        return cls(
            dataset,
            store,
            view,
            Pairs.of(view, torch.tensor(places)),
            ease,
            without,
        )

    def left_out(self, model: Direct, tokens: bool) -> Tensor:
        """Scores [pairs, I] of `left_out`, with the user's bias and the global one."""
        with torch.no_grad():
            term = history_term(self.ease, model, self.view, tokens)
            scores, _ = scores_of(model, self.view, tokens, term).left_out(self.pairs)
            return scores + (model.bias + model.user_bias[self.pairs.user])[:, None]

    def rebuilt(self, model: Direct, tokens: bool) -> list[tuple[Tensor, Tensor]]:
        """Candidates and their scores for each pair, ranked after deletion."""
        ranked = []
        for user, (view, ease) in zip(self.pairs.user.tolist(), self.without, strict=True):
            with torch.no_grad():
                term = history_term(ease, model, view, tokens)
            ranking = scorer(scores_of(model, view, tokens, term))
            lists = rank(ranking, [user], k=view.num_items, seen=view.positives)
            listed = lists.items[0] >= 0
            ranked.append(
                (torch.from_numpy(lists.items[0][listed]).long(), torch.from_numpy(lists.scores[0][listed]))
            )
        return ranked

    def differences(self, model: Direct, tokens: bool) -> Tensor:
        """Largest difference of a candidate's two scores, for each pair."""
        left_out, largest = self.left_out(model, tokens), []
        for number, (items, expected) in enumerate(self.rebuilt(model, tokens)):
            assert self.pairs.item[number] in items, "the pair's item must be a candidate again"
            largest.append((left_out[number, items] - expected).abs().max())
        return torch.stack(largest)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    dataset = dataset_of(rows_of_the_world(), USERS, ITEMS, {DESCRIBED: "a description of it", 5: "another"})
    store = write_embeddings(tmp_path_factory.mktemp("world") / "store", dataset.passages.text.to_list())
    return World.of(dataset, store, PAIRS)


def config(**settings: Any) -> ModelConfig:
    """Few aspects; one channel where the form or the sentiment allows no more."""
    one = settings.get("form") == "ratio" or settings.get("sentiment") == "mlp"
    return ModelConfig(aspects=3, channels=1 if one else 2, ridge=RIDGE, **settings)


def test_the_world_has_every_trait(world: World) -> None:
    view, dataset = world.view, world.dataset
    histories = view.history.indptr.diff()
    assert histories[0] == 36 > HISTORY + 1
    assert histories[1] == 1
    assert view.texts.width == HISTORY + 4  # the largest group of copies
    assert len(copies_of(dataset, row_of(dataset, 0, 3))) == 2
    assert view.popularity[[SINGLE, COLD]].tolist() == [1, 0]
    (own,) = np.flatnonzero(view.passage_item.numpy() == SINGLE)
    assert view.lengths[own] > 0
    assert (
        view.lengths[(view.passage_item == LONG)].max() > 1000 * view.lengths[view.passage_item == LONG].min()
    )
    assert (dataset.interactions.split > 0).sum() > 5
    assert not dataset.interactions.positive.all()


@pytest.mark.parametrize("collaborative", [False, True], ids=["text", "collaborative"])
@pytest.mark.parametrize(
    ("sentiment", "tokens"),
    [("linear", False), ("linear", True), ("mlp", True)],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("popularity", [True, False], ids=["popularity", "item_bias"])
@pytest.mark.parametrize("form", ["cosine", "ratio"])
def test_left_out_is_what_deletion_gives(
    world: World, form: str, popularity: bool, sentiment: str, tokens: bool, collaborative: bool
) -> None:
    for user, vote in product(("history", "text", "both"), (True, False)):
        settings = config(
            form=form,
            popularity=popularity,
            sentiment=sentiment,
            collaborative=collaborative,
            user=user,
            vote=vote,
        )
        differences = world.differences(random_model(settings, world.view), tokens)
        assert differences.max() <= TOLERANCE, (
            user,
            vote,
            dict(zip(PAIRS, differences.tolist(), strict=True)),
        )


def test_published_preset_with_running_statistics(world: World) -> None:
    settings = ModelConfig.for_preset("paper")
    assert settings.batch_norm
    assert world.differences(random_model(settings, world.view), tokens=True).max() <= TOLERANCE


def test_a_prepared_dataset(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    records = [
        review(
            f"u{user}", f"i{item}", sentence(rng), rating=int(rng.integers(1, 6)), time=int(rng.integers(50))
        )
        for user in range(12)
        for item in rng.choice(10, 6, replace=False).tolist()
    ]
    for number in (0, 1, 2, 14):
        records[number]["text"] = "one text for several items" if number < 3 else ""
    prepare(write_lines(tmp_path / "reviews.jsonl", records), tmp_path / "dataset", positive="rating>=2")
    dataset = Dataset.open(tmp_path / "dataset")
    store = write_embeddings(tmp_path / "store", dataset.passages.text.to_list())
    view = View.build(dataset, store)
    pairs = list(zip(view.pair_user.tolist(), view.pair_item.tolist(), strict=True))
    copied = [pair for pair in pairs if copies_of(dataset, row_of(dataset, *pair))]
    assert copied
    chosen = World.of(dataset, store, copied + pairs[::4])
    for form, user in product(("cosine", "ratio"), ("history", "both")):
        model = random_model(config(form=form, user=user, collaborative=True), chosen.view)
        assert chosen.differences(model, tokens=True).max() <= TOLERANCE


def test_pairs_of_a_batch_do_not_see_each_other(world: World) -> None:
    model = random_model(config(form="ratio", user="both", collaborative=True), world.view)
    together = world.left_out(model, tokens=True)
    for number in range(0, len(PAIRS), 3):
        one = slice(number, number + 1)
        fields = ("user", "item", "passage", "rating")
        single = replace(world, pairs=Pairs(*(getattr(world.pairs, field)[one] for field in fields)))
        torch.testing.assert_close(single.left_out(model, tokens=True), together[one], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
@pytest.mark.parametrize("vote", [True, False], ids=["vote", "length"])
@pytest.mark.parametrize("form", ["cosine", "ratio"])
def test_no_other_passage_left_is_exactly_zero(world: World, form: str, vote: bool, tokens: bool) -> None:
    model = random_model(config(form=form, vote=vote, user="both"), world.view)
    scores = scores_of(model, world.view, tokens)
    with torch.no_grad():
        query = scores.interests(world.pairs.user, world.pairs)
        term = scores.document_term(query, world.pairs)
        said, mass = scores.table.without(world.pairs.item, world.pairs.passage)
    alone = PAIRS.index((4, SINGLE))
    assert query[alone].abs().sum() > 0
    assert term[alone].item() == 0.0
    assert not said[alone].any()
    assert not mass[alone].any()
    assert term[PAIRS.index((5, DESCRIBED))].item() != 0.0


def test_nothing_of_valid_and_test_enters(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    rows = [
        row if row.split == 0 else replace(row, text=sentence(rng), time=int(rng.integers(99)), rating=1.0)
        for row in rows_of_the_world()
    ]
    changed = dataset_of(rows, USERS, ITEMS, {DESCRIBED: "a description of it", 5: "another"})
    texts = [*world.dataset.passages.text.to_list(), *changed.passages.text.to_list()]
    store = write_embeddings(tmp_path / "store", texts)
    model = random_model(config(user="both"), world.view)
    views = []
    for data in (world.dataset, changed):
        view = View.build(data, store)
        used = data.passages.text.gather(view.passage_idx)
        lexicon = WordLikeness(view, used).lexicon(view, 3)
        views.append(view.with_lexicon(lexicon, used))
    assert views[0].lexicon.names == views[1].lexicon.names
    assert torch.equal(views[0].lexicon.vectors, views[1].lexicon.vectors)
    first, second = (scorer(scores_of(model, view, True)) for view in views)
    for name in ("query", "item", "item_bias"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_what_a_passage_moves_in_the_centre_falls_with_their_number(tmp_path: Path) -> None:
    """Centre and scale made again without the pair: what that does to scores falls with the passages."""
    effects = []
    for size in (1, 8):
        rng = np.random.default_rng(1)
        rows = [
            Row(user, item, sentence(rng, 8), time=item)
            for user in range(12 * size)
            for item in rng.choice(10 * size, 6, replace=False).tolist()  # as many passages an item
        ]
        dataset = dataset_of(rows, 12 * size, 10 * size)
        store = write_embeddings(tmp_path / str(size), dataset.passages.text.to_list())
        view = View.build(dataset, store)
        model = random_model(config(user="both"), view)
        frozen = scores_of(model, view, False)
        everyone, passages = view.pooled.mean(0), len(view.pooled)
        moved = []
        for row in range(0, 60, 5):
            pairs = Pairs.of(view, torch.tensor([row]))
            with torch.no_grad():
                expected = frozen.left_out(pairs)[0]
                others = view.pooled[torch.arange(passages) != pairs.passage]
                before = model.centre.clone(), model.scale.clone()
                model.centre.copy_(others.mean(0))
                model.scale.copy_((others - model.centre).square().sum(1).mean().sqrt())
                torch.testing.assert_close(
                    model.centre - everyone, (everyone - view.pooled[pairs.passage[0]]) / (passages - 1)
                )
                moved.append((scores_of(model, view, False).left_out(pairs)[0] - expected).abs().max())
                model.centre.copy_(before[0])
                model.scale.copy_(before[1])
        spread = scorer(frozen)
        effects.append(float(torch.stack(moved).mean()) / float(np.std(spread.query @ spread.item.T)))
    assert 0 < effects[1] < effects[0] / 4


Patch = Callable[[pytest.MonkeyPatch], None]


def forget(owner: type, name: str, broken: Callable[..., Any]) -> Patch:
    """Replaces a method; `broken` gets the original first."""
    original = getattr(owner, name)

    def replacement(*args: Any, **more: Any) -> Any:
        return broken(original, *args, **more)

    return lambda patch: patch.setattr(owner, name, replacement)


def keep_the_passage(original: Any, self: Any, items: Tensor, passages: Tensor) -> Any:
    return original(self, items, torch.full_like(passages, -1))


def in_float32(original: Any, self: Documents, *args: Any) -> Any:
    """Sums and their parts in float32, so that little is left after much with a rounding residue."""
    self.mass, kept = self.mass.float(), self.mass
    self.pooled, pooled = self.pooled.float(), self.pooled
    result = original(self, *args)
    self.mass, self.pooled = kept, pooled
    return result


BROKEN: dict[str, tuple[Patch, dict[str, Any], bool]] = {
    "popularity of the pair": (
        forget(
            Direct,
            "item_bias_of",
            lambda original, self, count, items=None: original(
                self, count if items is None else count + 1, items
            ),
        ),
        {},
        False,
    ),
    "learned bias of another item": (
        forget(
            Direct,
            "item_bias_of",
            lambda original, self, count, items=None: original(
                self, count, None if items is None else items - 1
            ),
        ),
        {"popularity": False},
        False,
    ),
    "own passage, pooled": (forget(PooledTable, "without", keep_the_passage), {}, False),
    "own passage, tokens": (forget(TokenTable, "without", keep_the_passage), {}, True),
    "own passage, ratio": (forget(TokenTable, "without", keep_the_passage), {"form": "ratio"}, True),
    "copies in the history": (
        forget(Scores, "_copies", lambda original, self, passages, out: torch.zeros_like(passages).bool()),
        {"user": "history"},
        False,
    ),
    "copies in the history, ratio": (
        forget(Documents, "pooled_without", keep_the_passage),
        {"user": "history", "form": "ratio"},
        True,
    ),
    "copies among the passages": (
        forget(Scores, "_copies", lambda original, self, passages, out: torch.zeros_like(passages).bool()),
        {"user": "text"},
        False,
    ),
    "copies of a candidate": (
        forget(Documents, "copies", lambda original, self, passages: original(self, passages[:0])),
        {},
        False,
    ),
    "interest without leaving out": (
        forget(Scores, "interests", lambda original, self, users, out=None, keep=None: original(self, users)),
        {"user": "both"},
        False,
    ),
    "item that moves up in the history": (
        forget(Slots, "gather", lambda original, *args: [part[:, :HISTORY] for part in original(*args)]),
        {"user": "history"},
        False,
    ),
    "passages that move up": (
        forget(Slots, "gather", lambda original, *args: [part[:, : HISTORY + 1] for part in original(*args)]),
        {"user": "text"},
        False,
    ),
    **{
        f"{kind.__name__} of a history": (
            forget(kind, "left_out", lambda original, self, users, *_: self.of_users(users)),
            {"collaborative": True},
            False,
        )
        for kind in (Ease, Walk, Neighbours)
    },
    "vectors of neighbours": (
        forget(
            Neighbours,
            "left_out",
            lambda original, self, users, items, passages: original(
                self, users, items, torch.full_like(passages, -1)
            ),
        ),
        {"collaborative": True},
        False,
    ),
    "lengths of the walk": (
        forget(
            Walk,
            "left_out",
            lambda original, self, users, items, _: self.of_users(users) - self.table()[items],
        ),
        {"collaborative": True},
        False,
    ),
    **{
        f"{kind.__name__} of EASE": (
            forget(
                kind,
                "lost",
                lambda original, self, *args: tuple(0 * part for part in original(self, *args)),
            ),
            {"collaborative": True},
            False,
        )
        for kind in (WordLikeness, EmbeddingLikeness)
    },
    "float64, pooled": (forget(Documents, "pooled_without", in_float32), {"vote": False}, False),
    "float64, tokens": (
        forget(
            Documents,
            "without",
            lambda original, self, sums, *args: original(self, sums.float(), *args),
        ),
        {"vote": False},
        True,
    ),
}


@pytest.mark.parametrize("forgotten", BROKEN)
def test_forgetting_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch, forgotten: str) -> None:
    patch, settings, tokens = BROKEN[forgotten]
    model = random_model(config(**settings), world.view)
    assert world.differences(model, tokens).max() <= TOLERANCE
    patch(monkeypatch)
    assert world.differences(model, tokens).max() > (2 if "float64" in forgotten else 100) * TOLERANCE
