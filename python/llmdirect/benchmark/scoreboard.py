"""Scoreboard: DIRECT and its baselines on the same splits, with the same full ranking and metrics.

Settings are chosen on the validation of the first split and then fixed; the test split is measured once.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.rows import (
    ROWS,
    TUNING_METRIC,
    Benchmark,
    Budget,
    row_identity,
    tune,
    validation_metric,
    write_json,
)
from llmdirect.benchmark.table import markdown, plot
from llmdirect.choices import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.common.csr import Csr
from llmdirect.common.files import DiskFullError, digest, write_atomic
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.ranges import Range, check_range
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import TEST, TRAIN, Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.data.resplit import resplit
from llmdirect.data.subsets import active_users, cold_items
from llmdirect.evaluation.protocol import held_out_users, seen_items
from llmdirect.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    holm_correction,
    minimum_detectable_effect,
    sign_flip_p_value,
)
from llmdirect.ranking.metrics import metrics
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank
from llmdirect.store.no_text import open_or_write_store

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
"""Arguments of `resplit` by protocol. leave-last-out and global-time are deterministic: they have one split.
cold-items holds out items (`data.subsets.cold_items`); only these are candidates of the test."""
MIN_INTERACTIONS = {"alpharec": 20}
"""Protocols that drop users with fewer interactions."""
_LIST_LENGTH = 20
_HEAD_SHARE = 0.5
"""Share of the train positives that the most popular items, the head, make up."""

UserMeans: TypeAlias = dict[str, NDArray[np.float64]]
"""By metric, float64 [n] means over splits of each user held out in any; "users" are their indices."""

logger = logging.getLogger(__name__)


def scoreboard(
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    rows: Sequence[str] | None = None,
    splits: int | None = None,
    protocol: str = "direct",
    budget_minutes: float | None = None,
    store: Path | str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Tune, fit and measure DIRECT and its baselines on several splits of a dataset.

    Parameters
    ----------
    dataset
        A prepared dataset, or a file of reviews.
    out
        Folder of results and runs, by default DATASET/scoreboard. What is complete there is not computed
        again, except a hyper-parameter search that had much less time than it would have now.
    rows
        Names in ROWS; all by default.
    splits
        Number of splits, the first of seed 242; by default 3, or 1 where the protocol has one.
    protocol
        Name in PROTOCOLS: how interactions are split.
    budget_minutes
        Time for all hyper-parameter searches together, the parts of a mix included, by default 60, in equal
        shares (the weight of a mix has a tenth of one). What a row leaves goes to those after it.
    store
        Name or folder of the embeddings; the dataset's only store by default.

    Returns
    -------
    {"rows": [{"model", "metrics": {name: {"mean", "low", "high"}}, "ratio_direct", "p_value_vs_direct",
    "head", "tail", "coverage", "megabytes", "validation", "train_left_out", "per_split", "settings",
    "trials", "seconds", "failed"}], …}: means over users of their means over splits, with 95 % bootstrap
    intervals over users; `ratio_direct` is DIRECT's mean over the row's, paired by user; p-values are
    corrected for the number of rows (Holm). A row that failed has its reason in "failed", and nothing else.

    Raises
    ------
    ValueError
        If a row or the protocol is unknown, `splits` does not fit the protocol, or `budget_minutes` is not
        above 0 or has no effect.
    """
    names = list(rows or ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ValueError(f"`rows`: {unknown[0]!r} is unknown; there are {', '.join(ROWS)}")
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol`: {protocol!r} is unknown; there are {', '.join(PROTOCOLS)}")
    if budget_minutes is not None and not budget_minutes > 0:
        raise ValueError(f"`budget_minutes`: {budget_minutes}, expected above 0")
    to_tune = {part for name in names for part in (name, *ROWS[name].parts) if ROWS[part].space}
    if budget_minutes is not None and not to_tune:
        raise ValueError(
            f"`budget_minutes`: has no effect, nothing is tuned for {', '.join(names)}; leave it out, or add "
            "a model to `rows`"
        )
    budget_minutes = 60.0 if budget_minutes is None else budget_minutes
    num_splits = _number_of_splits(splits, protocol)
    full = active_users(open_or_prepare(dataset, progress), MIN_INTERACTIONS.get(protocol, 1))
    folder = Path(out) if out is not None else full.path / "scoreboard"
    benchmark = Benchmark(
        splits=[_split(full, protocol, FIRST_SEED + number) for number in range(num_splits)],
        store=open_or_write_store(full, store),
        out=folder,
        progress=progress,
        budget=Budget(budget_minutes * 60, sum(ROWS[part].share for part in to_tune)),
        cold_items=protocol == "cold-items",
    )
    with single_writer(folder):
        results = {name: _measure_row(benchmark, name) for name in names}
    return _summary(benchmark, full, protocol, results)


def _number_of_splits(splits: int | None, protocol: str) -> int:
    if PROTOCOLS[protocol]["split"] != "random":
        if splits not in (None, 1):
            raise ValueError(f'`splits`: {splits}, but `protocol="{protocol}"` has only one split')
        return 1
    if splits is None:
        return 3
    check_range("splits", splits, Range(1, 100))
    return splits


def _split(dataset: Dataset, protocol: str, seed: int) -> Dataset:
    if protocol == "cold-items":
        return cold_items(dataset, seed=seed)
    return resplit(dataset, seed=seed, **PROTOCOLS[protocol])


def _measure_row(benchmark: Benchmark, name: str) -> list[Json] | str:
    """Results of a row on every split; the reason where it failed."""
    try:
        return [_measure_split(benchmark, name, split) for split in range(len(benchmark.splits))]
    except DiskFullError:  # the others would fail of it, too
        raise
    except Exception as error:
        # Whatever a row fails of, the others are measured, and this one must not silently be missing.
        logger.warning("%s failed: %s", name, error, exc_info=logger.isEnabledFor(logging.DEBUG))
        return f"{type(error).__name__}: {error}"


def _measure_split(benchmark: Benchmark, name: str, split: int) -> Json:
    """Results of a row on one split, from its file where there is one."""
    dataset, tuning = benchmark.splits[split], tune(benchmark, name)
    settings = canonical_json(tuning["settings"])
    parts = (name, row_identity(benchmark, name), settings, dataset.hash, benchmark.store.hash, *METRICS)
    path = benchmark.out / f"{name}-{dataset.manifest['options']['seed']}-{digest(*parts)[:12]}.json"
    if not path.exists():
        write_json(path, _fit_and_measure(benchmark, name, split))
    result: Json = json.loads(path.read_bytes())
    # The trials of the present search: a longer one may have ended at the same settings.
    search_seconds = tuning["seconds"] if split == 0 else 0.0
    return result | {"trials": tuning["trials"], "seconds": round(result["seconds"] + search_seconds, 2)}


def _fit_and_measure(benchmark: Benchmark, name: str, split: int) -> Json:
    dataset, settings = benchmark.splits[split], tune(benchmark, name)["settings"]
    with benchmark.progress.task(f"{name}, split {split + 1}", None, "") as _:
        started = time.monotonic()
        fitted = ROWS[name].fit(benchmark, split, settings)
        seconds = time.monotonic() - started
    tables = _cold_items_only(fitted.tables, dataset) if benchmark.cold_items else fitted.tables
    return {
        **_test_metrics(tables, dataset),
        "settings": settings,
        "seconds": round(seconds, 2),
        "validation": validation_metric(fitted.tables, dataset),
        "megabytes": round(_megabytes(fitted.tables), 2),
        **fitted.details,
    }


def _test_metrics(tables: ScoreTables, dataset: Dataset) -> Json:
    """Metrics on test by user, the tuning metric on head and on tail items, and catalogue coverage."""
    users, seen = held_out_users(dataset, TEST), seen_items(dataset, TEST)
    items = rank(tables, users, k=_LIST_LENGTH, seen=seen).items
    relevant = dataset.csr(TEST).without(seen)
    by_user = metrics(items, relevant.rows(users), METRICS)
    head = _head_items(dataset)
    subsets = {
        name: metrics(items, _in_items(relevant, mask).rows(users), [TUNING_METRIC])[TUNING_METRIC]
        for name, mask in (("head", head), ("tail", ~head))
    }
    top = items[:, :10]
    return {
        "users": users.tolist(),
        "metrics": {metric: values.tolist() for metric, values in by_user.items()},
        **{name: _mean_of_defined(values) for name, values in subsets.items()},
        "coverage": len(np.unique(top[top >= 0])) / dataset.num_items,
    }


def _cold_items_only(tables: ScoreTables, dataset: Dataset) -> ScoreTables:
    """The same scores, with -inf for all items that have a train interaction."""
    warm = np.isin(np.arange(dataset.num_items), dataset.csr(TRAIN, positive_only=False).indices)
    return replace(tables, item_bias=np.where(warm, -np.inf, np.asarray(tables.item_bias)))


def _mean_of_defined(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _head_items(dataset: Dataset) -> NDArray[np.bool_]:
    """bool [I]: the most popular items, up to their share of the train positives."""
    counts = np.bincount(dataset.csr(TRAIN).indices, minlength=dataset.num_items)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), bool)
    head[order[before < _HEAD_SHARE * counts.sum()]] = True
    return head


def _in_items(table: Csr, items: NDArray[np.bool_]) -> Csr:
    """The entries of a table in some items: a mask [I]."""
    stays = items[table.indices]
    rows = np.repeat(np.arange(table.num_rows), np.diff(table.indptr))
    return Csr.from_pairs(rows[stays], table.indices[stays], table.num_rows)


def _megabytes(tables: ScoreTables) -> float:
    """Size of the score tables in memory."""
    arrays = [tables.query, tables.item, tables.item_mentions, tables.item_bias, tables.user_bias]
    arrays += list(tables.item_item or ())
    return float(sum(array.nbytes for array in arrays if array is not None)) / 1e6


def _summary(
    benchmark: Benchmark, full: Dataset, protocol: str, results: Mapping[str, list[Json] | str]
) -> Json:
    """The result of `scoreboard`, written as a table and as a plot too."""
    completed = {name: entries for name, entries in results.items() if not isinstance(entries, str)}
    per_user = {name: _user_means(entries) for name, entries in completed.items()}
    table: list[Json] = [
        {"model": name, "failed": entries} if isinstance(entries, str) else _row(name, entries, per_user)
        for name, entries in results.items()
    ]
    p_values = {name: _p_value(name, per_user) for name in completed}
    corrected = holm_correction({name: value for name, value in p_values.items() if value is not None})
    for row in table:
        row["p_value_vs_direct"] = corrected.get(row["model"])
    result: Json = {
        "rows": table,
        "dataset": str(full.path),
        "encoder": benchmark.store.encoder.get("id"),
        "protocol": protocol,
        "splits": len(benchmark.splits),
        "num_users": len(next(iter(per_user.values()))["users"]) if per_user else 0,
        "num_items": full.num_items,
        "metrics": list(METRICS),
        "positive": full.manifest["options"]["positive"] or "every interaction",
        "detectable": _minimum_detectable(per_user),
        "out": str(benchmark.out),
        "markdown": str(benchmark.out / "scoreboard.md"),
        "plot": str(benchmark.out / "scoreboard.svg"),
    }
    _write_text(benchmark.out / "scoreboard.md", markdown(result))
    _write_text(benchmark.out / "scoreboard.svg", plot(result))
    return result


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _row(name: str, results: list[Json], per_user: Mapping[str, UserMeans]) -> Json:
    means, direct = per_user[name], per_user.get("direct") if name != "direct" else None
    left_out = [result["train_left_out"] for result in results if "train_left_out" in result]

    def average(key: str) -> float | None:
        values = [result[key] for result in results if result[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "model": name,
        "failed": None,
        "metrics": {metric: bootstrap_mean(means[metric]) for metric in METRICS},
        "ratio_direct": bootstrap_ratio(direct[TUNING_METRIC], means[TUNING_METRIC]) if direct else None,
        "head": average("head"),
        "tail": average("tail"),
        "coverage": average("coverage"),
        "megabytes": average("megabytes"),
        "validation": average("validation"),
        "train_left_out": float(np.mean(left_out)) if left_out else None,
        "per_split": [float(np.mean(result["metrics"][TUNING_METRIC])) for result in results],
        "settings": results[0]["settings"],
        "trials": results[0]["trials"],
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }


def _p_value(name: str, per_user: Mapping[str, UserMeans]) -> float | None:
    if name == "direct" or "direct" not in per_user:
        return None
    return sign_flip_p_value(per_user["direct"][TUNING_METRIC], per_user[name][TUNING_METRIC])


def _minimum_detectable(per_user: Mapping[str, UserMeans]) -> float | None:
    """Minimum detectable effect of DIRECT against the best other row."""
    others = {name: means for name, means in per_user.items() if name != "direct"}
    if "direct" not in per_user or not others:
        return None
    best = max(others.values(), key=lambda means: float(means[TUNING_METRIC].mean()))
    return minimum_detectable_effect(per_user["direct"][TUNING_METRIC], best[TUNING_METRIC])


def _user_means(results: Sequence[Json]) -> UserMeans:
    """Means over splits of each user held out in any of them."""
    all_users = np.concatenate([np.asarray(result["users"]) for result in results])
    users, position = np.unique(all_users, return_inverse=True)
    means: UserMeans = {"users": users.astype(np.float64)}
    for metric in METRICS:
        values = np.concatenate([np.asarray(result["metrics"][metric]) for result in results])
        means[metric] = np.bincount(position, values) / np.bincount(position)
    return means
