"""Tokens of a passage: ids, character spans and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from llmdirect.common.errors import DataError


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokenised passage."""

    ids: NDArray[np.int32]
    """int32 [T] with the special tokens of the encoder."""
    spans: NDArray[np.uint32]
    """uint32 [T, 2] characters of each token, half-open; (0, 0) for special tokens."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Embedding:
    """Encoded passage."""

    tokens: torch.Tensor
    """[T, dim] in the type of the encoder, on the CPU."""
    spans: NDArray[np.uint32]
    """uint32 [T, 2] characters of each token, half-open."""


class PassageEncoder(Protocol):
    """What reads new texts for a run."""

    def encode(self, texts: Sequence[str]) -> list[Embedding]:
        """Embeddings of texts."""


def special_tokens(tokenizer: Tokenizer, encoder_id: str) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a text, such as <bos> or [CLS] … [SEP].

    They are read from the tokenizer: Gemma adds <bos> only where its configuration says so.

    Raises
    ------
    DataError
        If special tokens change the other tokens of a text.
    """
    encoding = tokenizer.encode("a")
    content = [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    if not content or encoding.ids[content[0] : content[-1] + 1] != plain:
        raise DataError(f"{encoder_id}: its tokenizer changes a text when it adds special tokens")
    return encoding.ids[: content[0]], encoding.ids[content[-1] + 1 :]


def strip_span(text: str, start: int, stop: int) -> tuple[int, int]:
    """Span without the white space at its ends, unless it is nothing else."""
    low, high = start, stop
    while low < high and text[low].isspace():
        low += 1
    while high > low and text[high - 1].isspace():
        high -= 1
    return (low, high) if low < high else (start, stop)
