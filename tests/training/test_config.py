"""Presets, and invalid settings."""

import math
from typing import Any

import pytest
from torch import nn

from llmdirect.config import ModelConfig, TrainConfig
from llmdirect.model.direct import Direct
from model_helpers import ITEMS, USERS


def test_presets() -> None:
    paper = ModelConfig.for_preset("paper")
    assert (paper.score_form, paper.aspects, paper.sentiment, paper.user) == ("ratio", 5, "mlp", "both")
    model = Direct(paper, 40, USERS, ITEMS)
    assert model.aspect.shape == (6, 64)
    assert [tuple(layer.weight.shape) for layer in model.sentiment if isinstance(layer, nn.Linear)] == [
        (10, 40),
        (1, 10),
    ]
    assert ModelConfig.for_preset("paper", aspects=8).aspects == 8
    assert not ModelConfig.for_preset("paper", score_form="cosine").batch_norm
    assert ModelConfig.for_preset("default", score_form="ratio").channels == 1
    assert ModelConfig().width(2304) == (16, 24)
    assert ModelConfig().width(8) == (16, 1)
    assert TrainConfig.for_preset("default", objective="bpr").negatives == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: ModelConfig(score_form="dot"), "`score_form`: 'dot', expected one of cosine, ratio"),  # type: ignore[arg-type]
        (lambda: ModelConfig(aspects=0), "`aspects`: 0, expected 1 to 4096"),
        (lambda: ModelConfig(ridge=0), "`ridge`: 0, expected above 0"),
        (lambda: ModelConfig(ridge=math.nan), "`ridge`: nan, expected above 0"),
        (lambda: ModelConfig(batch_norm=True), "`batch_norm`: belongs to the ratio form"),
        (lambda: ModelConfig(score_form="ratio", channels=2), "set `channels=1`"),
        (lambda: ModelConfig.for_preset("new"), "`preset`: 'new', expected one of default, paper"),  # type: ignore[arg-type]
        (lambda: TrainConfig.for_preset("new"), "`preset`: 'new', expected one of default, paper"),  # type: ignore[arg-type]
        (lambda: TrainConfig(lr=math.nan), "`lr`: nan, expected above 0"),
        (lambda: TrainConfig(negatives=-1), "`negatives`: -1, expected 0 to 65536"),
        (lambda: TrainConfig(rate=math.nan), "`rate`: nan, expected 0 to 1e\\+09"),
        (lambda: TrainConfig(history_dropout=1.0), "`history_dropout`: 1.0, expected 0 to below 1"),
        (lambda: ModelConfig(aspects=10**9), "`aspects`: 1000000000, expected 1 to 4096"),
        (lambda: ModelConfig(aspects=10**5000), "`aspects`: a huge number, expected 1 to 4096"),
        (lambda: ModelConfig(aspects=2.5), "`aspects`: 2.5, expected a whole number, 1 to 4096"),  # type: ignore[arg-type]
        (lambda: ModelConfig(aspects=True), "`aspects`: True, expected a whole number, 1 to 4096"),
        (
            lambda: ModelConfig(aspects=4096, channels=17),
            "`channels`: 17, expected at most 16 with 4096 aspects",
        ),
        (lambda: ModelConfig(popularity="no"), "`popularity`: 'no', expected true or false"),  # type: ignore[arg-type]
        (lambda: ModelConfig(sentiment=[]), r"`sentiment`: \[\], expected one of linear, mlp"),  # type: ignore[arg-type]
        (lambda: ModelConfig(ridge=math.inf), r"`ridge`: inf, expected above 0, at most 1e\+12"),
        (lambda: ModelConfig(aspects=None), "`aspects`: None, expected a whole number"),  # type: ignore[arg-type]
        (lambda: TrainConfig(negatives=2**40), "`negatives`: 1099511627776, expected 0 to 65536"),
        (lambda: TrainConfig(seed=-1), "`seed`: -1, expected 0 to 9223372036854775807"),
        (lambda: TrainConfig(lr="1"), "`lr`: '1', expected above 0, at most 1000"),  # type: ignore[arg-type]
        (lambda: TrainConfig(device=3), "`device`: 3, expected text"),  # type: ignore[arg-type]
        (lambda: TrainConfig(objective="bpr"), "bpr objective needs at least one negative"),
    ],
)
def test_invalid_settings(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings()
