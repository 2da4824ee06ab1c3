"""Baselines of the scoreboard with their search spaces."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from llmdirect.benchmark.baselines import factors, item_item, popularity, sasrec, sequence, text
from llmdirect.benchmark.baselines.data import TrainData
from llmdirect.benchmark.models import FittedModel
from llmdirect.benchmark.spaces import Number, Space
from llmdirect.common.types import Json

__all__ = ["BASELINES", "Baseline", "Need", "TrainData"]

Need = Literal["order", "times", "text"]
"""What a baseline reads that a dataset may lack."""


@dataclass(frozen=True)
class Baseline:
    """Baseline model with its search space."""

    fit: Callable[..., FittedModel]
    """(data, **settings): fit on train."""
    space: Space = field(default_factory=dict)
    needs: frozenset[Need] = frozenset()
    finalists: int = 5
    """Number of settings, the best ones over several splits, among which the validation of a split
    chooses."""
    first_trial: Json | None = None
    """Settings of the first trial of the search, such as published ones; drawn if not given."""


def _log(low: float, high: float, ceiling: float = math.inf) -> Number:
    return Number(low, high, log=True, ceiling=ceiling)


def _count(low: int, high: int, ceiling: float = 10_000) -> Number:
    return Number(low, high, log=True, integer=True, floor=1, ceiling=ceiling)


def _share(low: float = 0.0, high: float = 1.0) -> Number:
    return Number(low, high, floor=0.0, ceiling=1.0)


_TEXT: Final = frozenset[Need]({"text"})
_ORDER: Final = frozenset[Need]({"order"})
_NEIGHBOURS: Final = _count(5, 1000)
_RIDGE: Final = _log(1.0, 3000.0)
_POWERS: Final = (0.0, 0.5, 1.0)
_POPULARITY_WEIGHT: Final = _log(1e-3, 1.0)
_GRAPH: Final[Space] = {
    "factors": _count(16, 256, 512),
    "learning_rate": _log(1e-3, 0.1),
    "regularisation": _log(1e-6, 0.1),
    "epochs": _count(5, 200, 1000),
}
_SASREC: Final[Space] = {
    "dim": _count(16, 256, 512),
    "blocks": Number(1, 3, integer=True, floor=1, ceiling=6),
    "dropout": Number(0.1, 0.6, floor=0.0, ceiling=0.9),
    "learning_rate": _log(3e-4, 1e-2),
    "negatives": _count(64, 1024, 4096),
    "weight_decay": _log(1e-4, 1.0),
    "max_length": _count(20, 100, 400),
}
_SASREC_FIRST: Final[Json] = {
    "dim": 128,
    "blocks": 1,
    "dropout": 0.5,
    "learning_rate": 2e-3,
    "negatives": 256,
    "weight_decay": 1e-4,
    "max_length": 50,
}
"""The best of those tried on the validation of the published sets of sequences, Beauty and Toys."""
_EASE_TEXT: Final[Space] = {"ridge": _log(0.3, 3000.0), "user_power": _POWERS}

BASELINES: Mapping[str, Baseline] = {
    "popularity": Baseline(popularity.popularity),
    "recent-popularity": Baseline(
        popularity.recent_popularity,
        {"days": _log(1.0, 1000.0, ceiling=20_000), "popularity_weight": _log(1e-3, 3.0)},
        frozenset({"times"}),
    ),
    "itemknn": Baseline(
        item_item.itemknn,
        {"neighbours": _NEIGHBOURS, "shrink": _log(0.1, 300.0), "user_power": _share()},
    ),
    "userknn": Baseline(
        factors.userknn,
        {"neighbours": _NEIGHBOURS, "shrink": _log(0.1, 100.0), "item_power": _share()},
    ),
    "rp3beta": Baseline(
        item_item.rp3beta,
        {"neighbours": _NEIGHBOURS, "alpha": Number(0.1, 2.0, floor=0.0), "beta": Number(0.0, 1.0)},
    ),
    "slim": Baseline(item_item.slim, {"l1": _log(0.01, 10.0), "l2": _log(1.0, 1000.0)}, finalists=3),
    "ease": Baseline(item_item.ease, {"ridge": _RIDGE}),
    "ease-user": Baseline(item_item.ease, {"ridge": _log(0.1, 3000.0), "user_power": _share(0.1)}),
    "ials": Baseline(
        factors.ials,
        {
            "factors": _count(8, 256, 1024),
            "regularisation": _log(1e-3, 300.0),
            "alpha": _log(0.1, 300.0),
            "iterations": Number(1, 30, integer=True, floor=1, ceiling=100),
        },
        finalists=3,
    ),
    "bpr-mf": Baseline(factors.bpr_mf, _GRAPH, finalists=2),
    "lightgcn": Baseline(
        factors.lightgcn, {**_GRAPH, "layers": Number(1, 6, integer=True, floor=1, ceiling=10)}, finalists=2
    ),
    "transition": Baseline(
        sequence.transition,
        {
            "reach": _count(1, 20, 100),
            "gap_half_life": _log(0.3, 10.0),
            "half_life": _log(0.1, 10.0),
            "shrink": _log(0.3, 100.0),
            "popularity_power": _share(),
        },
        _ORDER,
    ),
    "temporal-ease": Baseline(
        sequence.temporal_ease,
        {
            "ridge": _RIDGE,
            "directed": _share(0.0, 0.98),
            "gap_half_life": _log(0.3, 10.0),
            "half_life": _log(0.3, 30.0),
        },
        _ORDER,
    ),
    "sasrec": Baseline(sasrec.sasrec, _SASREC, _ORDER, finalists=1, first_trial=_SASREC_FIRST),
    "sasrec-text": Baseline(
        sasrec.sasrec_text,
        {**_SASREC, "text_norm": _log(0.1, 10.0)},
        _ORDER | _TEXT,
        finalists=1,
        first_trial={**_SASREC_FIRST, "text_norm": 1.0},
    ),
    "embedding-knn": Baseline(text.embedding_knn, {"popularity_weight": _POPULARITY_WEIGHT}, _TEXT),
    "tfidf-knn": Baseline(
        text.tfidf_knn,
        {
            "popularity_weight": _POPULARITY_WEIGHT,
            "min_df": Number(1, 5, integer=True, floor=1),
            "sublinear": (True, False),
        },
        _TEXT,
    ),
    "ease-text": Baseline(item_item.ease, {**_EASE_TEXT, "likeness": _log(0.1, 100.0)}, _TEXT),
    "ease-words": Baseline(item_item.ease, {**_EASE_TEXT, "words": _log(0.1, 100.0)}, _TEXT),
    "l3ae": Baseline(
        item_item.l3ae,
        {"ridge": _RIDGE, "text_ridge": _log(0.1, 100.0), "distil": _log(1.0, 1000.0)},
        _TEXT,
    ),
}
"""Baselines by the name of their row, in the order of the table."""
