"""Test stage: full ranking of a held-out split by a finished run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from llmdirect.common.conditions import check_conditions
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.ranges import check_range
from llmdirect.common.types import Json, Result
from llmdirect.config import LIKED
from llmdirect.data.dataset import SPLIT_NAMES, Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.evaluation.protocol import evaluate_ratings
from llmdirect.evaluation.queries import Queries, build_queries
from llmdirect.ranking.metrics import evaluate as rank_and_measure
from llmdirect.ranking.metrics import mean_metrics, parse_metric
from llmdirect.ranking.ranked_lists import check_ranked_lists_path, write_ranked_lists
from llmdirect.ranking.top_k import rank
from llmdirect.runs.inputs import check_dataset
from llmdirect.runs.queries import tables_for
from llmdirect.runs.trained import Trained

HeldOut = Literal["valid", "test"]
METRICS = (
    "recall@10",
    "recall@20",
    "precision@10",
    "hit_rate@10",
    "ndcg@10",
    "ndcg@20",
    "mrr@10",
    "map@10",
    "auc",
)
"""Metrics of `evaluate` by default."""
_DEPTH = 100
"""Items a user in the ranked lists by default."""


@dataclass(frozen=True)
class Evaluation(Result):
    """Metrics of a run on a held-out split."""

    metrics: dict[str, float | None]
    """Mean over users by metric; metrics that are defined for no user are left out. Of predicted ratings,
    None for a metric that is undefined, since all of them are liked or none is."""
    num_users: int
    num_items: int
    split: str
    """How the dataset was split."""
    seed: int
    """Of the dataset's split."""
    positive: str
    """Which interactions of the dataset count as positives."""
    run: str
    aspects_off: list[int]
    """Aspects that were switched off in the run."""
    lists_out: Path | None
    """Ranked lists in Parquet; "run_out" in JSON."""

    def to_json(self) -> Json:
        """Fields as JSON values."""
        values = super().to_json()
        values["run_out"] = values.pop("lists_out")
        return values


def evaluate(
    dataset: Path | str,
    run: Path | str,
    *,
    metrics: Sequence[str] | None = None,
    split: HeldOut = "test",
    lists_out: Path | str | None = None,
    depth: int | None = None,
    liked: float | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Rank the full catalogue for every user with a positive in the split, and compute metrics.

    Items of train are hidden, and in the test split also those of validation. What may be known of a user is
    that of the protocol of the dataset's split (`evaluation.queries.build_queries`).

    Parameters
    ----------
    dataset
        Folder that `prepare` wrote, or a raw file.
    run
        Folder that `train` wrote.
    metrics
        Names such as "ndcg@10" (docs/metrics.md). By default METRICS, or the metrics of rating prediction for
        a run with the rating objective.
    lists_out
        Parquet file for the ranked lists; a TREC file is written next to it.
    depth
        Items a user in the ranked lists, with `lists_out` alone; by default 100.
    liked
        Smallest rating that counts as liked, for a run with the rating objective alone; by default that of
        its training.

    Raises
    ------
    MismatchError
        If the run was trained on another dataset.
    ValueError
        For an unknown metric or split, a depth below 1, and a setting without effect.
    """
    if split not in get_args(HeldOut):
        raise ValueError(f"`split` is {split!r}, expected one of {', '.join(get_args(HeldOut))}")
    if isinstance(metrics, str):
        raise ValueError(f"`metrics` is {metrics!r}, expected a list of names")
    names = list(metrics or METRICS)
    for name in names:
        parse_metric(name)  # a misspelled name is reported before anything is read
    settings = {"depth": depth, "lists_out": lists_out, "liked": liked, "metrics": metrics}
    check_conditions("test", settings)
    if liked is not None:
        check_range("liked", liked, LIKED, float)
    if depth is not None and depth < 1:
        raise ValueError(f"`depth` is {depth}, expected at least 1")
    lists_path = None if lists_out is None else Path(lists_out)
    if lists_path is not None:
        check_ranked_lists_path(lists_path)
    code = SPLIT_NAMES.index(split)
    opened, trained = open_or_prepare(dataset, progress), Trained.load(run)
    check_dataset(trained.run, opened)
    training = trained.run.train_config
    check_conditions("test", settings | {"ranking_run": None if training.predicts_ratings else run})
    queries = build_queries(opened, code)
    if metrics is None and training.predicts_ratings:
        values = evaluate_ratings(trained.tables, opened, code, training.liked if liked is None else liked)
    else:
        with progress.task("Ranking", len(queries), "users") as task:
            every, tables = np.arange(len(queries)), tables_for(trained, queries)
            by_user = rank_and_measure(
                tables, every, names=names, seen=queries.seen, relevant=queries.relevant
            )
            means = mean_metrics(by_user)
            values = {name: value for name, value in means.items() if not math.isnan(value)}
            task.advance(len(queries))
    if lists_path is not None:
        _write_lists(trained, opened, queries, lists_path, _DEPTH if depth is None else depth)
    options = opened.manifest["options"]
    return Evaluation(
        metrics={name: None if math.isnan(value) else value for name, value in values.items()},
        num_users=len(queries),
        num_items=opened.num_items,
        split=options["split"],
        seed=options["seed"],
        positive=options["positive"] or "every interaction",
        run=str(run),
        aspects_off=sorted(trained.edits.off),
        lists_out=lists_path,
    )


def _write_lists(trained: Trained, dataset: Dataset, queries: Queries, path: Path, depth: int) -> None:
    every, k = np.arange(len(queries)), min(depth, dataset.num_items)
    lists = rank(tables_for(trained, queries), every, k=k, seen=queries.seen)
    write_ranked_lists(path, replace(lists, user_rows=queries.users), dataset.user_ids, dataset.item_ids)
