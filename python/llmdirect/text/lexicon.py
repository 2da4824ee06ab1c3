"""What a word says whatever its context: numbers beside the embedding of each of its tokens.

A sentence encoder blurs names (of authors, of brands, of parts), though they decide what is alike. The
leading directions of the items' TF-IDF (latent semantic analysis, Deerwester et al. 1990) keep them, and
since a word brings the same numbers wherever it stands, a text remains a sum over its tokens.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.text.words import plain_letters

COUNTED = r"\w{2,}"
"""What counts as a word, for Python's expressions and for those of Rust."""
_COUNTED = re.compile(COUNTED)


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Numbers of each word that it knows; `Lexicon.none()` knows none, and adds nothing to an embedding."""

    names: tuple[str, ...]
    """V words, in lower case."""
    vectors: Tensor
    """float32 [V, L]"""

    @classmethod
    def none(cls) -> "Lexicon":
        """Without words, L = 0."""
        return cls((), torch.zeros(0, 0))

    @property
    def dim(self) -> int:
        """L"""
        return self.vectors.shape[1]

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def find(self, text: str, spans: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The word in which each token [T, 2] starts, -1 for none of these, and the token's share of it.

        The tokens of a word share its numbers alike.
        """
        matches = [match.span() for match in _COUNTED.finditer(plain_letters(text))]
        borders = np.array(matches, np.int64).reshape(-1, 2)
        words = np.array([self._place.get(text[a:b].lower(), -1) for a, b in matches] + [-1], np.int64)
        starts = spans[:, 0].astype(np.int64)
        owner = np.searchsorted(borders[:, 1], starts, side="right")
        inside = (spans[:, 1] > starts) & (starts >= np.append(borders[:, 0], np.iinfo(np.int64).max)[owner])
        owner = np.where(inside, owner, len(matches))
        share = 1 / np.bincount(owner, minlength=len(matches) + 1).clip(min=1)
        return words[owner], np.where(inside, share[owner], 0.0).astype(np.float32)

    def beside(
        self, tokens: NDArray[np.float32], text: str, spans: NDArray[np.uint32]
    ) -> NDArray[np.float32]:
        """float32 [T, D + L]: embeddings of a text's tokens [T, D], each with the numbers of its word."""
        if not self.dim:
            return tokens
        return np.concatenate([tokens, self.numbers(*self.find(text, spans)).numpy()], 1)

    def numbers(self, words: NDArray[np.int64], share: NDArray[np.float32]) -> Tensor:
        """float32 [T, L] of tokens that `find` told."""
        found = torch.from_numpy(words)
        known = torch.from_numpy(share * (words >= 0))
        return self.vectors[found.clamp(min=0)] * known[:, None]

    def tensors(self) -> dict[str, Tensor]:
        """As a file keeps it; `from_tensors` reads it."""
        names = np.frombuffer("\n".join(self.names).encode(), np.uint8)
        return {"vectors": self.vectors, "names": torch.from_numpy(names.copy())}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Lexicon":
        """What `tensors` gave."""
        names = tensors["names"].numpy().tobytes().decode()
        return cls(tuple(names.split("\n")) if names else (), tensors["vectors"])
