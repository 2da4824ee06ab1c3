"""Choices and defaults of settings, in a module without imports so that `--help` is fast."""

from typing import Final, Literal

Preset = Literal["default", "paper"]
ScoreFormName = Literal["cosine", "ratio"]
Sentiment = Literal["linear", "mlp"]
UserSide = Literal["history", "text", "both"]
ObjectiveName = Literal["softmax", "bpr", "rating"]
HistoryTermKind = Literal["auto", "ease", "ease+walk", "ease+neighbours"]

DEFAULT_FRACTIONS: Final = (0.7, 0.1, 0.2)
"""Shares of train, valid and test."""
DEFAULT_SEED: Final = 242
"""Seed of the random split."""
