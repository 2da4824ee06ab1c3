"""Encoder "lexical": static word vectors that a store keeps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from llmdirect.common.errors import MismatchError, MissingError
from llmdirect.common.files import file_digest
from llmdirect.common.types import Json
from llmdirect.encoding.encoders.tokens import Embedding
from llmdirect.store.lexical import WORD_VECTORS, read_word_vectors
from llmdirect.text.word_vectors import WordVectors


class LexicalEncoder:
    """Encoder that looks words up; one that the vocabulary lacks is no token.

    Parameters
    ----------
    vectors
        Those of the store.
    """

    def __init__(self, vectors: WordVectors) -> None:
        self._vectors = vectors
        self._table = torch.from_numpy(vectors.vectors.astype(np.float32))

    @classmethod
    def from_store(cls, folder: Path, description: Json) -> "LexicalEncoder":
        """Encoder of a store's folder; description: entry "encoder" of its manifest.

        Raises
        ------
        MissingError
            If there is no file of word vectors.
        MismatchError
            If they are others.
        DataError
            If the file is damaged.
        """
        path, cure = folder / WORD_VECTORS, "name the folder of the store with `encoder`"
        if not path.exists():
            raise MissingError(f"{path}: not found, and new texts are read with it; {cure}")
        if file_digest(path) != description["weights"]:
            raise MismatchError(
                f"{path}: not the word vectors of the store that the run was trained on; {cure}, or train "
                "again"
            )
        return cls(read_word_vectors(folder, description["weights"]))

    def encode(self, texts: Sequence[str]) -> list[Embedding]:
        """Embeddings of texts, one token for each word of the vocabulary."""
        found = [self._vectors.lookup(text) for text in texts]
        return [Embedding(self._table[torch.from_numpy(rows)], spans) for rows, spans in found]
