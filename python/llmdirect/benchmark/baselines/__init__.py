"""What a user could have instead of DIRECT, each tuned on validation and fitted on train alone."""

from llmdirect.benchmark.baselines.data import Baseline, TrainData
from llmdirect.benchmark.baselines.item_item import ITEM_ITEM
from llmdirect.benchmark.baselines.others import OTHERS

__all__ = ["BASELINES", "Baseline", "TrainData"]

BASELINES = {**OTHERS, **ITEM_ITEM}
"""By the name of the row."""
