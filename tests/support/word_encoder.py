"""Fake encoder with one token per word, or per ideograph, and known context."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from llmdirect.data.dataset import Dataset
from llmdirect.encoding.encoders import Embedding
from llmdirect.store.store import EmbeddingStore
from llmdirect.store.write import write_store

DIM = 12
CONTEXT = 0.5
"""Weight of the mean of the text in each token."""


class WordEncoder:
    """Encoder with a vector per word, derived from its letters, plus a fraction of the text's mean."""

    def encode(self, texts: Sequence[str], *, token_budget: int = 0) -> list[Embedding]:
        return [self._embedding(text) for text in texts]

    def _embedding(self, text: str) -> Embedding:
        spans = [match.span() for match in re.finditer(r"[\u3040-\u9fff]|\w+|[^\w\s]", text)]
        own = np.array([vector(text[start:end]) for start, end in spans]).reshape(-1, DIM)
        tokens = own + CONTEXT * own.mean(0) if len(own) else own
        return Embedding(
            torch.from_numpy(tokens.astype(np.float32)), np.array(spans, np.uint32).reshape(-1, 2)
        )


def vector(word: str) -> np.ndarray:
    """Case-insensitive vector of a word: [DIM]."""
    seed = int.from_bytes(hashlib.sha256(word.casefold().encode()).digest()[:4], "little")
    return np.random.default_rng(seed).standard_normal(DIM) + 0.3


def write_words(dataset: Path, name: str = "words") -> EmbeddingStore:
    """Store of the passages of a dataset, encoded by `WordEncoder`."""
    texts = sorted(set(Dataset.open(dataset).passages.text.to_list()))
    embeddings = WordEncoder().encode(texts)
    counts = [len(embedding.spans) for embedding in embeddings]
    return write_store(
        dataset / "stores" / name,
        torch.cat([embedding.tokens for embedding in embeddings]),
        np.concatenate([[0], np.cumsum(counts)]),
        texts=texts,
        spans=np.concatenate([embedding.spans for embedding in embeddings]),
        encoder={"id": "words", "max_length": 512},
    )
