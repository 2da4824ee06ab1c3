"""Baselines of the scoreboard, tuned on validation and fitted on train."""

from llmdirect.benchmark.baselines.data import Baseline, TrainData
from llmdirect.benchmark.baselines.item_item import ITEM_ITEM
from llmdirect.benchmark.baselines.others import OTHERS

__all__ = ["BASELINES", "Baseline", "TrainData"]

BASELINES = {**OTHERS, **ITEM_ITEM}
"""Baselines by the name of their row."""
