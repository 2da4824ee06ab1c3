"""Ranking metrics of training pairs, each scored with itself left out."""

import torch
from torch import Tensor

from llmdirect.model.item_documents import Pairs
from llmdirect.model.scores import CatalogueScores
from llmdirect.model.train_view import TrainView
from llmdirect.ranking.metrics import parse_metric

_LEFT_OUT_PAIRS = 2048
"""Train pairs on which the left-out figure is taken."""


def sampled_pairs(view: TrainView, items: Tensor | None = None) -> Pairs:
    """Up to 2048 of the train pairs `view.unique_text_pairs`, evenly spread: the sample of left-out figures.

    items: bool [I] whose pairs to take alone, if there are any.
    """
    rows = view.unique_text_pairs
    if items is not None:
        kept = items[view.pair_item[rows]]
        rows = rows[kept] if kept.any() else rows
    # In float64: float32 has no whole numbers of its own beyond 16.8 million.
    places = torch.linspace(0, len(rows) - 1, min(len(rows), _LEFT_OUT_PAIRS), dtype=torch.float64)
    return Pairs.from_view(view, rows[places.long().to(rows.device)])


def train_left_out(scores: CatalogueScores, metric: str) -> float:
    """The metric on train pairs, each scored as if it did not exist: its item against all non-positives.

    What an in-sample figure would be without leaking. Taken on `sampled_pairs`, which are of the kind that is
    held out; one relevant item a list, so it compares with validation where users have about one there.
    """
    pairs, values = sampled_pairs(scores.view), []
    for rows in torch.split(torch.arange(len(pairs.user), device=pairs.user.device), 256):
        part = pairs.at(rows)
        values.append(left_out_values(scores.view, part, scores.left_out(part)[0], metric))
    return float(torch.cat(values).mean())


def left_out_values(view: TrainView, pairs: Pairs, table: Tensor, metric: str) -> Tensor:
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
