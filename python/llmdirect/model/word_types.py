"""Word types of the training text: mean vectors, frequencies and aspect names."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor

from llmdirect.common.progress import SILENT, Progress
from llmdirect.model.direct import Direct, normalize
from llmdirect.model.token_reader import TOKEN_BUDGET, length_batches
from llmdirect.model.train_view import TrainView
from llmdirect.text.words import is_function_word, token_word_ids, word_spans

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
    def from_view(cls, view: TrainView, texts: pl.Series, progress: Progress = SILENT) -> "WordTypes":
        """Counts the words of `texts` (one a passage of the view) and averages the most frequent ones.

        At most 20,000 passages are read, evenly spread.
        """
        store = view.store
        chosen = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _PASSAGES)).astype(np.int64))
        place: dict[str, int] = {}
        types, shares, occurrences = [], [], []
        with progress.task("Reading words", 2 * len(chosen), "passages") as task:
            for row in chosen.tolist():
                text = str(texts[row])
                words, spans = word_spans(text), store.spans_of(int(view.stored[row]))
                owner = token_word_ids(spans[spans[:, 1] > spans[:, 0]], words)
                used, word, tokens = np.unique(owner, return_inverse=True, return_counts=True)
                numbers = np.array(
                    [
                        place.setdefault(text[start:end].casefold(), len(place))
                        if text[start].isalpha()
                        else -1
                        for start, end in words[used].tolist()
                    ],
                    np.int64,
                )
                types.append(numbers[word])
                shares.append(1 / tokens[word])
                occurrences.append(numbers)
                task.advance()
            number = np.concatenate([np.empty(0, np.int64), *occurrences])
            about = view.passage_item.cpu().numpy()[chosen].repeat([len(one) for one in occurrences])
            number, about = number[number >= 0], about[number >= 0]
            counts = np.bincount(number, minlength=len(place))
            pairs = np.unique(number * (view.num_items + 1) + about + 1)  # about nothing: -1
            said_of = np.bincount(pairs // (view.num_items + 1), minlength=len(place))
            names = sorted(
                (name for name, number in place.items() if counts[number] >= _OCCURRENCES),
                key=lambda name: (-counts[place[name]], name),
            )[:_TYPES]
            kept = np.full(len(place) + 1, -1)  # the last one is for what is no word
            kept[[place[name] for name in names]] = np.arange(len(names))
            sums = np.zeros((len(names), view.dim))
            lengths = np.array([len(one) for one in types], np.int64)
            for batch in length_batches(lengths, TOKEN_BUDGET):
                flat = view.flat_tokens(chosen[batch])[0].numpy()
                word = kept[np.concatenate([types[n] for n in batch])]
                share = np.concatenate([shares[n] for n in batch])
                tokens = np.flatnonzero(word >= 0)
                tokens = tokens[np.argsort(word[tokens], kind="stable")]
                said, borders = np.unique(word[tokens], return_index=True)
                # Word by word, in cache, as passages are pooled.
                for name, of_word in zip(said.tolist(), np.split(tokens, borders[1:]), strict=True):
                    sums[name] += share[of_word] @ flat[of_word].astype(np.float64)
                task.advance(len(batch))
        order = np.array([place[name] for name in names], np.int64)
        vectors = torch.from_numpy(sums / counts[order, None]).float().to(view.pooled.device)
        items = torch.from_numpy(said_of[order].astype(np.int64))
        return cls(names, vectors, normalize(vectors - vectors.mean(0)), items)

    def draw(self, count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Vectors [N, D] of N random types, and float32 [G, N]: the types linked to each of the first G."""
        drawn = torch.randperm(len(self.vectors), generator=generator)[:count].to(self.vectors.device)
        centred = self.centred[drawn]
        centres = centred[: max(1, int(share * len(drawn)))]
        return self.vectors[drawn], (centres @ centred.T >= LINK).to(centred.dtype)


NAME_WORDS = 5


def aspect_names(model: Direct, words: WordTypes) -> list[str]:
    """For each of the A aspects its most telling words, comma separated.

    Telling: a large share of what the word's static vector says (the norm of s_tk m_tk over the channels)
    belongs to this aspect, and the word is said of many items: share · log(1 + items). By the share
    alone, model numbers and misspellings would name most aspects. Function words name nothing. An aspect
    for which there are no words is called by its number.
    """
    if not words.names:
        return [f"aspect {aspect}" for aspect in range(model.aspects)]
    with torch.no_grad():
        said, _ = model.token_terms(model.standard(words.vectors))
        size = said.view(len(said), model.aspects, -1).norm(dim=2)
        share = size / size.sum(1, keepdim=True).clamp(min=1e-12)
        telling = share * words.items.to(share)[:, None].log1p()
    naming = [index for index, name in enumerate(words.names) if not is_function_word(name)]
    best = telling[naming].topk(min(NAME_WORDS, len(naming)), dim=0).indices.T.tolist()
    named = [", ".join(words.names[naming[index]] for index in row) for row in best]
    return [name or f"aspect {aspect}" for aspect, name in enumerate(named)]
