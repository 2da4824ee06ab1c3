"""Measurement of a row on the test of each split, kept in a file."""

import json
import logging
import time
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.benchmark import METRIC, Benchmark, FittedRow, write_json
from llmdirect.benchmark.tuning import finalists, row_identity, tune
from llmdirect.common.csr import Csr
from llmdirect.common.files import DiskFullError, digest
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import TEST, TRAIN, Dataset
from llmdirect.ranking.metrics import metrics

METRICS: Final = ("ndcg@10", "recall@20", "hit_rate@10", "mrr@10")
_LIST_LENGTH: Final = 20
_TOP: Final = 10
"""Length of the lists whose coverage, Gini index, novelty and diversity are measured."""
_HEAD_SHARE: Final = 0.5
"""Share of the train positives that the most popular items, the head, make up."""

logger = logging.getLogger(__name__)


def measure_row(benchmark: Benchmark, name: str) -> list[Json] | str:
    """Results of a row on every split; the reason where it failed or the dataset lacks what it needs."""
    if missing := benchmark.rows[name].needs - benchmark.kinds:
        return f"needs {' and '.join(sorted(missing))}, which the dataset lacks"
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
    settings = canonical_json({"finalists": finalists(benchmark, name)})
    key = digest(
        row_identity(benchmark, name),
        settings,
        benchmark.splits[split].hash,
        benchmark.store.hash,
        benchmark.users,
        *METRICS,
    )[:12]
    path = benchmark.out / f"{name}-{benchmark.protocol}-{split}-{key}.json"
    if not path.exists():
        write_json(path, _fit_and_measure(benchmark, name, split))
    result: Json = json.loads(path.read_bytes())
    return result


def _fit_and_measure(benchmark: Benchmark, name: str, split: int) -> Json:
    queries = benchmark.queries(split, TEST)
    with benchmark.progress.task(f"{name}, split {split + 1}", None, "") as _:
        started = time.monotonic()
        fitted, settings, validation = _fit_best(benchmark, name, split)
        seconds = time.monotonic() - started
        top = fitted.model.top(queries, _LIST_LENGTH, benchmark.candidates(split, TEST))
    return {
        "users": queries.users.tolist(),
        **list_metrics(top, queries.relevant, benchmark.splits[split]),
        "settings": settings,
        "seconds": round(seconds, 2),
        "validation": validation,
        **fitted.details,
    }


def _fit_best(benchmark: Benchmark, name: str, split: int) -> tuple[FittedRow, Json, float]:
    """Row with the settings, among the finalists, that rank best on the validation of the split."""
    row, known = benchmark.rows[name], {}
    for trial in tune(benchmark, name)["trials"]:
        if split < len(trial.get("values", ())):
            known[canonical_json(trial["settings"])] = trial["values"][split]
    best: tuple[float, Json, FittedRow | None] | None = None
    for settings in finalists(benchmark, name):
        value, fitted = known.get(canonical_json(settings)), None
        if value is None:
            fitted = row.fit(benchmark, split, settings)
            value = benchmark.validation(fitted.model, split)
        if best is None or value > best[0]:
            best = value, settings, fitted
    assert best is not None
    value, settings, fitted = best
    return fitted or row.fit(benchmark, split, settings), settings, value


def list_metrics(top: NDArray[np.int32], relevant: Csr, dataset: Dataset) -> Json:
    """Metrics of each user, and of the lists as a whole.

    Parameters
    ----------
    top
        int32 [B, 20] lists.
    relevant
        B rows of held-out positives that are candidates.

    Returns
    -------
    "metrics" (float [B] by name), "head" and "tail" (the tuning metric where only popular items, or only
    the others, are relevant), and of the top ten: "coverage" (share of the items in any list), "gini" (of
    how often items are listed), "novelty" (mean of -log2 of the share of users who have an item, in bits)
    and "diversity" (1 - mean cosine similarity of the users of two items of a list).
    """
    by_user = metrics(top, relevant, METRICS)
    head = _head_items(dataset)
    subsets = {
        name: metrics(top, _in_items(relevant, mask), [METRIC])[METRIC]
        for name, mask in (("head", head), ("tail", ~head))
    }
    listed = top[:, :_TOP]
    return {
        "metrics": {metric: values.tolist() for metric, values in by_user.items()},
        **{name: _mean_of_defined(values) for name, values in subsets.items()},
        **_list_properties(listed, dataset),
    }


def _list_properties(top: NDArray[np.int32], dataset: Dataset) -> Json:
    from scipy.sparse import csr_array

    train = dataset.csr(TRAIN)
    exposure = np.bincount(top[top >= 0], minlength=dataset.num_items)
    ascending, total = np.sort(exposure), max(int(exposure.sum()), 1)
    position = np.arange(1, len(ascending) + 1)
    gini = float((2 * position - len(ascending) - 1) @ ascending) / (len(ascending) * total)
    popularity = np.bincount(train.indices, minlength=dataset.num_items)
    information = -np.log2((popularity + 1) / (dataset.num_users + 1))
    matrix = csr_array(
        (np.ones(len(train.indices)), train.indices, train.indptr),
        shape=(dataset.num_users, dataset.num_items),
    )
    lengths = np.sqrt(popularity.clip(1))
    directions = matrix.multiply(1 / lengths[None, :]).T.tocsr()
    similarities = []
    for row in top[:: max(1, len(top) // 1000)]:  # a thousand lists say it well enough
        items = row[row >= 0]
        if len(items) > 1:
            gram = (directions[items] @ directions[items].T).toarray()
            similarities.append((gram.sum() - np.trace(gram)) / (len(items) * (len(items) - 1)))
    return {
        "coverage": float((exposure > 0).mean()),
        "gini": gini,
        "novelty": float(information[top[top >= 0]].mean()) if (top >= 0).any() else None,
        "diversity": 1 - float(np.mean(similarities)) if similarities else None,
    }


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
