"""A language model made of nothing but words: fast, and its context is known."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from llmdirect.data.dataset import Dataset
from llmdirect.encoding.encoders import Embedding
from llmdirect.store.store import EmbeddingStore

DIM = 12
CONTEXT = 0.5
"""How much of the mean of its text is in each token."""


class WordEncoder:
    """A token a word: a vector of its own, from its letters, and some of the mean of the text's words."""

    def encode(self, texts: Sequence[str], *, token_budget: int = 0) -> list[Embedding]:
        return [self._embedding(text) for text in texts]

    def _embedding(self, text: str) -> Embedding:
        spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
        own = np.array([vector(text[start:end]) for start, end in spans]).reshape(-1, DIM)
        tokens = own + CONTEXT * own.mean(0) if len(own) else own
        return Embedding(
            torch.from_numpy(tokens.astype(np.float32)), np.array(spans, np.uint32).reshape(-1, 2)
        )


def vector(word: str) -> np.ndarray:
    """The same for the same word, whatever its case."""
    seed = int.from_bytes(hashlib.sha256(word.casefold().encode()).digest()[:4], "little")
    return np.random.default_rng(seed).standard_normal(DIM) + 0.3


def write_words(dataset: Path, name: str = "words") -> EmbeddingStore:
    """The dataset's passages as the encoder reads them."""
    texts = sorted(set(Dataset.open(dataset).passages.text.to_list()))
    read = WordEncoder().encode(texts)
    counts = [len(each.spans) for each in read]
    return EmbeddingStore.write(
        dataset / "stores" / name,
        torch.cat([each.tokens for each in read]),
        np.concatenate([[0], np.cumsum(counts)]),
        texts=texts,
        spans=np.concatenate([each.spans for each in read]),
        encoder={"id": "words", "max_length": 512},
    )
