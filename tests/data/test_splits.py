"""Duplicates, k-core and splits against naive references."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdirect.data.dataset import TEST, TRAIN, VALID, Dataset
from llmdirect.data.filtering import k_core_mask
from llmdirect.data.prepare import prepare
from llmdirect.data.splits import random_quotas, split_by_time
from llmdirect.text.duplicates import connected_groups, normalize_text
from review_files import Record, random_reviews, review, write_lines

Rows = dict[tuple[str, str], dict[str, Any]]


def prepared(folder: Path, records: Iterable[Record], name: str = "out", **options: Any) -> Dataset:
    raw = write_lines(folder / f"{name}.jsonl", records)
    prepare(raw, folder / name, overwrite=True, **options)
    return Dataset.open(folder / name)


def by_pair(dataset: Dataset) -> Rows:
    """Interaction by (user id, item id); asserts that pairs are unique."""
    rows = dataset.interactions
    interactions: Rows = {}
    for n in range(len(rows)):
        pair = dataset.user_ids[rows.user_idx[n]], dataset.item_ids[rows.item_idx[n]]
        assert pair not in interactions
        passage = int(rows.passage_idx[n])
        assert dataset.passages.user_idx[passage] == rows.user_idx[n]
        assert dataset.passages.item_idx[passage] == rows.item_idx[n]
        assert dataset.passages.split[passage] == rows.split[n]
        interactions[pair] = {
            "text": dataset.passages.text[passage],
            "rating": float(rows.rating[n]),
            "time": int(rows.timestamp[n]),
            "split": int(rows.split[n]),
        }
    return interactions


def splits_of(dataset: Dataset) -> dict[tuple[str, str], int]:
    return {pair: row["split"] for pair, row in by_pair(dataset).items()}


def per_user(splits: dict[tuple[str, str], int]) -> dict[str, Counter[int]]:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for (user, _), code in splits.items():
        counts[user][code] += 1
    return counts


def distinct_reviews(sizes: Iterable[int], items: int = 60) -> list[Record]:
    """Users with these numbers of reviews; texts are unique."""
    rng = random.Random(5)
    return [
        review(f"u{user}", f"i{item}", f"text {user} {item}", time=10 * position, rating=3)
        for user, size in enumerate(sizes)
        for position, item in enumerate(rng.sample(range(items), size))
    ]


# --- duplicates and k-core ---


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from("xyz"),
            st.none() | st.integers(0, 3),
            st.integers(0, 9),
        ),
        min_size=1,
        max_size=25,
    )
)
@settings(deadline=None, max_examples=50)
def test_last_of_duplicate_pairs_is_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int | None, int]]
) -> None:
    """Last by time, with missing times first, then by position in the file."""
    expected: dict[tuple[str, str], int] = {}
    order = sorted(range(len(rows)), key=lambda n: (-1 if rows[n][2] is None else rows[n][2], n))
    for n in order:
        expected[rows[n][:2]] = n
    records = [review(u, i, f"text {n}", time=time, rating=r) for n, (u, i, time, r) in enumerate(rows)]
    interactions = by_pair(prepared(tmp_path_factory.mktemp("d"), records))
    assert {pair: row["text"] for pair, row in interactions.items()} == {
        pair: f"text {n}" for pair, n in expected.items()
    }
    assert {pair: row["rating"] for pair, row in interactions.items()} == {
        pair: rows[n][3] for pair, n in expected.items()
    }


def naive_k_core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    """Repeatedly remove one interaction of a user or item with fewer than k."""
    left = list(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        weak = next((pair for pair in left if users[pair[0]] < k or items[pair[1]] < k), None)
        if weak is None:
            return left
        left.remove(weak)


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=45), st.integers(0, 4))
def test_k_core(pairs: set[tuple[int, int]], k: int) -> None:
    ordered = sorted(pairs)
    table = np.array(ordered, dtype=np.uint32).reshape(-1, 2)
    keep, _ = k_core_mask(table[:, 0], table[:, 1], k)
    assert [pair for pair, stays in zip(ordered, keep, strict=True) if stays] == naive_k_core(ordered, k)


def test_k_core_counts_pairs_not_rows(tmp_path: Path) -> None:
    """Repeated reviews of a pair are one interaction."""
    core = [review(f"u{n}", f"i{m}") for n in range(2) for m in range(2)]
    dataset = prepared(tmp_path, [*core, review("w", "i0"), review("w", "i0")], k_core=2)
    assert dataset.user_ids == ["u0", "u1"]
    assert dataset.manifest["counts"]["k_core_removed"] == {
        "rounds": 1,
        "interactions": 1,
        "users": 1,
        "items": 0,
    }
    assert dataset.manifest["counts"]["duplicates_dropped"] == 1


# --- copies ---


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=14),
)
def test_copy_groups(rows: list[tuple[int, int]]) -> None:
    """Connected components by merging until convergence."""
    group = list(range(len(rows)))
    changed = True
    while changed:
        changed = False
        for a, b in ((a, b) for a in range(len(rows)) for b in range(len(rows))):
            same = any(x == y >= 0 for x, y in zip(rows[a], rows[b], strict=True))
            if same and group[a] > group[b]:
                group[a], changed = group[b], True
    columns = np.array(rows, dtype=np.int64).T
    assert connected_groups(columns[0], columns[1]).tolist() == group


def test_normalize_text_levels_case_and_white_space() -> None:
    assert (
        normalize_text("  Straße\u00a0\t GUT\n")
        == normalize_text("STRASSE gut")
        != normalize_text("strasse, gut")
    )


SPLIT_OPTIONS = [
    {"split": "random"},
    {"split": "random", "fractions": (0.2, 0.4, 0.4)},
    {"split": "leave-last-out"},
    {"split": "global-time", "fractions": (0.4, 0.3, 0.3)},
]


@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from(SPLIT_OPTIONS))
@settings(deadline=None, max_examples=40)
def test_copies_share_a_split(
    tmp_path_factory: pytest.TempPathFactory, seed: int, texts: int, options: dict[str, Any]
) -> None:
    """Copies by one user or about one item share a split; blank texts are no copies; sizes are limits."""
    raw = random_reviews(seed, users=8, items=12, rows=70, texts=texts)
    raw += [review(f"u{n}", f"i{n}", f"own {n}", time=1) for n in range(8)]  # old reviews for a train split
    rows = by_pair(prepared(tmp_path_factory.mktemp("d"), raw, **options))
    together: dict[Any, set[int]] = defaultdict(set)
    for (user, item), row in rows.items():
        if words := " ".join(row["text"].casefold().split()):
            together["user", user, words].add(row["split"])
            together["item", item, words].add(row["split"])
    assert all(len(splits) == 1 for splits in together.values())
    if options["split"] != "global-time":
        fractions = options.get("fractions", (0.7, 0.1, 0.2))
        for count in per_user({pair: row["split"] for pair, row in rows.items()}).values():
            n = count.total()
            test, valid = (max(1, int(Fraction(str(part)) * n)) for part in (fractions[2], fractions[1]))
            if options["split"] == "leave-last-out":
                test = valid = 1
            room = (test, valid) if n >= 3 else (0, 0)
            assert count[TEST] <= room[0]
            assert count[VALID] <= room[1]


def test_copies_exceeding_size_stay_in_train(tmp_path: Path) -> None:
    """Four of five reviews are copies, while test and valid hold one each."""
    raw = [review("u", f"i{n}", "same", time=n) for n in range(4)] + [review("u", "x", "else", time=9)]
    for options in ({"split": "leave-last-out"}, {"seed": 1}, {"seed": 2}):
        splits = splits_of(prepared(tmp_path, raw, **options))
        assert {code for (_, item), code in splits.items() if item != "x"} == {TRAIN}
        assert splits["u", "x"] == TEST


# --- random ---


def test_random_split_sizes(tmp_path: Path) -> None:
    counts = per_user(splits_of(prepared(tmp_path, distinct_reviews(range(1, 41)))))
    for size in range(1, 41):
        count = counts[f"u{size - 1}"]
        test = max(1, size * 2 // 10) if size >= 3 else 0
        valid = max(1, size // 10) if size >= 3 else 0
        assert (count[TRAIN], count[VALID], count[TEST]) == (size - test - valid, valid, test)


@given(
    st.integers(1, 98).flatmap(lambda test: st.tuples(st.just(test), st.integers(0, 99 - test))),
    st.integers(1, 300),
)
def test_held_out_size_leaves_train_rows(percent: tuple[int, int], size: int) -> None:
    test, valid = percent
    fractions = ((100 - test - valid) / 100, valid / 100, test / 100)
    room_test, room_valid = random_quotas(np.zeros(size, dtype=np.int32), 1, fractions)[0].tolist()
    if size < 3:
        assert (room_test, room_valid) == (0, 0)
        return
    wanted_test, wanted_valid = max(1, size * test // 100), max(1, size * valid // 100) if valid else 0
    assert room_test == min(wanted_test, size - 1)
    assert room_valid == min(wanted_valid, size - 1 - room_test)
    assert room_test + room_valid < size


def test_random_split_depends_only_on_seed_user_and_item(tmp_path: Path) -> None:
    raw = distinct_reviews([3, 8, 15, 30])
    expected = splits_of(prepared(tmp_path, raw))
    shuffled = random.Random(1).sample(raw, len(raw))
    assert splits_of(prepared(tmp_path, shuffled)) == expected
    renumbered = [review("0 first", "0 first"), *raw, *distinct_reviews([0] * 9 + [20])]
    later = splits_of(prepared(tmp_path, renumbered))
    assert {pair: later[pair] for pair in expected} == expected
    rewritten = [{**record, "text": f"new {n}", "time": 5} for n, record in enumerate(raw)]
    assert splits_of(prepared(tmp_path, rewritten)) == expected
    assert splits_of(prepared(tmp_path, raw, seed=243)) != expected


def test_random_split_is_uniform(tmp_path: Path) -> None:
    """Over 200 draws each of ten positions is tested equally often (5 standard deviations)."""
    raw = distinct_reviews([10] * 20)
    tested: Counter[int] = Counter()
    for seed in range(10):
        splits = splits_of(prepared(tmp_path, raw, seed=seed))
        tested.update(n % 10 for n, row in enumerate(raw) if splits[row["user"], row["item"]] == TEST)
    draws, share = 200, 0.2
    for position in range(10):
        assert abs(tested[position] - draws * share) < 5 * (draws * share * (1 - share)) ** 0.5


def test_same_seed_gives_same_bytes(tmp_path: Path) -> None:
    raw = random_reviews(3)
    for name in ("a", "b"):
        prepared(tmp_path, raw, name, seed=9)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]


# --- by time ---


def test_leave_last_out(tmp_path: Path) -> None:
    raw = distinct_reviews([1, 2, 3, 4, 20])
    splits = splits_of(prepared(tmp_path, random.Random(0).sample(raw, len(raw)), split="leave-last-out"))
    for user in range(5):
        rows = [record for record in raw if record["user"] == f"u{user}"]  # oldest first
        codes = [splits[record["user"], record["item"]] for record in rows]
        held_out = [VALID, TEST] if len(rows) >= 3 else []
        assert codes == [TRAIN] * (len(rows) - len(held_out)) + held_out


def test_leave_last_out_after_copies(tmp_path: Path) -> None:
    """The newest is a copy of the oldest and both do not fit, so that the next two are held out."""
    texts = ["same", "b", "c", "d", "Same "]
    raw = [review("u", f"i{n}", text, time=n) for n, text in enumerate(texts)]
    splits = splits_of(prepared(tmp_path, raw, split="leave-last-out"))
    assert [splits["u", f"i{n}"] for n in range(5)] == [TRAIN, TRAIN, VALID, TEST, TRAIN]


@given(
    st.lists(st.integers(0, 12), min_size=5, max_size=40), st.sampled_from([(0.5, 0.2, 0.3), (0.7, 0, 0.3)])
)
def test_global_time_keeps_ties_together(times: list[int], fractions: tuple[float, float, float]) -> None:
    n = len(times)
    alone = np.arange(n)
    split = split_by_time(np.array(times), alone, np.zeros(n, dtype=bool), fractions)
    by_time: dict[int, set[int]] = defaultdict(set)
    for time, code in zip(times, split.tolist(), strict=True):
        by_time[time].add(code)
    assert all(len(codes) == 1 for codes in by_time.values())
    assert np.all(np.diff(split[np.argsort(times, kind="stable")].astype(int)) >= 0)  # codes ascend with time
    num_test = int(Fraction(str(fractions[2])) * n)
    num_valid = int(Fraction(str(fractions[1])) * n)
    newest_first = sorted(times, reverse=True)
    expected_test = sum(time >= newest_first[num_test - 1] for time in times) if num_test else 0
    assert (split == TEST).sum() == expected_test
    if num_test + num_valid:
        assert (split != TRAIN).sum() == sum(time >= newest_first[num_test + num_valid - 1] for time in times)


def test_global_time_of_fractions_of_a_second(tmp_path: Path) -> None:
    """Times are truncated to seconds, so that reviews within one second share a split."""
    raw = [review(f"u{n % 3}", f"i{n}", f"t{n}", time=n / 4) for n in range(40)]
    dataset = prepared(tmp_path, raw, split="global-time")
    rows = dataset.interactions
    borders = [(int(rows.timestamp[rows.split == code].min()), int(rows.timestamp[rows.split == code].max()))
               for code in (TRAIN, VALID, TEST)]  # fmt: skip
    assert borders[0][0] == 0
    assert borders[0][1] < borders[1][0] <= borders[1][1] < borders[2][0]
    assert borders[2][1] == 9
    assert (rows.split == TEST).sum() == 8


def test_global_time_assigns_copies_to_split_of_oldest(tmp_path: Path) -> None:
    raw = [review("u", f"i{n}", f"t{n}", time=n) for n in range(10)]
    raw[9]["text"] = raw[0]["text"]
    splits = splits_of(prepared(tmp_path, raw, split="global-time"))
    assert [splits["u", f"i{n}"] for n in range(10)] == [TRAIN] * 7 + [VALID, TEST, TRAIN]
