"""Ranking metrics of training pairs, each left out of its own scores."""

import torch
from torch import Tensor

from llmdirect.model.item_documents import Pairs
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.metrics import parse_metric

_MAX_PAIRS = 2048
"""Most pairs of the left-out sample."""


def sampled_pairs(view: TrainView, items: Tensor | None = None) -> Pairs:
    """Evenly spread sample of at most 2,048 of the view's `unique_text_pairs`.

    Parameters
    ----------
    items
        bool [I] items whose pairs alone are sampled, if there are any.
    """
    rows = view.unique_text_pairs
    if items is not None:
        kept = items[view.pair_item[rows]]
        rows = rows[kept] if kept.any() else rows
    # In float64: float32 represents whole numbers exactly only up to 16.8 million.
    positions = torch.linspace(0, len(rows) - 1, min(len(rows), _MAX_PAIRS), dtype=torch.float64)
    return Pairs.from_view(view, rows[positions.long().to(rows.device)])


def train_left_out(scores: CatalogueScores, metric: str) -> float:
    """Mean of a ranking metric over sampled train pairs, each scored as if it did not exist.

    An in-sample figure without leakage: the pair's item against all non-positives. With one relevant item a
    list it compares with validation where users have about one there.
    """
    pairs, values = sampled_pairs(scores.view), []
    for rows in torch.split(torch.arange(len(pairs.user), device=pairs.user.device), 256):
        part = pairs.at(rows)
        values.append(left_out_values(scores.view, part, scores.left_out(part)[0], metric))
    return float(torch.cat(values).mean())


def left_out_values(view: TrainView, pairs: Pairs, table: Tensor, metric: str) -> Tensor:
    """Metric float64 [B] of each pair's item against all non-positives of its user.

    Parameters
    ----------
    table
        [B, I] left-out scores.
    metric
        Such as "ndcg@10".
    """
    own = table.gather(1, pairs.item[:, None])
    others = view.hide_positives(table, pairs.user)
    before = torch.arange(view.num_items, device=table.device) < pairs.item[:, None]
    above, equal = (others > own).sum(1), others == own
    # Lists break ties by index; the AUC counts them half.
    tied = equal.sum(1) / 2 if metric == "auc" else (equal & before).sum(1)
    return _metric_at_rank(metric, (1 + above + tied).double(), 1 + (others > -torch.inf).sum(1))


def _metric_at_rank(metric: str, rank: Tensor, candidates: Tensor) -> Tensor:
    """Metric of lists of `candidates` [n] items with one relevant item at `rank` [n]."""
    name, cutoff = parse_metric(metric)
    if cutoff is None:
        return 1 - (rank - 1) / (candidates - 1).clamp(min=1)
    inside = (rank <= cutoff).double()
    if name == "ndcg":
        return inside / torch.log2(rank + 1)
    if name in ("mrr", "map"):
        return inside / rank
    return inside / cutoff if name == "precision" else inside
