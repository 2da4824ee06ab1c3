"""Words out of tokens: one static vector a word type."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llmdirect.content import word_spans, words_of_tokens
from llmdirect.model import unit
from llmdirect.progress import SILENT, Progress
from llmdirect.views import TOKEN_BUDGET, View, length_batches

_PASSAGES = 20_000
_TYPES = 4096
_OCCURRENCES = 5
LINK = 0.2
"""Cosine of two static word vectors from which they are linked, as published."""


@dataclass(frozen=True, eq=False)
class WordTypes:
    """One static vector for each of the most frequent word types of the view's passages.

    The store holds embeddings in context alone; their mean over all occurrences of a word is a static
    embedding of it (Bommasani et al. 2020).
    """

    names: list[str]
    vectors: Tensor
    """float32 [V, D]"""
    centred: Tensor
    """The same less their mean, scaled to length 1: what cosines are taken of."""
    items: Tensor
    """int64 [V] in the texts of how many items the word stands."""

    @classmethod
    def of(cls, view: View, texts: pl.Series, progress: Progress = SILENT) -> "WordTypes":
        """Counts the words of `texts` (one a passage of the view) and averages the most frequent ones.

        At most 20,000 passages are read, evenly spread.
        """
        store = view.store
        chosen = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _PASSAGES)).astype(np.int64))
        place: dict[str, int] = {}
        counts: list[int] = []
        said_of: list[set[int]] = []
        types, shares, lengths = [], [], []
        with progress.task("Reading words", 2 * len(chosen), "passages") as task:
            owners = view.passage_item[torch.from_numpy(chosen).to(view.passage_item.device)].tolist()
            for row, item in zip(chosen.tolist(), owners, strict=True):
                text = str(texts[row])
                words, spans = word_spans(text), store.spans_of(int(view.stored[row]))
                owner = words_of_tokens(spans[spans[:, 1] > spans[:, 0]], words)
                used, word, tokens = np.unique(owner, return_inverse=True, return_counts=True)
                numbers = np.full(len(used), -1)
                for n, (start, end) in enumerate(words[used].tolist()):
                    if text[start].isalpha():
                        number = place.setdefault(text[start:end].casefold(), len(counts))
                        if number == len(counts):
                            counts.append(0)
                            said_of.append(set())
                        counts[number] += 1
                        said_of[number].add(item)
                        numbers[n] = number
                types.append(numbers[word])
                shares.append(1 / tokens[word])
                lengths.append(len(owner))
                task.advance()
            names = sorted(
                (name for name, number in place.items() if counts[number] >= _OCCURRENCES),
                key=lambda name: (-counts[place[name]], name),
            )[:_TYPES]
            kept = np.full(len(counts) + 1, -1)  # the last one is for what is no word
            kept[[place[name] for name in names]] = np.arange(len(names))
            sums = torch.zeros(len(names), view.dim, dtype=torch.float64)
            for batch in length_batches(np.array(lengths, np.int64), TOKEN_BUDGET):
                flat, _ = view.flat_tokens(chosen[batch])
                word = kept[np.concatenate([types[n] for n in batch])]
                share = torch.from_numpy(np.concatenate([shares[n] for n in batch]))
                named = torch.from_numpy(word >= 0)
                sums.index_add_(
                    0, torch.from_numpy(word)[named], flat[named].double() * share[named][:, None]
                )
                task.advance(len(batch))
        total = torch.tensor([counts[place[name]] for name in names]).double()
        vectors = (sums / total[:, None]).float().to(view.pooled.device)
        items = torch.tensor([len(said_of[place[name]]) for name in names], dtype=torch.int64)
        return cls(names, vectors, unit(vectors - vectors.mean(0)), items)

    def draw(self, count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vectors [N, D] of N random types, and float32 [G, N]: the types linked to each of the first G."""
        drawn = torch.randperm(len(self.vectors), generator=generator)[:count].to(self.vectors.device)
        centred = self.centred[drawn]
        centres = centred[: max(1, int(share * len(drawn)))]
        return self.vectors[drawn], (centres @ centred.T >= LINK).to(centred.dtype)
