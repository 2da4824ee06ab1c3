"""Ranking metrics of recommendation lists."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, index_array
from llmdirect.common.csr import Csr
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank

CUTOFF_METRICS = tuple(_core.list_metric_names())
"""Metrics that take a cutoff, as in "ndcg@10". The other one is "auc"."""


def parse_metric(name: str) -> tuple[str, int | None]:
    """("ndcg", 10) of "ndcg@10", ("auc", None) of "auc"; ValueError that lists the names otherwise."""
    if name == "auc":
        return name, None
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", name, re.ASCII)
    if match is None or match[1] not in CUTOFF_METRICS:
        valid = ", ".join(f"{metric}@K" for metric in CUTOFF_METRICS)
        raise ValueError(f"no metric {name!r}; there are {valid} (K from 1) and auc")
    return match[1], int(match[2])


def metrics(items: ArrayOrTensor, relevant: Csr, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Metrics of lists that are ranked already: one float64 [B] for each name.

    items: [B, k], best first, padded at the end with -1. relevant: B rows, aligned with the lists, so
    `test.without(seen).rows(user_rows)`. A user without relevant items gets NaN.

    Raises ValueError for an unknown name, "auc" (which needs all candidates: `rank` gives it), a cutoff
    beyond k, and a list that holds an item twice.
    """
    names = list(names)
    requests = []
    for name in names:
        metric, cutoff = parse_metric(name)
        if cutoff is None:
            raise ValueError(f"{name} needs all candidates, not a list: give `relevant` to rank()")
        requests.append((metric, cutoff))
    values = _core.list_metrics(index_array("items", items, 2), relevant.checked, requests)
    return {name: values[:, column].copy() for column, name in enumerate(names)}


def evaluate(
    tables: ScoreTables, user_rows: ArrayOrTensor, *, names: Iterable[str], seen: Csr | None, relevant: Csr
) -> dict[str, NDArray[np.float64]]:
    """Ranks once, as long as the largest cutoff asks, and gives every metric by user: float64 [B] each.

    seen, relevant: U rows, as for `rank`. Relevant items that are seen do not count in any metric.
    """
    names = list(names)
    cutoffs = [cutoff for _, cutoff in map(parse_metric, names) if cutoff is not None]
    in_need = relevant if "auc" in names else None
    lists = rank(tables, user_rows, k=max(cutoffs, default=0), seen=seen, relevant=in_need)
    candidates = relevant if seen is None else relevant.without(seen)
    by_list = metrics(
        lists.items, candidates.rows(lists.user_rows), [name for name in names if name != "auc"]
    )
    if lists.auc is not None:
        by_list["auc"] = lists.auc
    return {name: by_list[name] for name in names}


def mean_metrics(per_user: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The mean of each metric over the users for whom it is defined (not NaN); NaN if there are none."""
    means = {}
    for name, values in per_user.items():
        defined = values[~np.isnan(values)]
        means[name] = float(defined.mean()) if defined.size else float("nan")
    return means
