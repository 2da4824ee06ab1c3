"""Context-free word vectors that extend the embeddings of tokens.

A sentence encoder blurs names (of authors, brands, parts), though they decide which items are similar. The
leading directions of the items' TF-IDF vectors (latent semantic analysis, Deerwester et al. 1990) keep them.
As the vector of a word does not depend on its context, a text remains a sum over its tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.text.words import counted_words, token_word_ids


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Vectors of words; an empty lexicon adds nothing to the embeddings."""

    words: tuple[str, ...]
    """V counted words."""
    vectors: Tensor
    """float32 [V, L]"""

    @classmethod
    def empty(cls) -> "Lexicon":
        """Lexicon without words, L = 0."""
        return cls((), torch.zeros(0, 0))

    @property
    def dim(self) -> int:
        """Dimension L of the vectors."""
        return self.vectors.shape[1]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def lookup(self, text: str, spans: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Word and weight of each token of a text.

        Parameters
        ----------
        text
            The text.
        spans
            uint32 [T, 2], characters of its tokens.

        Returns
        -------
        word_idx
            int64 [T], the word in which the token starts; -1 for a word that the lexicon lacks, and for none.
        weight
            float32 [T], one over the number of tokens of the word, 0 where there is no word.
        """
        words, borders = counted_words(text)
        index = np.array([*(self._index.get(word, -1) for word in words), -1], np.int64)
        word = token_word_ids(spans, borders)
        num_tokens = np.bincount(word[word >= 0], minlength=len(words) + 1).clip(min=1)
        return index[word], np.where(word >= 0, 1 / num_tokens[word], 0.0).astype(np.float32)

    def extend(
        self, tokens: NDArray[np.float32], text: str, spans: NDArray[np.uint32]
    ) -> NDArray[np.float32]:
        """Concatenate the embedding and the weighted word vector of each token of a text.

        Parameters
        ----------
        tokens
            float32 [T, D], embeddings.
        text
            The text.
        spans
            uint32 [T, 2], characters of its tokens.

        Returns
        -------
        float32 [T, D + L].
        """
        if not self.dim:
            return tokens
        return np.concatenate([tokens, self.token_vectors(*self.lookup(text, spans)).numpy()], 1)

    def token_vectors(self, word_idx: NDArray[np.int64], weight: NDArray[np.float32]) -> Tensor:
        """Weighted word vectors of tokens, float32 [T, L], from the arrays that `lookup` returns."""
        index = torch.from_numpy(word_idx)
        factor = torch.from_numpy(weight * (word_idx >= 0))
        return self.vectors[index.clamp(min=0)] * factor[:, None]

    def to_tensors(self) -> dict[str, Tensor]:
        """Tensors for a file, which `from_tensors` reads."""
        words = np.frombuffer("\n".join(self.words).encode(), np.uint8)
        return {"vectors": self.vectors, "names": torch.from_numpy(words.copy())}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Lexicon":
        """Lexicon of the tensors that `to_tensors` returned."""
        words = tensors["names"].numpy().tobytes().decode()
        return cls(tuple(words.split("\n")) if words else (), tensors["vectors"])
