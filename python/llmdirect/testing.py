"""The test stage: one full ranking of a held-out split by a finished run."""

import math
from pathlib import Path

from llmdirect.artefacts import Json
from llmdirect.dataset import TEST, Dataset
from llmdirect.documents import open_or_prepare
from llmdirect.evaluation import by_user, held_out_users, rating_means, seen_before
from llmdirect.progress import SILENT, Progress
from llmdirect.ranking import mean_metrics, parse_metric, rank, write_run
from llmdirect.trained import Trained

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


def measure(
    dataset: Path | str,
    run: Path | str,
    *,
    metrics: list[str] | None = None,
    split: int = TEST,
    run_out: Path | None = None,
    depth: int = 100,
    progress: Progress = SILENT,
) -> Json:
    """Ranks the full catalogue for every user with a positive in `split`, and measures.

    metrics: names such as "ndcg@10" (`docs/metrics.md`); without them METRICS, or, for a run of the default
    setup, the figures of rating prediction. run_out: a Parquet file for the best `depth` items of each user;
    its TREC twin lies beside it. Validation hides what users have in train, test also what they have in
    validation.

    Returns {"metrics", "num_users", "num_items", …}; a metric that is defined for nobody (the AUC where all
    candidates are relevant) is left out. Raises MismatchError where the run was trained on
    another dataset, ValueError for an unknown metric.
    """
    names = list(metrics or METRICS)
    for name in names:
        parse_metric(name)  # a misspelled name is told before anything is read
    found, trained = open_or_prepare(dataset, progress), Trained.load(run)
    trained.check_dataset(found)
    users = held_out_users(found, split)
    if metrics is None and trained.run.train_config.setup == "default":
        figures = rating_means(trained.scorer, found, split)
    else:
        with progress.task("Ranking", len(users), "users") as task:
            means = mean_metrics(by_user(trained.scorer, found, split, names))
            figures = {name: value for name, value in means.items() if not math.isnan(value)}
            task.advance(len(users))
    if run_out is not None:
        _write_lists(trained, found, split, run_out, depth)
    return {
        "metrics": figures,
        "num_users": len(users),
        "num_items": found.num_items,
        "split": found.manifest["options"]["split"],
        "seed": found.manifest["options"]["seed"],
        "positive": found.manifest["options"]["positive"] or "every interaction",
        "run": str(run),
        "run_out": str(run_out) if run_out else None,
    }


def _write_lists(trained: Trained, dataset: Dataset, split: int, path: Path, depth: int) -> None:
    users = held_out_users(dataset, split)
    lists = rank(trained.scorer, users, k=min(depth, dataset.num_items), seen=seen_before(dataset, split))
    write_run(path, lists, dataset.user_ids, dataset.item_ids)
