"""Values of the settings that are one of a few words; a module that costs `--help` nothing."""

from typing import Literal

Preset = Literal["default", "paper"]
ScoreFormName = Literal["cosine", "ratio"]
Sentiment = Literal["linear", "mlp"]
UserSide = Literal["history", "text", "both"]
ObjectiveName = Literal["softmax", "bpr", "rating"]
HistoryTermKind = Literal["auto", "ease", "ease+walk", "ease+neighbours"]
