"""Texts without some of their words, read again by the language model that the run's embeddings are of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.explanation.explainer import Explainer
from llmdirect.explanation.item_document import ItemText, ReadPassage, text_term

if TYPE_CHECKING:
    from llmdirect.encoding.encoders import Encoder

_KEPT = 20_000
"""Texts whose sums are kept."""


def without_words(text: str, spans: NDArray[np.int64], gone: NDArray[np.bool_]) -> str:
    """The text without the words (characters `spans` [W, 2]) that are `gone` [W].

    White space that would then stand twice, or at the text's start or end, goes with the word.
    """
    pieces, position, last = [], 0, " "
    for start, end in spans[gone].tolist():
        piece = text[position:start]
        pieces.append(piece)
        last, position = piece[-1:] or last, end
        while last.isspace() and position < len(text) and text[position].isspace():
            position += 1
    whole = "".join([*pieces, text[position:]])
    return whole.rstrip() if pieces and position == len(text) else whole


def texts_without(passages: Sequence[ReadPassage], text: ItemText, gone: Sequence[int]) -> list[str]:
    """The texts of a document without these of its words."""
    owner, out = text.passage.numpy(), np.zeros(len(text), bool)
    out[list(gone)] = True
    return [
        without_words(one.text, text.spans[owner == number], out[owner == number])
        for number, one in enumerate(passages)
    ]


class Reencoder:
    """The text term of items whose texts were changed: each is encoded once, and summed as in training."""

    def __init__(self, explainer: Explainer, encoder: "Encoder") -> None:
        """encoder: the one that the store was made with (`recommendation.load_run_encoder`)."""
        self._encoder = encoder
        self._model, self._trained = explainer.model, explainer.trained
        channels, self._dtype = torch.tensor(explainer.store.channels), explainer.store.dtype
        self._calibration = replace(self._trained.calibration, channels=channels if len(channels) else None)
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.tokens = 0
        """How many tokens the language model has read."""

    def know(self, passages: Sequence[ReadPassage]) -> None:
        """Takes these as they were read."""
        for passage in passages:
            self._sums[passage.text] = passage.sums(self._model, self._trained.lexicon)

    def read(self, texts: Sequence[str]) -> None:
        """Encodes those of the texts that are not known yet, all together."""
        new = sorted({text for text in texts if text.strip()} - self._sums.keys())
        if len(self._sums) + len(new) > _KEPT:
            self._sums = {text: self._sums[text] for text in texts if text in self._sums}
        embeddings = self._encoder.encode(new)
        for text, embedding in zip(new, embeddings, strict=True):
            self.tokens += len(embedding.spans)
            [kept] = self._trained.token_format.kept([text], [embedding.spans])
            # As `precompute` stores them and a reader has them back.
            stored = self._calibration.quantize(embedding.tokens.float(), self._dtype)
            spans, vectors = embedding.spans[kept], self._calibration.dequantize(stored).numpy()[kept]
            self._sums[text] = ReadPassage(text, spans, vectors).sums(self._model, self._trained.lexicon)

    def text_term(self, query: Tensor, texts: Sequence[str]) -> float:
        """The text term of a document of these texts, for a query as the scorer has it."""
        self.read(texts)
        preference = torch.zeros(self._model.aspects * self._model.channels, dtype=torch.float64)
        mentions = torch.zeros(self._model.aspects, dtype=torch.float64)
        for text in texts:
            if text.strip():
                preference, mentions = preference + self._sums[text][0], mentions + self._sums[text][1]
        return float(text_term(self._model, query, preference, mentions))
