"""Leave-one-out scores against deletion of the pair and a rebuild of the whole state.

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

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from left_out_world import (
    COLD,
    DESCRIBED,
    ITEMS,
    LONG,
    PAIRS,
    SINGLE,
    TOLERANCE,
    USERS,
    World,
    build,
    config,
    sentence,
    world_rows,
)
from llmdirect.collaborative.similarity import WordSimilarity
from llmdirect.config import HISTORY, ModelConfig
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import prepare
from llmdirect.model.item_documents import Pairs
from llmdirect.model.scores import export_tables
from llmdirect.model.train_view import TrainView
from model_helpers import (
    Row,
    copies_of,
    dataset_of,
    random_model,
    row_of,
    scores_of,
    write_embeddings,
)
from review_files import review, write_lines

pytestmark = pytest.mark.slow  # each deletion rebuilds the whole training state


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world") / "store")


def test_world_has_all_traits(world: World) -> None:
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
def test_left_out_matches_deletion(
    world: World, form: str, popularity: bool, sentiment: str, tokens: bool, collaborative: bool
) -> None:
    for user, vote in product(("history", "text", "both"), (True, False)):
        settings = config(
            score_form=form,
            popularity=popularity,
            sentiment=sentiment,
            collaborative=collaborative,
            user=user,
            equal_reviews=vote,
        )
        differences = world.differences(random_model(settings, world.view), tokens)
        assert differences.max() <= TOLERANCE, (
            user,
            vote,
            dict(zip(PAIRS, differences.tolist(), strict=True)),
        )


def test_collaborative_term_of_item_subset(tmp_path: Path) -> None:
    """Some pairs and some whole histories consist of other items."""
    items = torch.tensor([item for item in range(ITEMS) if item % 3])
    part = build(tmp_path / "store", items)
    assert 0 < np.isin([item for _, item in PAIRS], items).sum() < len(PAIRS) - 1
    for form in ("cosine", "ratio"):
        model = random_model(config(score_form=form), part.view)
        assert part.differences(model, tokens=False).max() <= TOLERANCE


def test_published_preset_with_running_statistics(world: World) -> None:
    settings = ModelConfig.for_preset("paper")
    assert settings.batch_norm
    assert world.differences(random_model(settings, world.view), tokens=True).max() <= TOLERANCE


def test_prepared_dataset(tmp_path: Path) -> None:
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
    view = TrainView.from_dataset(dataset, store)
    pairs = list(zip(view.pair_user.tolist(), view.pair_item.tolist(), strict=True))
    copied = [pair for pair in pairs if copies_of(dataset, row_of(dataset, *pair))]
    assert copied
    chosen = World.from_dataset(dataset, store, copied + pairs[::4])
    for form, user in product(("cosine", "ratio"), ("history", "both")):
        model = random_model(config(score_form=form, user=user, collaborative=True), chosen.view)
        assert chosen.differences(model, tokens=True).max() <= TOLERANCE


def test_left_out_scores_independent_of_batch(world: World) -> None:
    model = random_model(config(score_form="ratio", user="both", collaborative=True), world.view)
    together = world.left_out(model, tokens=True)
    for number in range(0, len(PAIRS), 3):
        row = slice(number, number + 1)
        fields = ("user", "item", "passage", "rating")
        single = replace(world, pairs=Pairs(*(getattr(world.pairs, field)[row] for field in fields)))
        torch.testing.assert_close(single.left_out(model, tokens=True), together[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tokens", [False, True], ids=["pooled", "tokens"])
@pytest.mark.parametrize("vote", [True, False], ids=["vote", "length"])
@pytest.mark.parametrize("form", ["cosine", "ratio"])
def test_single_passage_left_out_is_exactly_zero(world: World, form: str, vote: bool, tokens: bool) -> None:
    model = random_model(config(score_form=form, equal_reviews=vote, user="both"), world.view)
    scores = scores_of(model, world.view, tokens)
    with torch.no_grad():
        query = scores.interests(world.pairs.user, world.pairs)
        term = scores.document_term(query, world.pairs)
        preference, mass = scores.table.without(world.pairs.item, world.pairs.passage)
    alone = PAIRS.index((4, SINGLE))
    assert query[alone].abs().sum() > 0
    assert term[alone].item() == 0.0
    assert not preference[alone].any()
    assert not mass[alone].any()
    assert term[PAIRS.index((5, DESCRIBED))].item() != 0.0


def test_held_out_splits_do_not_influence_scores(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    rows = [
        row if row.split == 0 else replace(row, text=sentence(rng), time=int(rng.integers(99)), rating=1.0)
        for row in world_rows()
    ]
    changed = dataset_of(rows, USERS, ITEMS, {DESCRIBED: "a description of it", 5: "another"})
    texts = [*world.dataset.passages.text.to_list(), *changed.passages.text.to_list()]
    store = write_embeddings(tmp_path / "store", texts)
    model = random_model(config(user="both"), world.view)
    views = []
    for data in (world.dataset, changed):
        view = TrainView.from_dataset(data, store)
        used = data.passages.text.gather(view.passage_idx)
        lexicon = WordSimilarity(view, used).lexicon(view, 3)
        views.append(view.with_lexicon(lexicon, used))
    assert views[0].lexicon.words == views[1].lexicon.words
    assert torch.equal(views[0].lexicon.vectors, views[1].lexicon.vectors)
    first, second = (export_tables(scores_of(model, view, True)) for view in views)
    for name in ("query", "item", "item_bias"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_effect_on_centre_decreases_with_num_passages(tmp_path: Path) -> None:
    """The effect on scores of recomputing centre and scale decreases with the number of passages."""
    effects = []
    for size in (1, 8):
        rng = np.random.default_rng(1)
        rows = [
            Row(user, item, sentence(rng, 8), time=item)
            for user in range(12 * size)
            for item in rng.choice(10 * size, 6, replace=False).tolist()  # equal number of passages per item
        ]
        dataset = dataset_of(rows, 12 * size, 10 * size)
        store = write_embeddings(tmp_path / str(size), dataset.passages.text.to_list())
        view = TrainView.from_dataset(dataset, store)
        model = random_model(config(user="both"), view)
        frozen = scores_of(model, view, False)
        everyone, passages = view.pooled.mean(0), len(view.pooled)
        moved = []
        for row in range(0, 60, 5):
            pairs = Pairs.from_view(view, torch.tensor([row]))
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
        spread = export_tables(frozen)
        effects.append(float(torch.stack(moved).mean()) / float(np.std(spread.query @ spread.item.T)))
    assert 0 < effects[1] < effects[0] / 4
