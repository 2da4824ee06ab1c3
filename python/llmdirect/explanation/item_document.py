"""An item's document word by word, and what each word does to the score in closed form, in float64."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.model.direct import Direct
from llmdirect.ranking.scorer import EPS
from llmdirect.text.lexicon import Lexicon
from llmdirect.text.words import token_word_ids, word_spans

_Inputs = tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]
_TOKENS_AT_ONCE = 1 << 14  # in float64: an item of thousands of texts must not stand in memory as tokens


@dataclass(frozen=True, eq=False)
class ReadPassage:
    """A text with the vectors of its tokens, as a language model has read it."""

    text: str
    spans: NDArray[np.uint32]
    """[T, 2] characters of each token."""
    tokens: NDArray[np.float32]
    """[T, D], without the lexicon's numbers."""

    def inputs(self, lexicon: Lexicon) -> _Inputs:
        """What the model reads: float64 [T', D + L] of the tokens with characters, int64 [T'] the word that
        each belongs to, int64 [W, 2] characters of these words: those in which some token starts."""
        tokens = lexicon.extend(self.tokens, self.text, self.spans)
        words = word_spans(self.text)
        word = token_word_ids(self.spans, words)
        kept = word >= 0
        used, word = np.unique(word[kept], return_inverse=True)
        return torch.from_numpy(tokens[kept]).double(), word, words[used]

    def sums(self, model: Direct, lexicon: Lexicon) -> tuple[Tensor, Tensor]:
        """float64 P [K] and Q [A] of the passage by itself; zeros without tokens. model: in float64."""
        tokens, _, _ = self.inputs(lexicon)
        with torch.no_grad():
            terms, mentions = model.token_terms(model.standard(tokens))
        weight = 1 / max(1, len(tokens)) if model.config.equal_reviews else 1.0
        return terms.sum(0) * weight, mentions.sum(0) * weight


@dataclass(frozen=True, eq=False)
class ItemText:
    """An item's document word by word, in float64. W words, K = A * C, R passages."""

    preference: Tensor
    """[W, K] Σ of a word's tokens of s_t m_t, each token with its weight."""
    mentions: Tensor
    """[W, A] the same of m_t."""
    share: Tensor
    """[W] share of the document's weight that the word has; adds up to 1."""
    passage: Tensor
    """int64 [W] number of the passage the word stands in."""
    remaining: Tensor
    """[W] growth of the passage's other words when this one is gone; 1 where each token has a vote."""
    spans: NDArray[np.int64]
    """[W, 2] characters of the passage."""
    equal_reviews: bool
    """Whether each passage has one vote, which its words share."""

    @classmethod
    def from_passages(cls, passages: Sequence[ReadPassage], model: Direct, lexicon: Lexicon) -> "ItemText":
        """Sums the tokens of the passages by word. model: in float64."""
        width = model.aspects * model.channels
        preference, mentions = [torch.zeros(0, width).double()], [torch.zeros(0, model.aspects).double()]
        tokens_of, spans = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)]
        num_words: list[int] = []
        for group in _read_in_groups(passages, lexicon):
            lengths = [len(words) for _, _, words in group]
            *firsts, total = np.cumsum([0, *lengths]).tolist()
            word = np.concatenate([own + first for (_, own, _), first in zip(group, firsts, strict=True)])
            tokens = torch.cat([each for each, _, _ in group])
            for kept, sums in zip(
                (preference, mentions), _by_word(model, tokens, torch.from_numpy(word), total), strict=True
            ):
                kept.append(sums)
            tokens_of.append(np.bincount(word, minlength=total))
            spans += [words for _, _, words in group]
            num_words += lengths
        counts = torch.from_numpy(np.concatenate(tokens_of)).double()
        owner = torch.from_numpy(np.repeat(np.arange(len(num_words)), num_words))
        length = torch.zeros(len(num_words)).double().index_add_(0, owner, counts)[owner]
        weight, remaining = torch.ones_like(counts), torch.ones_like(counts)
        if model.config.equal_reviews:
            weight, others = 1 / length, length - counts
            remaining = torch.where(others > 0, length / others.clamp(min=1), 0.0)
        share = counts * weight
        return cls(
            torch.cat(preference) * weight[:, None],
            torch.cat(mentions) * weight[:, None],
            share / share.sum(),
            owner,
            remaining,
            np.concatenate(spans),
            model.config.equal_reviews,
        )

    def __len__(self) -> int:
        """W"""
        return len(self.preference)

    def only(self, words: NDArray[np.int64]) -> "ItemText":
        """The document with these words alone, in this order, each token's vector as it was read.

        Where each review has one vote, the words that are left of one share it.
        """
        preference, mentions, share = self.preference[words], self.mentions[words], self.share[words]
        passage, remaining = self.passage[words], self.remaining[words]
        whole = torch.zeros(int(self.passage.max()) + 1 if len(self) else 0, dtype=torch.float64)
        before = whole.index_add(0, self.passage, self.share)
        after = whole.index_add(0, passage, share)
        if self.equal_reviews:
            grown = (before / after.clamp(min=1e-300))[passage]
            preference, mentions, share = (
                preference * grown[:, None],
                mentions * grown[:, None],
                share * grown,
            )
            others = before[passage] - share
            remaining = torch.where(others > 1e-12, before[passage] / others.clamp(min=1e-300), 0.0)
        return ItemText(
            preference,
            mentions,
            share / share.sum(),
            passage,
            remaining,
            self.spans[words],
            equal_reviews=self.equal_reviews,
        )

    def products(self, query: Tensor, model: Direct) -> Tensor:
        """float64 [W, A]: what each word adds to the text term by aspect, as the document now stands."""
        by_aspect = (self.preference * query).view(len(self), model.aspects, model.channels).sum(2)
        if model.config.score_form == "cosine":
            over: Tensor = self.preference.sum(0).norm().clamp(min=1e-12)
        else:
            over = self.mentions.sum(0) @ query + EPS
        return by_aspect / over

    def effects(self, query: Tensor, model: Direct) -> tuple[Tensor, Tensor]:
        """[W] the text term less the text term without the word; [R] the same for whole passages."""
        preference, mentions = self.preference.sum(0), self.mentions.sum(0)
        now = text_term(model, query, preference, mentions)
        count = int(self.passage.max()) + 1 if len(self) else 0
        passage_preference = _summed(self.preference, self.passage, count)
        passage_mentions = _summed(self.mentions, self.passage, count)
        # Exactly nothing is left without the only passage, not a rounding residue.
        several = float(bool((self.passage != self.passage[:1]).any()))
        others_preference, others_mentions = (
            (preference - passage_preference) * several,
            (mentions - passage_mentions) * several,
        )
        rest_preference = passage_preference[self.passage].sub_(self.preference).mul_(self.remaining[:, None])
        rest_mentions = (passage_mentions[self.passage] - self.mentions) * self.remaining[:, None]
        without_word = text_term(
            model,
            query,
            rest_preference.add_(others_preference[self.passage]),
            rest_mentions + others_mentions[self.passage],
        )
        return now - without_word, now - text_term(model, query, others_preference, others_mentions)


def text_term(model: Direct, query: Tensor, preference: Tensor, mentions: Tensor) -> Tensor:
    """float64 […]: the text term of documents with the sums P […, K] and Q […, A]."""
    if model.config.score_form == "cosine":
        lengths = preference.norm(dim=-1)
        cosine: Tensor = (preference @ query) / torch.where(lengths > 0, lengths, 1.0)
        return cosine
    ratio: Tensor = (preference @ query) / (mentions @ query + EPS)
    return ratio


def _read_in_groups(passages: Sequence[ReadPassage], lexicon: Lexicon) -> Iterator[list[_Inputs]]:
    """What `inputs` gives of each passage, in lists of a number of tokens that memory holds."""
    group: list[_Inputs] = []
    num_tokens = 0
    for passage in passages:
        group.append(passage.inputs(lexicon))
        num_tokens += len(group[-1][0])
        if num_tokens >= _TOKENS_AT_ONCE:
            yield group
            group, num_tokens = [], 0
    if group:
        yield group


def _by_word(model: Direct, tokens: Tensor, word: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Σ s_t m_t [count, K] and Σ m_t [count, A] over each word's tokens [T, D]."""
    if model.mentions_uniform:  # the tokens first: one product a word in place of one a token
        number = torch.bincount(word, minlength=count).double()
        return model.pooled_terms(_summed(tokens, word, count), number)
    terms, mentions = model.token_terms(model.standard(tokens))
    return _summed(terms, word, count), _summed(mentions, word, count)


def _summed(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """float64 [count, N] sums of rows [n, N] by index [n]."""
    return torch.zeros(count, rows.shape[1]).double().index_add_(0, index, rows)
