"""Examples of docs/metrics.md, and its coverage of all metrics."""

import doctest
import re

import numpy as np

from llmdirect.ranking.metrics import CUTOFF_METRICS
from llmdirect.ranking.rating_metrics import rating_metrics
from repository import DOCS

PAGE = DOCS / "metrics.md"


def test_examples_produce_documented_numbers() -> None:
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert attempted > 8
    assert failed == 0


def test_all_metrics_are_documented() -> None:
    defined = set(re.findall(r"`(\w+)(?:@k)?`", PAGE.read_text(encoding="utf-8")))
    assert {*CUTOFF_METRICS, "auc", *rating_metrics(np.ones(2), np.ones(2))} <= defined
