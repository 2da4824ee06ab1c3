"""How a store keeps tokens: which of them, in how many dimensions, in which type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.types import Json
from llmdirect.text.words import content_token_mask

ITEM_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES: Final = 2  # of an int8 token
_KEPT = ("all", "content")


@dataclass(frozen=True)
class TokenFormat:
    """What becomes of the encoder's vectors. ValueError for what there is not.

    dtype: int8 (scaled by channel and then by token), bfloat16, float16 or float32. int8 takes half of
    bfloat16, and what it costs in NDCG is less than a percent, if anything (docs/quality.md).
    project: number of leading principal components kept; None keeps the vectors.
    tokens: "all", or "content": without special tokens, punctuation and stop words.
    """

    dtype: str = "int8"
    project: int | None = None
    tokens: str = "all"

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"dtype={self.dtype!r}; one of {', '.join(ITEM_BYTES)}")
        if self.tokens not in _KEPT:
            raise ValueError(f"tokens={self.tokens!r}; one of {', '.join(_KEPT)}")
        if self.project is not None and self.project < 1:
            raise ValueError(f"project={self.project}; at least 1")

    @classmethod
    def from_manifest(cls, manifest: Json) -> "TokenFormat":
        """Of a store, shard or plan; those that say nothing keep all tokens as the encoder gave them."""
        form = manifest.get("form") or {}
        return cls(manifest["dtype"], form.get("project"), form.get("tokens", "all"))

    @property
    def name(self) -> str:
        """Part of a store's name: "int8-256-content"."""
        parts = [self.dtype, self.project and str(self.project), self.tokens == "content" and "content"]
        return "-".join(str(part) for part in parts if part)

    @property
    def calibrated(self) -> bool:
        """Whether numbers have to be fitted before the first token is stored."""
        return self.project is not None or self.dtype == "int8"

    def to_json(self, calibration: Json | None) -> Json | None:
        """The manifest's entry "form"; None where all tokens stay as the encoder gave them.

        calibration: the entry of its file, where there is one.
        """
        if not self.calibrated and self.tokens == "all":
            return None
        return {"project": self.project, "tokens": self.tokens, "calibration": calibration}

    def dim(self, encoder_dim: int) -> int:
        """Length of a stored embedding. ValueError where there are fewer dimensions than are asked for."""
        if self.project is not None and self.project > encoder_dim:
            raise ValueError(f"project={self.project}; the model gives {encoder_dim} dimensions, take fewer")
        return self.project or encoder_dim

    def row_bytes(self, dim: int) -> int:
        """Bytes on disk of a token of `dim` stored dimensions."""
        return dim * ITEM_BYTES[self.dtype] + (_SCALE_BYTES if self.dtype == "int8" else 0)

    def kept(self, texts: Sequence[str], spans: Sequence[NDArray[np.uint32]]) -> list[NDArray[np.bool_]]:
        """Which tokens of each text are stored: bool [T] each, of spans [T, 2]."""
        if self.tokens == "content":
            return [content_token_mask(text, each) for text, each in zip(texts, spans, strict=True)]
        return [np.ones(len(each), np.bool_) for each in spans]
