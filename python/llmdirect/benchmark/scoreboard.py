"""DIRECT beside what a user could have instead: same splits, same full ranking, same metrics.

Settings are chosen on the validation of the first split and then fixed; the test split is looked at once.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.rows import ROWS, TUNED_ON, Board, Budget, made_of, tuned, validation
from llmdirect.benchmark.table import markdown, plot
from llmdirect.common.csr import Csr
from llmdirect.common.files import digest, write_atomic
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import TEST, TRAIN, Dataset
from llmdirect.data.defaults import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.data.prepare import open_or_prepare
from llmdirect.data.resplit import resplit
from llmdirect.data.subsets import active_users, cold_items
from llmdirect.evaluation.protocol import held_out_users, seen_before
from llmdirect.evaluation.statistics import detectable, holm, interval, p_value, ratio
from llmdirect.ranking.metrics import metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.store.store import open_store

METRICS = ("ndcg@10", "recall@20", "hit_rate@10", "mrr@10")
FIRST_SEED = DEFAULT_SEED
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "direct": {"split": "random", "fractions": DEFAULT_FRACTIONS},
    "mmrec": {"split": "random", "fractions": (0.8, 0.1, 0.1)},
    "alpharec": {"split": "random", "fractions": (0.4, 0.3, 0.3)},
    "leave-last-out": {"split": "leave-last-out"},
    "global-time": {"split": "global-time", "fractions": DEFAULT_FRACTIONS},
    "cold-items": {"split": "random"},
}
"""How the interactions are divided. leave-last-out and global-time do so in one way: they have one split.
cold-items holds out items as `dataset_parts.cold_items` does; these alone are candidates of the test."""
ACTIVE = {"alpharec": 20}
"""Protocols that keep users with so many interactions alone."""
_LONGEST = 20
_HEAD = 0.5
"""Share of the train positives that the most popular items, the head, make up."""

logger = logging.getLogger(__name__)


def scoreboard(
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    rows: Sequence[str] | None = None,
    splits: int | None = None,
    protocol: str = "direct",
    budget_minutes: float = 60,
    store: Path | str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Tunes, fits and ranks every row on `splits` splits, the first of seed 242.

    out: where figures and runs are kept, by default DATASET/scoreboard; what is there already is not made
    again, but for a search that had far less time than it would have now. rows: some of ROWS. splits: 3 if
    not given, 1 where the protocol has one. budget_minutes: for the tuning of all rows together, and of the
    parts of a mix, in equal shares (the weight of a mix has a tenth of one); what a row leaves goes to those
    after it.

    Returns {"rows": [{"model", "metrics": {name: {"mean", "low", "high"}}, "ratio_direct",
    "p_value_vs_direct", "head", "tail", "coverage", "megabytes", "validation", "train_left_out", "per_split",
    "settings", "trials", "seconds", "failed"}], …}: means over users of their means over splits, 95 %
    intervals by bootstrap over users; `ratio_direct` is DIRECT's mean over the row's, paired; p-values are
    corrected for their number (Holm). A row that failed has its reason in "failed", and nothing else.
    Raises ValueError for an unknown row or protocol.
    """
    wanted = list(rows or ROWS)
    unknown = [name for name in wanted if name not in ROWS]
    if unknown:
        raise ValueError(f"--rows: {unknown[0]!r} is unknown; there are {', '.join(ROWS)}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"--protocol: {protocol!r} is unknown; there are {', '.join(PROTOCOLS)}")
    if not budget_minutes > 0:
        raise ValueError(f"--budget-minutes: {budget_minutes}, expected above 0")
    number = _number_of_splits(splits, protocol)
    found = active_users(open_or_prepare(dataset, progress), ACTIVE.get(protocol, 1))
    seeded = [_split(found, protocol, FIRST_SEED + n) for n in range(number)]
    folder = Path(out) if out is not None else found.path / "scoreboard"
    to_tune = {part for name in wanted for part in (name, *ROWS[name].parts) if ROWS[part].space}
    budget = Budget(budget_minutes * 60, sum(ROWS[part].share for part in to_tune))
    cold = protocol == "cold-items"
    board = Board(seeded, open_store(found.path, store), folder, progress, budget, cold)
    with single_writer(folder):
        measured = {name: _measured(board, name) for name in wanted}
    return _result(board, found, protocol, measured)


def _number_of_splits(splits: int | None, protocol: str) -> int:
    if PROTOCOLS[protocol]["split"] != "random":
        if splits not in (None, 1):
            raise ValueError(f"--splits: {splits}, but --protocol {protocol} divides in one way alone")
        return 1
    if splits is not None and splits < 1:
        raise ValueError(f"--splits: {splits}, expected at least 1")
    return splits or 3


def _split(dataset: Dataset, protocol: str, seed: int) -> Dataset:
    if protocol == "cold-items":
        return cold_items(dataset, seed=seed)
    return resplit(dataset, seed=seed, **PROTOCOLS[protocol])


def _measured(board: Board, name: str) -> list[Json] | str:
    """The row's figures on every split; the reason where it failed."""
    try:
        return [_on_split(board, name, number) for number in range(len(board.splits))]
    except Exception as error:
        # Whatever a row dies of, the others are wanted, and this one must not silently be missing.
        logger.warning("%s failed: %s", name, error, exc_info=logger.isEnabledFor(logging.DEBUG))
        return f"{type(error).__name__}: {error}"


def _on_split(board: Board, name: str, number: int) -> Json:
    """The row's figures on one split, read where they are kept, else made and kept."""
    dataset, found = board.splits[number], tuned(board, name)
    settings = canonical_json(found["settings"])
    identity = digest(name, made_of(board, name), settings, dataset.hash, board.store.hash, *METRICS)[:12]
    path = board.out / f"{name}-{dataset.manifest['options']['seed']}-{identity}.json"
    if not path.exists():
        _write(path, canonical_json(_fitted(board, name, number)) + "\n")
    kept: Json = json.loads(path.read_bytes())
    # Those of the search that is told now: a longer one may have ended at the same settings.
    searched = found["seconds"] if number == 0 else 0.0
    return kept | {"trials": found["trials"], "seconds": round(kept["seconds"] + searched, 2)}


def _fitted(board: Board, name: str, number: int) -> Json:
    dataset, settings = board.splits[number], tuned(board, name)["settings"]
    with board.progress.task(f"{name}, split {number + 1}", None, "") as _:
        started = time.monotonic()
        fitted = ROWS[name].fit(board, number, settings)
        seconds = time.monotonic() - started
    return {
        **_figures(_of_cold_items(fitted.tables, dataset) if board.cold else fitted.tables, dataset),
        "settings": settings,
        "seconds": round(seconds, 2),
        "validation": validation(fitted.tables, dataset),
        "megabytes": round(_megabytes(fitted.tables), 2),
        **fitted.details,
    }


def _figures(tables: ScoreTables, dataset: Dataset) -> Json:
    """Of the test split: every metric by user, NDCG where head or tail items alone are relevant, coverage."""
    users, seen = held_out_users(dataset, TEST), seen_before(dataset, TEST)
    lists = rank(tables, users, k=_LONGEST, seen=seen)
    relevant = dataset.csr(TEST).without(seen)
    by_user = metrics(lists.items, relevant.rows(users), METRICS)
    head = _is_head(dataset)
    parts = {
        part: metrics(lists.items, _only(relevant, chosen).rows(users), [TUNED_ON])[TUNED_ON]
        for part, chosen in (("head", head), ("tail", ~head))
    }
    return {
        "users": users.tolist(),
        "metrics": {metric: values.tolist() for metric, values in by_user.items()},
        **{part: _mean_of_defined(values) for part, values in parts.items()},
        "coverage": len(np.unique(lists.items[:, :10][lists.items[:, :10] >= 0])) / dataset.num_items,
    }


def _of_cold_items(tables: ScoreTables, dataset: Dataset) -> ScoreTables:
    """The same scores, with all items that train knows behind those that it does not."""
    warm = np.isin(np.arange(dataset.num_items), dataset.csr(TRAIN, positive_only=False).indices)
    return replace(tables, item_bias=np.where(warm, -np.inf, np.asarray(tables.item_bias)))


def _mean_of_defined(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _is_head(dataset: Dataset) -> NDArray[np.bool_]:
    """bool [I]: the most popular items, until they have their share of the train positives."""
    counts = np.bincount(dataset.csr(TRAIN).indices, minlength=dataset.num_items)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), bool)
    head[order[before < _HEAD * counts.sum()]] = True
    return head


def _only(table: Csr, chosen: NDArray[np.bool_]) -> Csr:
    kept = chosen[table.indices]
    rows = np.repeat(np.arange(table.num_rows), np.diff(table.indptr))
    return Csr.from_pairs(rows[kept], table.indices[kept], table.num_rows)


def _megabytes(tables: ScoreTables) -> float:
    """What ranking holds in memory."""
    arrays = [tables.query, tables.item, tables.item_mentions, tables.item_bias, tables.user_bias]
    arrays += list(tables.item_item or ())
    return float(sum(array.nbytes for array in arrays if array is not None)) / 1e6


def _result(board: Board, found: Dataset, protocol: str, measured: Mapping[str, list[Json] | str]) -> Json:
    ended = {name: entries for name, entries in measured.items() if not isinstance(entries, str)}
    per_user = {name: _user_means(entries) for name, entries in ended.items()}
    table: list[Json] = [
        {"model": name, "failed": entries} if isinstance(entries, str) else _row(name, entries, per_user)
        for name, entries in measured.items()
    ]
    p_values = {name: _p_value(name, per_user) for name in ended}
    corrected = holm({name: value for name, value in p_values.items() if value is not None})
    for row in table:
        row["p_value_vs_direct"] = corrected.get(row["model"])
    options = found.manifest["options"]
    result: Json = {
        "rows": table,
        "dataset": str(found.path),
        "encoder": board.store.encoder.get("id"),
        "protocol": protocol,
        "splits": len(board.splits),
        "num_users": len(next(iter(per_user.values()))["users"]) if per_user else 0,
        "num_items": found.num_items,
        "metrics": list(METRICS),
        "positive": options["positive"] or "every interaction",
        "detectable": _detectable(per_user),
        "out": str(board.out),
        "markdown": str(board.out / "scoreboard.md"),
        "plot": str(board.out / "scoreboard.svg"),
    }
    _write(board.out / "scoreboard.md", markdown(result))
    _write(board.out / "scoreboard.svg", plot(result))
    return result


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _row(name: str, entries: list[Json], per_user: Mapping[str, dict[str, NDArray[np.float64]]]) -> Json:
    means, direct = per_user[name], per_user.get("direct")
    compared = direct is not None and name != "direct"
    left_out = [entry["train_left_out"] for entry in entries if "train_left_out" in entry]

    def average(key: str) -> float | None:
        values = [entry[key] for entry in entries if entry[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "model": name,
        "failed": None,
        "metrics": {metric: interval(means[metric]) for metric in METRICS},
        "ratio_direct": ratio(direct[TUNED_ON], means[TUNED_ON]) if direct is not None and compared else None,
        "head": average("head"),
        "tail": average("tail"),
        "coverage": average("coverage"),
        "megabytes": average("megabytes"),
        "validation": average("validation"),
        "train_left_out": float(np.mean(left_out)) if left_out else None,
        "per_split": [float(np.mean(entry["metrics"][TUNED_ON])) for entry in entries],
        "settings": entries[0]["settings"],
        "trials": entries[0]["trials"],
        "seconds": round(sum(entry["seconds"] for entry in entries), 1),
    }


def _p_value(name: str, per_user: Mapping[str, dict[str, NDArray[np.float64]]]) -> float | None:
    if name == "direct" or "direct" not in per_user:
        return None
    return p_value(per_user["direct"][TUNED_ON], per_user[name][TUNED_ON])


def _detectable(per_user: Mapping[str, dict[str, NDArray[np.float64]]]) -> float | None:
    """Of DIRECT against the best other row."""
    others = {name: means for name, means in per_user.items() if name != "direct"}
    if "direct" not in per_user or not others:
        return None
    best = max(others.values(), key=lambda means: float(means[TUNED_ON].mean()))
    return detectable(per_user["direct"][TUNED_ON], best[TUNED_ON])


def _user_means(entries: Sequence[Json]) -> dict[str, NDArray[np.float64]]:
    """By metric: float64 [users held out in any split] means over splits; and "users", their indices."""
    users = np.concatenate([np.asarray(entry["users"]) for entry in entries])
    known, place = np.unique(users, return_inverse=True)
    means: dict[str, NDArray[np.float64]] = {"users": known.astype(np.float64)}
    for metric in METRICS:
        values = np.concatenate([np.asarray(entry["metrics"][metric]) for entry in entries])
        means[metric] = np.bincount(place, values) / np.bincount(place)
    return means
