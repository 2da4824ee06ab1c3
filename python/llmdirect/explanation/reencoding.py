"""Texts without some of their words, encoded again by the run's encoder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ItemText, ReadPassage

if TYPE_CHECKING:
    from llmdirect.encoding.encoders import PassageEncoder

_CACHED_TEXTS = 20_000
"""Texts whose sums are cached."""


def without_words(text: str, spans: NDArray[np.int64], deleted: NDArray[np.bool_]) -> str:
    """Text without the deleted words, and without white space that would be doubled or at either end.

    Parameters
    ----------
    spans
        [W, 2] characters of all words.
    deleted
        [W]
    """
    pieces, position, last = [], 0, " "
    for start, end in spans[deleted].tolist():
        piece = text[position:start]
        pieces.append(piece)
        last, position = piece[-1:] or last, end
        while last.isspace() and position < len(text) and text[position].isspace():
            position += 1
    joined = "".join([*pieces, text[position:]])
    return joined.rstrip() if pieces and position == len(text) else joined


def texts_without(passages: Sequence[ReadPassage], text: ItemText, words: Sequence[int]) -> list[str]:
    """Texts of a document's passages without some of its words (indices into `text`)."""
    owner, deleted = text.passage.numpy(), np.zeros(len(text), bool)
    deleted[list(words)] = True
    return [
        without_words(passage.text, text.spans[owner == number], deleted[owner == number])
        for number, passage in enumerate(passages)
    ]


class Reencoder:
    """Text terms of documents whose texts were changed; each text is encoded once, and summed as in training.

    Parameters
    ----------
    encoder
        That of the run's store (`load_run_encoder`).
    """

    def __init__(self, explainer: Explainer, encoder: "PassageEncoder") -> None:
        self._encoder = encoder
        self._model, self._trained = explainer.texts.model, explainer.trained
        channels, self._dtype = torch.tensor(explainer.texts.store.channels), explainer.texts.store.dtype
        self._calibration = replace(self._trained.calibration, channels=channels if len(channels) else None)
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.tokens = 0
        """Number of tokens encoded so far."""

    def add(self, passages: Sequence[ReadPassage]) -> None:
        """Add passages that need no encoding to the cache."""
        for passage in passages:
            self._sums[passage.text] = passage.sums(self._model, self._trained.lexicon)

    def read(self, texts: Sequence[str]) -> None:
        """Encode the texts that are not cached, all together."""
        new = sorted({text for text in texts if text.strip()} - self._sums.keys())
        if len(self._sums) + len(new) > _CACHED_TEXTS:
            self._sums = {text: self._sums[text] for text in texts if text in self._sums}
        embeddings = self._encoder.encode(new)
        for text, embedding in zip(new, embeddings, strict=True):
            self.tokens += len(embedding.spans)
            [kept] = self._trained.token_format.kept([text], [embedding.spans])
            # As `precompute` stores them and a store returns them.
            stored = self._calibration.quantize(embedding.tokens.float(), self._dtype)
            spans, vectors = embedding.spans[kept], self._calibration.dequantize(stored).numpy()[kept]
            self._sums[text] = ReadPassage(text, spans, vectors).sums(self._model, self._trained.lexicon)

    def text_term(self, query: Tensor, texts: Sequence[str]) -> float:
        """Text term of a document of these texts for an exported query float64 [K or A]."""
        self.read(texts)
        preference = torch.zeros(self._model.aspects * self._model.channels, dtype=torch.float64)
        mentions = torch.zeros(self._model.aspects, dtype=torch.float64)
        for text in texts:
            if text.strip():
                preference, mentions = preference + self._sums[text][0], mentions + self._sums[text][1]
        return float(self._model.form.text_term(query, preference, mentions))
