"""What each protocol lets a query know, with made-up times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llmdirect.common.errors import DataError
from llmdirect.data.dataset import TEST, TRAIN, VALID, Dataset
from llmdirect.data.prepare import prepare
from llmdirect.data.resplit import resplit, rolling_cut
from llmdirect.evaluation.development import users_of
from llmdirect.evaluation.queries import DAY, build_queries, new_user_queries, protocol_of

START = 1_400_000_000


def make(tmp_path: Path, events: list[tuple[str, str, float]], **options: object) -> Dataset:
    """Dataset of (user, item, day) with a text each."""
    frame = pl.DataFrame(
        {
            "user": [user for user, _, _ in events],
            "item": [item for _, item, _ in events],
            "text": [f"{user} on {item}" for user, item, _ in events],
            "time": [START + int(day * DAY) for _, _, day in events],
        }
    )
    prepare(frame, tmp_path / "data", **options)  # type: ignore[arg-type]
    return Dataset.open(tmp_path / "data")


EVENTS = [
    (f"u{user}", f"i{(user + 3 * day) % 17}", day + user / 100) for user in range(20) for day in range(6)
]


def history(dataset: Dataset, queries: object, row: int) -> list[str]:
    items = queries.items[queries.indptr[row] : queries.indptr[row + 1]]  # type: ignore[attr-defined]
    return [dataset.item_ids[item] for item in items]


def days(dataset: Dataset) -> np.ndarray:
    return (dataset.interactions.timestamp - START) / DAY


def test_leave_last_out_knows_validation_but_not_own_time(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS, split="leave-last-out")
    queries = build_queries(dataset, TEST)
    assert len(queries) == 20
    for row, user in enumerate(queries.users):
        number = int(dataset.user_ids[user][1:])
        expected = [f"i{(number + 3 * day) % 17}" for day in range(5)]
        assert history(dataset, queries, row) == expected
        assert queries.now is not None
        assert (queries.now[row] - START) / DAY == pytest.approx(4 + number / 100, abs=1e-4)
    validation = build_queries(dataset, VALID)
    assert history(dataset, validation, 0) == history(dataset, queries, 0)[:-1]
    assert queries.ages[:5].tolist() == [4, 3, 2, 1, 0]
    at_event = build_queries(dataset, TEST, query_time="event")
    assert at_event.now is not None
    assert (at_event.now - queries.now == DAY).all()
    np.testing.assert_array_equal(at_event.items, queries.items)


def test_no_protocol_reads_held_out_times(tmp_path: Path) -> None:
    """Held-out events are moved in time, within their order: no query changes."""
    for split in ("random", "leave-last-out"):
        dataset = make(tmp_path / split, EVENTS, split=split)
        rows = dataset.interactions
        moved = rows.timestamp.copy()
        last = rows.split == TEST
        moved[last] += 3600 if split == "leave-last-out" else 30 * DAY
        other = replace(dataset, interactions=replace(rows, timestamp=moved))
        one, two = build_queries(dataset, TEST), build_queries(other, TEST)
        for name in ("users", "indptr", "items", "now"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=f"{split} {name}")
        assert one.events is not None
        assert two.events is not None
        np.testing.assert_array_equal(one.events.time, two.events.time)


def test_random_reads_train_alone_and_ends_with_it(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS)
    queries, rows = build_queries(dataset, TEST), dataset.interactions
    train = rows.split == TRAIN
    assert queries.now is not None
    assert (queries.now == rows.timestamp[train].max()).all()
    assert queries.events is not None
    assert len(queries.events.time) == train.sum()
    assert (np.diff(queries.events.time) >= 0).all()
    for row, user in enumerate(queries.users):
        assert sorted(history(dataset, queries, row)) == sorted(
            dataset.item_ids[item] for item in dataset.csr(TRAIN).row(int(user))
        )


def test_global_time_stands_at_the_cut(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS)
    for number in range(5):
        cut = rolling_cut(dataset, number)
        queries, rows = build_queries(cut, TEST), cut.interactions
        first_test = rows.timestamp[rows.split == TEST].min()
        assert queries.now is not None
        assert (queries.now == first_test - 1).all()
        assert queries.events is not None
        assert queries.events.time.max() < first_test
        assert rows.timestamp[rows.split == TRAIN].max() < rows.timestamp[rows.split == VALID].min()
        assert rows.timestamp[rows.split == VALID].max() < first_test
        held_out = {TRAIN, VALID}
        texts = cut.passages.text.filter(pl.Series(np.isin(cut.passages.split, list(held_out))))
        known = {(cut.user_ids[u], cut.item_ids[i]) for u, i, t in _triples(cut) if t < first_test}
        assert {tuple(text.split(" on ")) for text in texts} == known
    windows = [rolling_cut(dataset, number) for number in range(5)]
    tested = [set(days(part)[part.interactions.split == TEST].round(4)) for part in windows]
    assert all(not tested[one] & tested[two] for one in range(5) for two in range(one))
    with pytest.raises(ValueError, match="expected 0 to 4"):
        rolling_cut(dataset, 5)


def _triples(dataset: Dataset) -> list[tuple[int, int, int]]:
    rows = dataset.interactions
    return list(zip(rows.user_idx.tolist(), rows.item_idx.tolist(), rows.timestamp.tolist(), strict=True))


def test_rolling_cut_tests_no_copy_of_an_earlier_text(tmp_path: Path) -> None:
    events = [(f"u{user}", f"i{day}", 10 * day + user) for user in range(10) for day in range(10)]
    frame = pl.DataFrame(
        {
            "user": [user for user, _, _ in events],
            "item": [item for _, item, _ in events],
            "text": [
                f"{user} on {'i0' if item == 'i9' and user < 'u5' else item}" for user, item, _ in events
            ],
            "time": [START + day * DAY for _, _, day in events],
        }
    )
    prepare(frame, tmp_path / "data")
    cut = rolling_cut(Dataset.open(tmp_path / "data"), 4)
    tested = cut.interactions.user_idx[cut.interactions.item_idx == cut.item_ids.index("i9")]
    assert [cut.user_ids[user] for user in tested] == ["u5", "u6", "u7", "u8", "u9"]
    assert cut.extra_seen is not None
    assert len(cut.extra_seen.indices) == 5


def test_ties_of_time_are_broken_at_random_and_reported(tmp_path: Path) -> None:
    """All events of a user at one time: item ids must not say which is the last."""
    events = [(f"u{user}", f"i{item:02}", 5) for user in range(200) for item in range(10)]
    dataset = make(tmp_path, events, split="leave-last-out")
    queries = build_queries(dataset, TEST)
    assert queries.tied_share == 1
    last = queries.relevant.indices
    counts = np.bincount(last, minlength=10)
    assert counts.min() > 5  # 20 expected of each; by item id or file order it would be 200 of one
    assert counts.max() < 45
    assert build_queries(make(tmp_path / "b", EVENTS, split="leave-last-out"), TEST).tied_share == 0


def test_own_split_is_measured_by_its_times(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS)
    rows = dataset.interactions
    place = np.arange(len(rows)) % 6
    in_time = dataset.with_split(np.where(place == 5, TEST, np.where(place == 4, VALID, TRAIN)))
    assert protocol_of(in_time) == "leave-last-out"
    assert len(build_queries(in_time, TEST).items) == 5 * 20
    shuffled = dataset.with_split(np.where(place == 0, TEST, np.where(place == 4, VALID, TRAIN)))
    assert protocol_of(shuffled) == "random"
    assert len(build_queries(shuffled, TEST).items) == 4 * 20


def test_users_without_history_are_counted(tmp_path: Path) -> None:
    events = [*EVENTS, ("late", "i1", 5.5), ("late", "i2", 5.6), ("late", "i3", 5.7)]
    dataset = make(tmp_path, events)
    queries = build_queries(rolling_cut(dataset, 4), TEST)
    assert queries.num_without_history == 1
    assert dataset.user_ids.index("late") not in queries.users


def test_selected_rows_keep_their_histories(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS, split="leave-last-out")
    queries = build_queries(dataset, TEST)
    rows = np.array([7, 2, 19])
    some = queries.select(rows)
    assert some.users.tolist() == queries.users[rows].tolist()
    for position, row in enumerate(rows):
        assert history(dataset, some, position) == history(dataset, queries, int(row))
    weights = some.history(half_life=2.0).toarray()
    newest = some.items[some.indptr[1] - 1]
    assert weights[0, newest] == 1
    assert weights[0].sum() == pytest.approx(sum(0.5 ** (age / 2) for age in range(5)))
    np.testing.assert_array_equal(some.relevant.row(1), queries.relevant.row(2))


def test_new_users_are_ranked_by_their_older_events(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS)
    chosen = np.array([user_id in ("u3", "u4") for user_id in dataset.user_ids])
    queries = new_user_queries(dataset, chosen)
    assert [dataset.user_ids[user] for user in queries.users] == ["u3", "u4"]
    assert history(dataset, queries, 0) == ["i3", "i6", "i9", "i12"]
    assert [dataset.item_ids[item] for item in queries.relevant.row(0)] == ["i1", "i15"]
    with pytest.raises(DataError, match="no new user has 7 positives"):
        new_user_queries(dataset, chosen, minimum=7)


def test_halves_of_users_are_disjoint_and_fixed() -> None:
    ids = [f"user-{number}" for number in range(1000)]
    report, development = users_of("report", ids), users_of("development", ids)
    assert (report ^ development).all()
    assert 430 < report.sum() < 570
    assert users_of("all", ids).all()
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(users_of("report", [ids[n] for n in order]), report[order])


def test_query_time_belongs_to_leave_last_out(tmp_path: Path) -> None:
    dataset = make(tmp_path, EVENTS)
    with pytest.raises(ValueError, match="belongs to leave-last-out"):
        build_queries(dataset, TEST, query_time="event")
    assert resplit(dataset, seed=1, split="leave-last-out").num_users == 20
