"""Figures of a scoreboard: means, intervals and comparisons over users."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect.benchmark.benchmark import METRIC, Benchmark
from llmdirect.benchmark.measure import METRICS
from llmdirect.benchmark.rows import OURS
from llmdirect.benchmark.table import markdown, plot
from llmdirect.common.files import write_atomic
from llmdirect.common.types import Json
from llmdirect.data.dataset import TEST, Dataset
from llmdirect.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    holm_correction,
    minimum_detectable_effect,
    sign_flip_p_value,
)

_MEANS: Final = ("head", "tail", "coverage", "gini", "novelty", "diversity", "validation", "train_left_out")
UserMeans: TypeAlias = dict[str, NDArray[np.float64]]
"""By metric, float64 [n] means over splits of each user measured in any; "users" are their indices."""
Results: TypeAlias = Mapping[str, list[Json] | str]
"""Results of each row on every split, or the reason why there are none."""


def summarise(dataset: Dataset, benchmarks: Mapping[str, Benchmark], results: Mapping[str, Results]) -> Json:
    """The result of `scoreboard`, written as tables, a plot, per-user values and qrels too."""
    first = next(iter(benchmarks.values()))
    names = list(next(iter(results.values())))
    by_protocol = {protocol: _protocol(benchmarks[protocol], results[protocol]) for protocol in benchmarks}
    result: Json = {
        "rows": [
            {
                "model": name,
                "kind": first.rows[name].kind,
                "protocols": {protocol: rows[name] for protocol, (rows, _) in by_protocol.items()},
            }
            for name in names
        ],
        "protocols": {protocol: figures for protocol, (_, figures) in by_protocol.items()},
        "dataset": str(dataset.path),
        "encoder": first.store.encoder.get("id"),
        "num_items": dataset.num_items,
        "metrics": list(METRICS),
        "positive": dataset.manifest["options"]["positive"] or "every interaction",
        "users": first.users,
        "query_time": first.query_time,
        "minutes": first.tuning_seconds * len(benchmarks) / 60,
        "out": str(first.out),
        "markdown": str(first.out / "scoreboard.md"),
        "plot": str(first.out / "scoreboard.svg"),
        "per_user": str(first.out / "per_user.parquet"),
    }
    _write_text(first.out / "scoreboard.md", markdown(result))
    _write_text(first.out / "scoreboard.svg", plot(result))
    _write_per_user(first.out / "per_user.parquet", dataset, benchmarks, results)
    for benchmark in benchmarks.values():
        _write_qrels(benchmark)
    return result


def _protocol(benchmark: Benchmark, results: Results) -> tuple[dict[str, Json], Json]:
    """Figures of each row, and of the protocol as a whole."""
    completed = {name: entries for name, entries in results.items() if not isinstance(entries, str)}
    per_user = {name: user_means(entries) for name, entries in completed.items()}
    p_values = {name: _p_value(name, per_user) for name in completed}
    corrected = holm_correction({name: value for name, value in p_values.items() if value is not None})
    rows = {
        name: {"failed": entries}
        if isinstance(entries, str)
        else {**_row(benchmark, name, entries, per_user), "p_value": corrected.get(name)}
        for name, entries in results.items()
    }
    queries = [benchmark.queries(split, TEST) for split in range(len(benchmark.splits))]
    best = _best_other(benchmark, per_user)
    ratio = _ratio(per_user, best) if best else None
    figures: Json = {
        "splits": len(benchmark.splits),
        "num_users": len(next(iter(per_user.values()))["users"]) if per_user else 0,
        "num_without_history": int(sum(part.num_without_history for part in queries)),
        "tied_share": _finite(float(np.mean([part.tied_share for part in queries]))),
        "best_other": best,
        "ratio": ratio,
        "verdict": verdict(ratio, best) if best else None,
        "detectable": minimum_detectable_effect(per_user[OURS][METRIC], per_user[best][METRIC])
        if best and OURS in per_user
        else None,
    }
    return rows, figures


def verdict(ratio: dict[str, float] | None, other: str) -> str | None:
    """Comparison of ours with a row, in a sentence that says no more than the interval does."""
    if ratio is None:
        return None
    figures = f"{ratio['mean']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f}) times the NDCG@10 of {other}"
    if ratio["high"] < 1:
        return f"{OURS} is below the best other row: {figures}"
    if ratio["low"] > 1:
        return f"{OURS} is above every other row: {figures}, the best of them"
    return f"no difference between {OURS} and the best other row is shown: {figures}"


def _best_other(benchmark: Benchmark, per_user: Mapping[str, UserMeans]) -> str | None:
    """Best row that is neither ours nor an ablation of ours."""
    others = [name for name in per_user if benchmark.rows[name].kind == "other"]
    if OURS not in per_user or not others:
        return None
    return max(others, key=lambda name: float(per_user[name][METRIC].mean()))


def _ratio(per_user: Mapping[str, UserMeans], name: str) -> dict[str, float] | None:
    return bootstrap_ratio(per_user[OURS][METRIC], per_user[name][METRIC])


def _row(benchmark: Benchmark, name: str, results: list[Json], per_user: Mapping[str, UserMeans]) -> Json:
    means, tuning = per_user[name], benchmark.tuning[name]

    def average(key: str) -> float | None:
        values = [result[key] for result in results if result.get(key) is not None]
        return float(np.mean(values)) if values else None

    return {
        "failed": None,
        "metrics": {metric: bootstrap_mean(means[metric]) for metric in METRICS},
        "ratio": _ratio(per_user, name) if OURS in per_user and name != OURS else None,
        **{key: average(key) for key in _MEANS},
        "per_split": [float(np.nanmean(result["metrics"][METRIC])) for result in results],
        "settings": [result["settings"] for result in results],
        "trials": len(tuning["trials"]),
        "at_border": tuning["at_border"],
        "tuning_seconds": tuning["seconds"],
        "seconds": round(sum(result["seconds"] for result in results), 1),
    }


def _p_value(name: str, per_user: Mapping[str, UserMeans]) -> float | None:
    if name == OURS or OURS not in per_user:
        return None
    return sign_flip_p_value(per_user[OURS][METRIC], per_user[name][METRIC])


def user_means(results: Sequence[Json]) -> UserMeans:
    """Means over splits of each user measured in any of them."""
    all_users = np.concatenate([np.asarray(result["users"]) for result in results])
    values = {m: np.concatenate([np.asarray(r["metrics"][m], float) for r in results]) for m in METRICS}
    defined = ~np.isnan(values[METRIC])
    users, position = np.unique(all_users[defined], return_inverse=True)
    means: UserMeans = {"users": users.astype(np.float64)}
    for metric in METRICS:
        means[metric] = np.bincount(position, values[metric][defined]) / np.bincount(position)
    return means


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _write_per_user(
    path: Path, dataset: Dataset, benchmarks: Mapping[str, Benchmark], results: Mapping[str, Results]
) -> None:
    """Table of the metrics of each user, row, protocol and split."""
    frames = []
    for protocol, rows in results.items():
        user_ids = pl.Series(benchmarks[protocol].splits[0].user_ids, dtype=pl.String)
        for name, entries in rows.items():
            for split, result in enumerate([] if isinstance(entries, str) else entries):
                frames.append(
                    pl.DataFrame({metric: result["metrics"][metric] for metric in METRICS}).select(
                        pl.lit(protocol).alias("protocol"),
                        pl.lit(split).alias("split"),
                        pl.lit(name).alias("model"),
                        user_ids.gather(result["users"]).alias("user_id"),
                        *METRICS,
                    )
                )
    if frames:
        write_atomic(path, pl.concat(frames).write_parquet)


def _write_qrels(benchmark: Benchmark) -> None:
    """TREC qrels of each test split: ``user_id 0 item_id 1``."""
    from llmdirect.ranking.ranked_lists import write_qrels

    for split, dataset in enumerate(benchmark.splits):
        queries = benchmark.queries(split, TEST)
        path = benchmark.out / f"qrels-{benchmark.protocol}-{split}.trec"
        write_qrels(path, queries.users, queries.relevant, dataset.user_ids, dataset.item_ids)
