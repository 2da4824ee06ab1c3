"""Token format of an embedding store: which tokens, in how many dimensions, of which type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.types import Json
from llmdirect.text.words import content_token_mask

ITEM_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES: Final = 2  # of an int8 token
_TOKENS: Final = ("all", "content")


@dataclass(frozen=True)
class TokenFormat:
    """Reduction of the encoder's vectors in a store.

    Raises
    ------
    ValueError
        If a field has no valid value.
    """

    dtype: str = "int8"
    """int8 (scaled by channel and then by token), bfloat16, float16 or float32. int8 takes half of the space
    of bfloat16 and costs less than a percent of NDCG, if anything (docs/quality.md)."""
    project: int | None = None
    """Number of leading principal components that are kept; None keeps the vectors."""
    tokens: str = "all"
    """Which tokens are kept: "all", or "content": without special tokens, punctuation and stop words."""

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_BYTES:
            raise ValueError(f"`dtype`: {self.dtype!r}, expected one of {', '.join(ITEM_BYTES)}")
        if self.tokens not in _TOKENS:
            raise ValueError(f"`tokens`: {self.tokens!r}, expected one of {', '.join(_TOKENS)}")
        if self.project is not None and self.project < 1:
            raise ValueError(f"`project`: {self.project}, expected 1 or more")

    @classmethod
    def from_manifest(cls, manifest: Json) -> "TokenFormat":
        """Token format of a store or shard; a manifest without the entry keeps all tokens unchanged."""
        entry = manifest.get("form") or {}
        return cls(manifest["dtype"], entry.get("project"), entry.get("tokens", "all"))

    def to_json(self, calibration: Json | None) -> Json | None:
        """Manifest entry "form"; None where all tokens are stored unchanged but for their type.

        Parameters
        ----------
        calibration
            Entry of the calibration file, if there is one.
        """
        if not self.calibrated and self.tokens == "all":
            return None
        return {"project": self.project, "tokens": self.tokens, "calibration": calibration}

    @property
    def name(self) -> str:
        """Part of the default name of a store: "int8-256-content"."""
        parts = [self.dtype, self.project and str(self.project), self.tokens == "content" and "content"]
        return "-".join(str(part) for part in parts if part)

    @property
    def calibrated(self) -> bool:
        """Whether a calibration is fitted before the first token is stored."""
        return self.project is not None or self.dtype == "int8"

    def dim(self, encoder_dim: int) -> int:
        """Length of a stored token embedding.

        Raises
        ------
        ValueError
            If the encoder has fewer than `project` dimensions.
        """
        if self.project is not None and self.project > encoder_dim:
            raise ValueError(
                f"`project`: {self.project}, expected at most the {encoder_dim} dimensions of the encoder"
            )
        return self.project or encoder_dim

    def row_bytes(self, dim: int) -> int:
        """Bytes on disk of a token of `dim` stored dimensions, without its span."""
        return dim * ITEM_BYTES[self.dtype] + (_SCALE_BYTES if self.dtype == "int8" else 0)

    def kept(self, texts: Sequence[str], spans: Sequence[NDArray[np.uint32]]) -> list[NDArray[np.bool_]]:
        """Mask of the stored tokens of each text.

        Parameters
        ----------
        texts
        spans
            uint32 [T, 2] characters of the tokens of each text.

        Returns
        -------
        list
            bool [T] of each text.
        """
        if self.tokens == "content":
            return [content_token_mask(text, own) for text, own in zip(texts, spans, strict=True)]
        return [np.ones(len(own), np.bool_) for own in spans]
