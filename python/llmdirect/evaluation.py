"""Held-out figures: which users, which candidates, which metrics. One protocol for every model."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.csr import Csr
from llmdirect.dataset import SPLIT_NAMES, Dataset
from llmdirect.errors import DataError
from llmdirect.ranking import Scorer, evaluate, parse_metric
from llmdirect.ratings import rating_metrics
from llmdirect.scores import Pairs, Scores
from llmdirect.views import View

_LEFT_OUT_PAIRS = 2048
"""Train pairs on which the left-out figure is taken."""


def seen_before(dataset: Dataset, split: int) -> Csr:
    """What is hidden at ranking: validation hides train, test hides train and validation."""
    seen = dataset.csr(tuple(range(split)), positive_only=False)
    return seen if dataset.known is None else seen.union(dataset.known)


def held_out_users(dataset: Dataset, split: int) -> NDArray[np.int32]:
    """Users with a positive in the split. DataError where there are none."""
    users = np.flatnonzero(np.diff(dataset.csr(split).indptr)).astype(np.int32)
    if not len(users):
        raise DataError(
            f"{dataset.path}: no positive in {SPLIT_NAMES[split]}, so there is nothing to measure"
        )
    return users


def by_user(scorer: Scorer, dataset: Dataset, split: int, names: list[str]) -> dict[str, NDArray[np.float64]]:
    """Each metric for every user with a positive in the split, over the full catalogue."""
    return evaluate(
        scorer,
        held_out_users(dataset, split),
        names=names,
        seen=seen_before(dataset, split),
        relevant=dataset.csr(split),
    )


def rating_means(scorer: Scorer, dataset: Dataset, split: int) -> dict[str, float]:
    """mse, rmse, mae, auc, accuracy and f1 of the split's ratings; DataError where there are none.

    A figure that is not defined there (no rating below 4, say) is left out.
    """
    means = rating_metrics(*_predicted(scorer, dataset, split))
    return {name: value for name, value in means.items() if not np.isnan(value)}


def squared_errors(scorer: Scorer, dataset: Dataset, split: int) -> NDArray[np.float64]:
    """That of each rating of the split; DataError where there are none."""
    predicted, actual = _predicted(scorer, dataset, split)
    return np.square(predicted.astype(np.float64) - actual)


def _predicted(
    scorer: Scorer, dataset: Dataset, split: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Predicted and actual ratings of the split."""
    rows = dataset.interactions
    rated = (rows.split == split) & ~np.isnan(rows.rating)
    if not rated.any():
        raise DataError(f"{dataset.path}: no rating in {SPLIT_NAMES[split]}, so there is nothing to measure")
    return scorer.of_pairs(rows.user_idx[rated], rows.item_idx[rated]), rows.rating[rated]


def sampled_pairs(view: View, items: Tensor | None = None) -> Pairs:
    """Up to 2048 of the train pairs `view.asked`, evenly spread: those on which a left-out figure is taken.

    items: bool [I] whose pairs to take alone, if there are any.
    """
    rows = view.asked
    if items is not None:
        kept = items[view.pair_item[rows]]
        rows = rows[kept] if kept.any() else rows
    # In float64: float32 has no whole numbers of its own beyond 16.8 million.
    places = torch.linspace(0, len(rows) - 1, min(len(rows), _LEFT_OUT_PAIRS), dtype=torch.float64)
    return Pairs.of(view, rows[places.long().to(rows.device)])


def train_left_out(scores: Scores, metric: str) -> float:
    """The metric on train pairs, each scored as if it did not exist: its item against all non-positives.

    What an in-sample figure would be without leaking. Taken on `sampled_pairs`, which are of the kind that is
    held out; one relevant item a list, so it compares with validation where users have about one there.
    """
    pairs, values = sampled_pairs(scores.view), []
    for rows in torch.split(torch.arange(len(pairs.user), device=pairs.user.device), 256):
        part = pairs.at(rows)
        values.append(left_out_values(scores.view, part, scores.left_out(part)[0], metric))
    return float(torch.cat(values).mean())


def left_out_values(view: View, pairs: Pairs, table: Tensor, metric: str) -> Tensor:
    """float64 [B]: the metric of each pair's item against all non-positives, in a table [B, I] of scores."""
    own = table.gather(1, pairs.item[:, None])
    others = view.hide_positives(table, pairs.user)
    before = torch.arange(view.num_items, device=table.device) < pairs.item[:, None]
    above, equal = (others > own).sum(1), others == own
    # In a list equal scores go by index; the AUC counts them half, as it does everywhere.
    tied = equal.sum(1) / 2 if metric == "auc" else (equal & before).sum(1)
    return _of_rank(metric, (1 + above + tied).double(), 1 + (others > -torch.inf).sum(1))


def _of_rank(metric: str, rank: Tensor, candidates: Tensor) -> Tensor:
    """The metric of lists of `candidates` [n] items whose one relevant item stands at `rank` [n]."""
    name, cutoff = parse_metric(metric)
    if cutoff is None:
        return 1 - (rank - 1) / (candidates - 1).clamp(min=1)
    inside = (rank <= cutoff).double()
    if name == "ndcg":
        return inside / torch.log2(rank + 1)
    if name in ("mrr", "map"):
        return inside / rank
    return inside / cutoff if name == "precision" else inside
