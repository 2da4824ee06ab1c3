"""The test stage: one full ranking of a held-out split by a finished run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import SPLIT_NAMES, Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.evaluation.protocol import by_user, held_out_users, rating_means, seen_before
from llmdirect.ranking.metrics import mean_metrics, parse_metric
from llmdirect.ranking.ranked_lists import check_ranked_lists_path, write_ranked_lists
from llmdirect.ranking.top_k import rank
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
"""What `test` reports where nothing else is asked for."""


def evaluate(
    dataset: Path | str,
    run: Path | str,
    *,
    metrics: Sequence[str] | None = None,
    split: HeldOut = "test",
    run_out: Path | str | None = None,
    depth: int = 100,
    progress: Progress = SILENT,
) -> Json:
    """Ranks the full catalogue for every user with a positive in `split`, and measures.

    metrics: names such as "ndcg@10" (`docs/metrics.md`); without them METRICS, or, for a run of the default
    setup, the figures of rating prediction. run_out: a Parquet file for the best `depth` items of each user;
    its TREC twin lies beside it. Validation hides what users have in train, test also what they have in
    validation.

    Returns {"metrics", "num_users", "num_items", …}; "aspects_off" are those that somebody has switched off,
    with which it was measured; a metric that is defined for nobody (the AUC where all candidates are
    relevant) is left out. Raises MismatchError where the run was trained on another dataset, ValueError for
    an unknown metric or split.
    """
    if split not in get_args(HeldOut):
        raise ValueError(f"split is {split!r}, expected one of {', '.join(get_args(HeldOut))}")
    if isinstance(metrics, str):
        raise ValueError(f"metrics is {metrics!r}, expected a list of names")
    names = list(metrics or METRICS)
    for name in names:
        parse_metric(name)  # a misspelled name is told before anything is read
    if depth < 1:
        raise ValueError(f"depth is {depth}, expected at least 1")
    if run_out is not None:
        check_ranked_lists_path(Path(run_out))
    code = SPLIT_NAMES.index(split)
    found, trained = open_or_prepare(dataset, progress), Trained.load(run)
    trained.check_dataset(found)
    users = held_out_users(found, code)
    if metrics is None and trained.run.train_config.objective == "rating":
        figures = rating_means(trained.tables, found, code)
    else:
        with progress.task("Ranking", len(users), "users") as task:
            means = mean_metrics(by_user(trained.tables, found, code, names))
            figures = {name: value for name, value in means.items() if not math.isnan(value)}
            task.advance(len(users))
    if run_out is not None:
        _write_lists(trained, found, code, Path(run_out), depth)
    return {
        "metrics": figures,
        "num_users": len(users),
        "num_items": found.num_items,
        "split": found.manifest["options"]["split"],
        "seed": found.manifest["options"]["seed"],
        "positive": found.manifest["options"]["positive"] or "every interaction",
        "run": str(run),
        "aspects_off": sorted(trained.edits.off),
        "run_out": str(run_out) if run_out else None,
    }


def _write_lists(trained: Trained, dataset: Dataset, split: int, path: Path, depth: int) -> None:
    users = held_out_users(dataset, split)
    lists = rank(trained.tables, users, k=min(depth, dataset.num_items), seen=seen_before(dataset, split))
    write_ranked_lists(path, lists, dataset.user_ids, dataset.item_ids)
