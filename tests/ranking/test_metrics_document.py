"""The examples of docs/metrics.md run, and the page knows every metric."""

import doctest
import re

import numpy as np

from llmdirect.ranking.metrics import CUTOFF_METRICS
from llmdirect.ranking.rating_metrics import rating_metrics
from repository import DOCS

PAGE = DOCS / "metrics.md"


def test_the_worked_examples_give_the_numbers_shown() -> None:
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert attempted > 8
    assert failed == 0


def test_every_metric_is_defined() -> None:
    defined = set(re.findall(r"`(\w+)(?:@k)?`", PAGE.read_text(encoding="utf-8")))
    assert {*CUTOFF_METRICS, "auc", *rating_metrics(np.ones(2), np.ones(2))} <= defined
