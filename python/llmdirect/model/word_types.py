"""Word types of the training text: mean vectors, frequencies and aspect names."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.progress import SILENT, Progress
from llmdirect.model.direct import Direct
from llmdirect.model.token_reader import TOKEN_BUDGET, length_batches
from llmdirect.model.train_view import TrainView
from llmdirect.model.vectors import normalize
from llmdirect.text.words import count_words, counted_words, is_function_word, token_word_ids

_MAX_PASSAGES = 20_000
_MAX_TYPES = 4096
_MIN_COUNT = 5

LINK = 0.2
"""Cosine of two static word vectors from which they are linked, as published."""

NAME_WORDS = 5
"""Words in the name of an aspect."""


@dataclass(frozen=True, eq=False)
class WordTypes:
    """Static vectors of the most frequent word types in the view's passages. V types.

    The store holds embeddings in context alone; their mean over all occurrences of a word is a static
    embedding of it (Bommasani et al. 2020).
    """

    names: list[str]
    vectors: Tensor
    """float32 [V, D]"""
    centred: Tensor
    """float32 [V, D] `vectors` minus their mean, scaled to length 1, for cosines."""
    items: Tensor
    """int64 [V] number of items in whose texts the word occurs."""

    @classmethod
    def from_view(cls, view: TrainView, texts: pl.Series, progress: Progress = SILENT) -> "WordTypes":
        """The 4,096 most frequent word types, of at most 20,000 evenly spread passages.

        Parameters
        ----------
        texts
            [R] texts of the view's passages.
        """
        if view.store.keyed_by != "text":
            return cls.from_whole_texts(view, texts)
        rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _MAX_PASSAGES)).astype(np.int64))
        with progress.task("Reading words", 2 * len(rows), "passages") as task:
            occurrences = _Occurrences()
            for row in rows.tolist():
                occurrences.add(str(texts[row]), view.store.spans_of(int(view.stored[row])))
                task.advance()
            types, counts = occurrences.frequent()
            items = occurrences.item_counts(view.passage_item.cpu().numpy()[rows], view.num_items)[types]
            sums = np.zeros((len(types), view.dim))
            for batch, word, token_sums in occurrences.token_sums(view, rows, types):
                sums[word] += token_sums
                task.advance(batch)
        vectors = torch.from_numpy(sums / counts[:, None]).float().to(view.pooled.device)
        names = [occurrences.names[number] for number in types.tolist()]
        centred = normalize(vectors - vectors.mean(0))
        return cls(names, vectors, centred, torch.from_numpy(items))

    @classmethod
    def from_whole_texts(cls, view: TrainView, texts: pl.Series) -> "WordTypes":
        """Word types of vectors that stand for whole texts: the mean vector of the texts with the word."""
        vocabulary, indptr, words, counts = count_words(texts.to_list())
        passage = np.repeat(np.arange(len(texts)), np.diff(indptr))
        kept = (view.lengths.cpu().numpy() > 0)[passage]
        totals = np.bincount(words[kept], counts[kept], minlength=len(vocabulary))
        candidates = [n for n, name in enumerate(vocabulary) if name[0].isalpha() and totals[n] >= _MIN_COUNT]
        candidates.sort(key=lambda n: (-totals[n], vocabulary[n]))
        types = np.array(candidates[:_MAX_TYPES], np.int64)
        column = np.full(len(vocabulary), -1)
        column[types] = np.arange(len(types))
        kept &= column[words] >= 0
        matrix = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack([column[words[kept]], passage[kept]])),
            torch.from_numpy(counts[kept]).double(),
            (len(types), len(texts)),
            check_invariants=False,
        )
        vectors = (matrix @ view.pooled.cpu().double()) / torch.from_numpy(totals[types])[:, None]
        item = view.passage_item.cpu().numpy()[passage[kept]]
        pairs = np.unique(column[words[kept]][item >= 0] * view.num_items + item[item >= 0])
        items = np.bincount(pairs // view.num_items, minlength=len(types)).astype(np.int64)
        vectors = vectors.float().to(view.pooled.device)
        centred = normalize(vectors - vectors.mean(0)) if len(types) else vectors
        return cls([vocabulary[n] for n in types.tolist()], vectors, centred, torch.from_numpy(items))

    def draw(self, count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random types and their links, for the rate reduction.

        Parameters
        ----------
        count
            Number N of types drawn.
        share
            Share of these that are centres of groups, at least one.

        Returns
        -------
        vectors
            [N, D]
        linked
            float32 [G, N] 1 where a type is linked to one of the first G.
        """
        drawn = torch.randperm(len(self.vectors), generator=generator)[:count].to(self.vectors.device)
        centred = self.centred[drawn]
        centres = centred[: max(1, int(share * len(drawn)))]
        return self.vectors[drawn], (centres @ centred.T >= LINK).to(centred.dtype)


@dataclass(eq=False)
class _Occurrences:
    """Words of passages, in order of first occurrence. n passages, M different words."""

    numbers: dict[str, int] = field(default_factory=dict)
    """Number of each counted word, from 0 to M - 1."""
    of_passages: list[NDArray[np.int64]] = field(default_factory=list)
    """Word number of each word in a passage, -1 for numbers and for what is not counted."""
    of_tokens: list[NDArray[np.int64]] = field(default_factory=list)
    """Word number of each token with characters, or -1."""
    token_shares: list[NDArray[np.float64]] = field(default_factory=list)
    """Inverse number of tokens of the word that each token belongs to."""

    def add(self, text: str, spans: NDArray[np.uint32]) -> None:
        """Append a passage; spans: [T, 2] characters of its tokens."""
        words, borders = counted_words(text)
        owner = token_word_ids(spans[spans[:, 1] > spans[:, 0]], borders)
        used, word, tokens = np.unique(owner, return_inverse=True, return_counts=True)
        numbers = [
            self.numbers.setdefault(words[position], len(self.numbers))
            if position >= 0 and words[position][0].isalpha()
            else -1
            for position in used.tolist()
        ]
        self.of_passages.append(np.array(numbers, np.int64))
        self.of_tokens.append(self.of_passages[-1][word])
        self.token_shares.append(1 / tokens[word])

    @property
    def names(self) -> list[str]:
        """[M] words."""
        return list(self.numbers)

    def _all(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *self.of_passages])

    def frequent(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers [V] of the most frequent words, most frequent first, and their counts [V]."""
        number = self._all()
        counts = np.bincount(number[number >= 0], minlength=len(self.numbers))
        candidates = [(name, number) for name, number in self.numbers.items() if counts[number] >= _MIN_COUNT]
        candidates.sort(key=lambda entry: (-counts[entry[1]], entry[0]))
        types = np.array([number for _, number in candidates[:_MAX_TYPES]], np.int64)
        return types, counts[types]

    def item_counts(self, items: NDArray[np.int64], num_items: int) -> NDArray[np.int64]:
        """int64 [M] number of items in whose passages each word occurs; items: [n], -1 for none."""
        number = self._all()
        item = items.repeat([len(words) for words in self.of_passages])
        number, item = number[number >= 0], item[number >= 0]
        pairs = np.unique(number * (num_items + 1) + item + 1)  # no item: 0
        return np.bincount(pairs // (num_items + 1), minlength=len(self.numbers)).astype(np.int64)

    def token_sums(
        self, view: TrainView, rows: NDArray[np.int64], types: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
        """Sums of token embeddings by word, in batches of passages.

        Yields the number of passages, and for the types [W] in them their positions in `types` and float64
        [W, D] sums of token embeddings, each word with weight 1.
        """
        positions = np.full(len(self.numbers) + 1, -1)  # the last one is for word number -1
        positions[types] = np.arange(len(types))
        lengths = np.array([len(words) for words in self.of_tokens], np.int64)
        for batch in length_batches(lengths, TOKEN_BUDGET):
            flat = view.flat_tokens(rows[batch])[0].numpy()
            word = positions[np.concatenate([self.of_tokens[n] for n in batch])]
            share = np.concatenate([self.token_shares[n] for n in batch])
            tokens = np.flatnonzero(word >= 0)
            tokens = tokens[np.argsort(word[tokens], kind="stable")]
            present, starts = np.unique(word[tokens], return_index=True)
            sums = np.zeros((len(present), view.dim))
            # Word by word, in cache, as passages are pooled.
            for row, of_word in enumerate(np.split(tokens, starts[1:]) if len(present) else ()):
                sums[row] = share[of_word] @ flat[of_word].astype(np.float64)
            yield len(batch), present, sums


def aspect_names(model: Direct, words: WordTypes) -> list[str]:
    """Names of the A aspects: comma separated top words of each.

    Words are ordered by share · log(1 + items), where the share is that of this aspect in the size of the
    word's signed terms (norm over the channels) and items are those in whose texts the word occurs. By the
    share alone model numbers and misspellings would name most aspects. Function words are left out. An aspect
    without words is called by its index.
    """
    if not words.names:
        return [f"aspect {aspect}" for aspect in range(model.aspects)]
    with torch.no_grad():
        terms, _ = model.token_terms(model.standard(words.vectors))
        size = terms.view(len(terms), model.aspects, -1).norm(dim=2)
        share = size / size.sum(1, keepdim=True).clamp(min=1e-12)
        relevance = share * words.items.to(share)[:, None].log1p()
    content = [index for index, name in enumerate(words.names) if not is_function_word(name)]
    best = relevance[content].topk(min(NAME_WORDS, len(content)), dim=0).indices.T.tolist()
    names = [", ".join(words.names[content[index]] for index in row) for row in best]
    return [name or f"aspect {aspect}" for aspect, name in enumerate(names)]
