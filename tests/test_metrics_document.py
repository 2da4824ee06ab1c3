"""The examples of docs/metrics.md run, and the page knows every metric."""

import doctest
import re
from pathlib import Path

import numpy as np

from llmdirect.ranking import CUTOFF_METRICS
from llmdirect.ratings import rating_metrics

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"


def test_the_worked_examples_give_the_numbers_shown() -> None:
    failed, attempted = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert attempted > 8
    assert failed == 0


def test_every_metric_is_defined() -> None:
    defined = set(re.findall(r"`(\w+)(?:@k)?`", PAGE.read_text(encoding="utf-8")))
    assert {*CUTOFF_METRICS, "auc", *rating_metrics(np.ones(2), np.ones(2))} <= defined
