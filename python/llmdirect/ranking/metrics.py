"""Ranking metrics of recommendation lists."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.common.arrays import ArrayOrTensor, integer_array
from llmdirect.common.csr import Csr
from llmdirect.ranking.scorer import ScoreTables
from llmdirect.ranking.top_k import rank

CUTOFF_METRICS = tuple(_core.list_metric_names())
"""Names of the metrics with a cutoff, as in "ndcg@10". "auc" has none."""


def parse_metric(name: str) -> tuple[str, int | None]:
    """Metric and cutoff of a name: ("ndcg", 10) of "ndcg@10", ("auc", None) of "auc".

    Raises
    ------
    ValueError
        If there is no such metric; the message lists the names.
    """
    if name == "auc":
        return name, None
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", name, re.ASCII)
    if match is None or match[1] not in CUTOFF_METRICS:
        valid = ", ".join(f"{metric}@K" for metric in CUTOFF_METRICS)
        raise ValueError(f"no metric {name!r}; there are {valid} (K from 1) and auc")
    return match[1], int(match[2])


def metrics(items: ArrayOrTensor, relevant: Csr, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Ranking metrics of given lists.

    Parameters
    ----------
    items
        Integers [B, k], best first, padded at the end with -1.
    relevant
        B rows of relevant candidates, aligned with the lists:
        ``test.without(seen).rows(user_rows)``.
    names
        Names with a cutoff up to k, such as "recall@20".

    Returns
    -------
    float64 [B] for each name; NaN for a user without relevant items.

    Raises
    ------
    ValueError
        For an unknown name, "auc" (which needs all candidates: `rank` gives it), a cutoff beyond k, and a
        list that holds an item twice.
    """
    names = list(names)
    requests = []
    for name in names:
        metric, cutoff = parse_metric(name)
        if cutoff is None:
            raise ValueError(f"{name} needs all candidates, not a list: give `relevant` to rank()")
        requests.append((metric, cutoff))
    values = _core.list_metrics(integer_array("items", items, np.int32, 2), relevant.checked, requests)
    return {name: values[:, column].copy() for column, name in enumerate(names)}


def evaluate(
    tables: ScoreTables, user_rows: ArrayOrTensor, *, names: Iterable[str], seen: Csr | None, relevant: Csr
) -> dict[str, NDArray[np.float64]]:
    """Rank all unseen items and compute metrics of each user.

    Users are ranked once, to the largest cutoff.

    Parameters
    ----------
    user_rows
        Integers [B], the users to measure.
    names
        Names of metrics, "auc" included.
    seen, relevant
        U rows of items, as for `rank`. Relevant items that are seen do not count in any metric.

    Returns
    -------
    float64 [B] for each name; NaN for a user without relevant candidates.
    """
    names = list(names)
    cutoffs = [cutoff for _, cutoff in map(parse_metric, names) if cutoff is not None]
    for_auc = relevant if "auc" in names else None
    lists = rank(tables, user_rows, k=max(cutoffs, default=0), seen=seen, relevant=for_auc)
    unseen = relevant if seen is None else relevant.without(seen)
    values = metrics(lists.items, unseen.rows(lists.user_rows), [name for name in names if name != "auc"])
    if lists.auc is not None:
        values["auc"] = lists.auc
    return {name: values[name] for name in names}


def mean_metrics(per_user: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Mean of each metric over the users for whom it is defined (not NaN); NaN if there are none."""
    means = {}
    for name, values in per_user.items():
        defined = values[~np.isnan(values)]
        means[name] = float(defined.mean()) if defined.size else float("nan")
    return means
