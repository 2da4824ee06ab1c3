"""Item documents word by word, with closed-form effects of words on the score, in float64."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.model.direct import Direct
from llmdirect.model.forms import aspect_products
from llmdirect.model.vectors import tokens_per_vote
from llmdirect.text.lexicon import Lexicon
from llmdirect.text.words import token_word_ids, word_spans

_Inputs = tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]
_TOKENS_AT_ONCE = 1 << 14
"""Tokens in memory at a time, in float64."""


@dataclass(frozen=True, eq=False)
class ReadPassage:
    """Text with its token embeddings."""

    text: str
    spans: NDArray[np.uint32]
    """[T, 2] start and end character of each token."""
    tokens: NDArray[np.float32]
    """[T, D] embeddings, without the lexicon's vectors."""
    is_whole: bool = False
    """Whether each token stands for the whole text, which is then one word."""

    def inputs(self, lexicon: Lexicon) -> _Inputs:
        """Model inputs of the tokens that belong to a word; special tokens are dropped.

        Returns
        -------
        tokens
            float64 [T', D + L]
        word
            int64 [T'] word of each token.
        spans
            int64 [W, 2] characters of the words in which some token starts.
        """
        tokens = lexicon.extend(self.tokens, self.text, self.spans)
        if self.is_whole:
            word, words = np.zeros(len(tokens), np.int64), np.array([[0, len(self.text)]], np.int64)
            return torch.from_numpy(tokens).double(), word, words[: len(tokens)]
        words = word_spans(self.text)
        word = token_word_ids(self.spans, words)
        kept = word >= 0
        used, word = np.unique(word[kept], return_inverse=True)
        return torch.from_numpy(tokens[kept]).double(), word, words[used]

    def sums(self, model: Direct, lexicon: Lexicon) -> tuple[Tensor, Tensor]:
        """P [K] and Q [A] of the passage in float64; zeros without tokens. model: in float64."""
        tokens, _, _ = self.inputs(lexicon)
        with torch.no_grad():
            terms, mentions = model.token_terms(model.standard(tokens))
        weight = 1 / tokens_per_vote(torch.tensor(len(tokens)), model.config.equal_reviews).double()
        return terms.sum(0) * weight, mentions.sum(0) * weight


@dataclass(frozen=True, eq=False)
class ItemText:
    """Document of an item word by word, in float64. W words, K = A * C, R passages."""

    preference: Tensor
    """[W, K] weighted sum of the signed terms s_t m_t of each word's tokens."""
    mentions: Tensor
    """[W, A] weighted sum of the mentions m_t."""
    share: Tensor
    """[W] share of each word in the document's weight; adds up to 1."""
    passage: Tensor
    """int64 [W] passage of each word."""
    rest_scale: Tensor
    """[W] factor of the passage's other words when this one is deleted; 1 where each token has a vote."""
    spans: NDArray[np.int64]
    """[W, 2] start and end character in the passage."""
    equal_reviews: bool
    """Whether each passage has one vote, which its words share."""

    @classmethod
    def from_passages(cls, passages: Sequence[ReadPassage], model: Direct, lexicon: Lexicon) -> "ItemText":
        """Document of these passages; model: in float64."""
        width = model.aspects * model.channels
        preference, mentions = [torch.zeros(0, width).double()], [torch.zeros(0, model.aspects).double()]
        tokens_of, spans = [np.zeros(0, np.int64)], [np.zeros((0, 2), np.int64)]
        num_words: list[int] = []
        for group in _read_in_groups(passages, lexicon):
            lengths = [len(words) for _, _, words in group]
            *firsts, total = np.cumsum([0, *lengths]).tolist()
            word = np.concatenate([own + first for (_, own, _), first in zip(group, firsts, strict=True)])
            tokens = torch.cat([vectors for vectors, _, _ in group])
            for parts, sums in zip(
                (preference, mentions), _by_word(model, tokens, torch.from_numpy(word), total), strict=True
            ):
                parts.append(sums)
            tokens_of.append(np.bincount(word, minlength=total))
            spans += [words for _, _, words in group]
            num_words += lengths
        counts = torch.from_numpy(np.concatenate(tokens_of)).double()
        owner = torch.from_numpy(np.repeat(np.arange(len(num_words)), num_words))
        length = torch.zeros(len(num_words)).double().index_add_(0, owner, counts)[owner]
        weight, rest_scale = 1 / tokens_per_vote(length, model.config.equal_reviews), torch.ones_like(counts)
        if model.config.equal_reviews:
            others = length - counts
            rest_scale = torch.where(others > 0, length / others.clamp(min=1), 0.0)
        share = counts * weight
        return cls(
            torch.cat(preference) * weight[:, None],
            torch.cat(mentions) * weight[:, None],
            share / share.sum(),
            owner,
            rest_scale,
            np.concatenate(spans),
            model.config.equal_reviews,
        )

    def __len__(self) -> int:
        """W"""
        return len(self.preference)

    def subset(self, words: NDArray[np.int64]) -> "ItemText":
        """Document of these words alone, in this order, with token embeddings unchanged.

        Where each review has one vote, its remaining words share it.
        """
        preference, mentions, share = self.preference[words], self.mentions[words], self.share[words]
        passage, rest_scale = self.passage[words], self.rest_scale[words]
        zeros = torch.zeros(int(self.passage.max()) + 1 if len(self) else 0, dtype=torch.float64)
        before = zeros.index_add(0, self.passage, self.share)
        after = zeros.index_add(0, passage, share)
        if self.equal_reviews:
            growth = (before / after.clamp(min=1e-300))[passage]
            preference, mentions, share = (
                preference * growth[:, None],
                mentions * growth[:, None],
                share * growth,
            )
            others = before[passage] - share
            rest_scale = torch.where(others > 1e-12, before[passage] / others.clamp(min=1e-300), 0.0)
        return ItemText(
            preference,
            mentions,
            share / share.sum(),
            passage,
            rest_scale,
            self.spans[words],
            equal_reviews=self.equal_reviews,
        )

    def products(self, query: Tensor, model: Direct) -> Tensor:
        """float64 [W, A] addends of the text term by word and aspect."""
        divisor = model.form.divisor(query, self.preference.sum(0), self.mentions.sum(0))
        return aspect_products(query, self.preference, model.aspects) / divisor

    def effects(self, query: Tensor, model: Direct) -> tuple[Tensor, Tensor]:
        """Text term minus the text term without each word [W], and without each passage [R]."""
        preference, mentions = self.preference.sum(0), self.mentions.sum(0)
        now = model.form.text_term(query, preference, mentions)
        count = int(self.passage.max()) + 1 if len(self) else 0
        passage_preference = _summed(self.preference, self.passage, count)
        passage_mentions = _summed(self.mentions, self.passage, count)
        # Without the only passage exactly nothing is left, no rounding residue.
        has_others = float(bool((self.passage != self.passage[:1]).any()))
        others_preference, others_mentions = (
            (preference - passage_preference) * has_others,
            (mentions - passage_mentions) * has_others,
        )
        rest_preference = (
            passage_preference[self.passage].sub_(self.preference).mul_(self.rest_scale[:, None])
        )
        rest_mentions = (passage_mentions[self.passage] - self.mentions) * self.rest_scale[:, None]
        without_word = model.form.text_term(
            query,
            rest_preference.add_(others_preference[self.passage]),
            rest_mentions + others_mentions[self.passage],
        )
        return now - without_word, now - model.form.text_term(query, others_preference, others_mentions)


def _read_in_groups(passages: Sequence[ReadPassage], lexicon: Lexicon) -> Iterator[list[_Inputs]]:
    """Inputs of the passages in groups of about _TOKENS_AT_ONCE tokens."""
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
    """Sums of signed terms [count, K] and mentions [count, A] over each word's tokens [T, D]."""
    if model.mentions_uniform:  # tokens are summed first: one product a word instead of one a token
        number = torch.bincount(word, minlength=count).double()
        return model.pooled_terms(_summed(tokens, word, count), number)
    terms, mentions = model.token_terms(model.standard(tokens))
    return _summed(terms, word, count), _summed(mentions, word, count)


def _summed(rows: Tensor, index: Tensor, count: int) -> Tensor:
    """Sums float64 [count, N] of rows [n, N] by index [n]."""
    return torch.zeros(count, rows.shape[1]).double().index_add_(0, index, rows)
