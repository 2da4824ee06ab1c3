"""In-memory splits equal those written by `prepare`."""

from pathlib import Path

import numpy as np
import pytest

from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.common.types import canonical_json
from llmdirect.data.dataset import KINDS, TEST, TRAIN, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.resplit import resplit
from llmdirect.data.subsets import active_users, cold_items, without_users
from llmdirect.evaluation.protocol import seen_items
from review_files import INSTRUMENTS, random_reviews, real, review, write_lines


def assert_same_split(actual: Dataset, written: Dataset) -> None:
    np.testing.assert_array_equal(actual.interactions.split, written.interactions.split)
    np.testing.assert_array_equal(actual.passages.split, written.passages.split)
    for name in ("user_idx", "item_idx", "passage_idx", "rating", "timestamp", "positive"):
        np.testing.assert_array_equal(getattr(actual.interactions, name), getattr(written.interactions, name))
    assert actual.passages.text.to_list() == written.passages.text.to_list()
    assert (actual.user_ids, actual.item_ids) == (written.user_ids, written.item_ids)
    for part in ("options", "counts"):
        assert actual.manifest[part] == written.manifest[part]


OPTIONS = [
    {"seed": 7},
    {"seed": 242, "fractions": (0.4, 0.3, 0.3)},
    {"seed": 242, "split": "leave-last-out"},
    {"seed": 242, "split": "global-time", "fractions": (0.8, 0.1, 0.1)},
]


def for_prepare(options: dict) -> dict:
    """Options without the seed of a split that has none."""
    return {name: value for name, value in options.items() if name != "seed" or "split" not in options}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("data_seed", range(3))
def test_random_data_with_descriptions(tmp_path: Path, options: dict, data_seed: int) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", random_reviews(data_seed))
    metadata = [{"item_id": f"i{n}", "title": f"T{n}"} for n in range(5)]
    metadata += [{"item_id": f"i{n}", "description": f"text number {n}"} for n in range(5, 12)]
    items = write_lines(tmp_path / "items.jsonl", metadata)
    prepare(raw, tmp_path / "a", items=items, positive="rating>=3")
    prepare(raw, tmp_path / "b", items=items, positive="rating>=3", **for_prepare(options))
    split = resplit(Dataset.open(tmp_path / "a"), **options)
    assert (split.interactions.split != Dataset.open(tmp_path / "a").interactions.split).any()
    assert_same_split(split, Dataset.open(tmp_path / "b"))
    assert (split.passages.split[split.passages.kind == 1] == TRAIN).all()


@pytest.fixture(scope="module")
def instruments(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("instruments")
    prepare(real(INSTRUMENTS), folder)
    return Dataset.open(folder)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2]])
def test_real_data(tmp_path: Path, instruments: Dataset, options: dict) -> None:
    prepare(real(INSTRUMENTS), tmp_path / "other", **for_prepare(options))
    assert_same_split(resplit(instruments, **options), Dataset.open(tmp_path / "other"))


def test_resplit_round_trip(tmp_path: Path) -> None:
    prepare(write_lines(tmp_path / "raw.jsonl", random_reviews(1)), tmp_path / "a")
    dataset = Dataset.open(tmp_path / "a")
    before = dataset.interactions.split.copy()
    other = resplit(dataset, seed=1, split="leave-last-out")
    assert_same_split(resplit(other, seed=242), dataset)
    assert resplit(dataset, seed=242) is dataset
    np.testing.assert_array_equal(dataset.interactions.split, before)
    changed = {"fractions": None, "seed": 1, "split": "leave-last-out"}
    assert other.hash == other.manifest["hash"] == digest(dataset.hash, canonical_json(changed))
    assert len({resplit(dataset, seed=seed).hash for seed in range(5)}) == 5
    assert dataset.manifest["hash"] == dataset.hash != other.hash


def test_resplit_errors(tmp_path: Path) -> None:
    raw = write_lines(tmp_path / "raw.jsonl", [review(f"u{n % 4}", f"i{n}") for n in range(12)])
    prepare(raw, tmp_path / "a")
    prepare(raw, tmp_path / "d", passage_unit="document")
    plain, documents = Dataset.open(tmp_path / "a"), Dataset.open(tmp_path / "d")
    with pytest.raises(
        ValueError, match=rf"{tmp_path / 'd'}: its passages are documents, .*`passage_unit=\"document\"`"
    ):
        resplit(documents, seed=1)
    with pytest.raises(ValueError, match="`split`: 'half' is unknown; one of random, leave-last-out, global"):
        resplit(plain, seed=1, split="half")
    with pytest.raises(ValueError, match=r"`seed`: -1, expected 0 to 2\^64 - 1"):
        resplit(plain, seed=-1)
    with pytest.raises(ValueError, match=r"`fractions`: \(0.5, 0.1, 0.1\): .* must add up to 1"):
        resplit(plain, seed=1, fractions=(0.5, 0.1, 0.1))
    with pytest.raises(DataError, match=rf"{tmp_path / 'a'}: `split=\"global-time\"` needs times"):
        resplit(plain, seed=1, split="global-time")


@pytest.mark.parametrize("data_seed", range(3))
def test_active_users_match_prepare(tmp_path: Path, data_seed: int) -> None:
    records = random_reviews(data_seed)
    metadata = [{"item_id": f"i{n}", "description": f"text number {n}"} for n in range(5)]
    items = write_lines(tmp_path / "items.jsonl", metadata)
    prepare(write_lines(tmp_path / "raw.jsonl", records), tmp_path / "a", items=items)
    whole = Dataset.open(tmp_path / "a")
    counts = np.bincount(whole.interactions.user_idx)
    minimum = int(np.median(counts)) + 1
    split = active_users(whole, minimum)
    kept = {whole.user_ids[user] for user in np.flatnonzero(counts >= minimum)}
    assert 0 < len(kept) < whole.num_users
    rest = [record for record in records if record["user"] in kept]
    prepare(write_lines(tmp_path / "rest.jsonl", rest), tmp_path / "b", items=items)
    written = Dataset.open(tmp_path / "b")
    assert (split.user_ids, split.item_ids) == (written.user_ids, written.item_ids)
    assert split.item_titles == written.item_titles
    for name in ("user_idx", "item_idx", "rating", "timestamp", "positive"):
        np.testing.assert_array_equal(getattr(split.interactions, name), getattr(written.interactions, name))
    texts = [dataset.passages.text.gather(dataset.interactions.passage_idx) for dataset in (split, written)]
    assert texts[0].to_list() == texts[1].to_list()
    for dataset in (split, written):
        rows, passages = dataset.interactions, dataset.passages
        np.testing.assert_array_equal(passages.user_idx[rows.passage_idx], rows.user_idx)
        np.testing.assert_array_equal(passages.item_idx[rows.passage_idx], rows.item_idx)
        described = np.flatnonzero(passages.kind == 1)
        assert (passages.user_idx[described] == -1).all()
    assert sorted(split.passages.text.to_list()) == sorted(written.passages.text.to_list())
    np.testing.assert_array_equal(
        resplit(split, seed=5).interactions.split, resplit(written, seed=5).interactions.split
    )
    assert active_users(whole, 1) is whole
    with pytest.raises(DataError, match=r"no user has 1000 interactions, the most is \d+"):
        active_users(whole, 1000)


@pytest.mark.parametrize("data_seed", range(3))
def test_cold_items_have_text_but_no_interaction(tmp_path: Path, data_seed: int) -> None:
    prepare(write_lines(tmp_path / "raw.jsonl", random_reviews(data_seed)), tmp_path / "a")
    whole = Dataset.open(tmp_path / "a")
    split = cold_items(whole, seed=3, share=0.2)
    rows, passages = split.interactions, split.passages
    cold = np.unique(rows.item_idx[rows.split == TEST])
    assert 0 < len(cold) <= 0.2 * whole.num_items
    warm = rows.item_idx[rows.split != TEST]
    assert not np.isin(cold, warm).any()
    # Each review is at most one of: a row of some split, or a text without a user.
    described = np.flatnonzero((passages.kind == KINDS.index("review")) & (passages.user_idx == -1))
    assert (passages.split[described] == TRAIN).all()
    assert np.isin(cold, passages.item_idx[described]).all()
    # Popularity counts these texts, though they have no user.
    nameless = np.bincount(passages.item_idx[described], minlength=whole.num_items)
    np.testing.assert_array_equal(split.popularity(TRAIN)[cold], nameless[cold])
    positives = np.bincount(rows.item_idx[(rows.split == TRAIN) & rows.positive], minlength=whole.num_items)
    np.testing.assert_array_equal(split.popularity(TRAIN) - nameless, positives)
    np.testing.assert_array_equal(
        whole.popularity(TRAIN), np.bincount(whole.csr(TRAIN).indices, minlength=whole.num_items)
    )
    assert not np.isin(described, rows.passage_idx).any()
    np.testing.assert_array_equal(passages.split[rows.passage_idx], rows.split)
    # The test user has no description text of the item and no copy of the review.
    groups = whole.duplicate_ids()
    for row in np.flatnonzero(rows.split == TEST):
        user, item, passage = rows.user_idx[row], rows.item_idx[row], rows.passage_idx[row]
        describing_users = whole.passages.user_idx[described[passages.item_idx[described] == item]]
        assert user not in describing_users
        assert groups[passage] < 0 or (groups == groups[passage]).sum() == 1
    # The remainder equals the ordinary split without its test rows.
    ordinary = resplit(whole, seed=3).interactions
    kept = ~np.isin(ordinary.item_idx, cold) & (ordinary.split != TEST)
    expected = {
        (u, i): s
        for u, i, s in zip(
            ordinary.user_idx[kept], ordinary.item_idx[kept], ordinary.split[kept], strict=True
        )
    }
    not_test = rows.split != TEST
    actual = {
        (u, i): s
        for u, i, s in zip(
            rows.user_idx[not_test], rows.item_idx[not_test], rows.split[not_test], strict=True
        )
    }
    dropped = set(expected) - set(actual)
    assert all(item in passages.item_idx[described] for _, item in dropped)
    assert all(expected[pair] == code for pair, code in actual.items())
    assert split.hash != cold_items(whole, seed=4, share=0.2).hash
    # Each pair with a held-out item is tested or not a candidate.
    seen, tested = seen_items(split, TEST), rows.split == TEST
    candidates = set(zip(rows.user_idx[tested].tolist(), rows.item_idx[tested].tolist(), strict=True))
    of_cold = np.isin(whole.interactions.item_idx, cold)
    hidden = 0
    for user, item in zip(
        whole.interactions.user_idx[of_cold].tolist(),
        whole.interactions.item_idx[of_cold].tolist(),
        strict=True,
    ):
        assert ((user, item) in candidates) != (item in seen.row(user))
        hidden += (user, item) not in candidates
    assert hidden
    assert whole.extra_seen is None
    with pytest.raises(ValueError, match="select the users before items are held out"):
        active_users(split, 1)


def test_held_out_users_are_removed(tmp_path: Path) -> None:
    prepare(write_lines(tmp_path / "raw.jsonl", random_reviews(0)), tmp_path / "a")
    whole = Dataset.open(tmp_path / "a")
    held_out = np.arange(whole.num_users) % 3 == 0
    rest = without_users(whole, held_out)
    rows, passages = rest.interactions, rest.passages
    assert not held_out[rows.user_idx].any()
    assert len(rows) == (~held_out[whole.interactions.user_idx]).sum()
    theirs = held_out[passages.user_idx]
    assert (passages.split[theirs] == TEST).all()
    np.testing.assert_array_equal(passages.split[~theirs], whole.passages.split[~theirs])
    assert rest.hash not in (whole.hash, without_users(whole, ~held_out).hash)
