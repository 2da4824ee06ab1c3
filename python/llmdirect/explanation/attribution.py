"""Rankings of an item's words by importance for a score: closed-form effects, gradient x input."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.explanation.item_document import ItemText, ReadPassage
from llmdirect.model.direct import Direct
from llmdirect.model.vectors import tokens_per_vote
from llmdirect.text.lexicon import Lexicon

ROUNDS: Final = 100
"""Rounds in which `by_effect` orders a document."""


def deletions(
    text: ItemText, query: Tensor, model: Direct, step: int
) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Greedy deletion of the words with the largest effect on the text term, until none is left.

    Effects do not add up, since each deleted word changes the weight of the others; they are computed anew
    in each step.

    Parameters
    ----------
    query
        float64 [K or A] exported query.
    step
        Words deleted at a time.

    Yields
    ------
    words
        [step] indices of the deleted words.
    term
        Text term without them and all before.
    """
    remaining = np.arange(len(text))
    while len(remaining):
        effects, _ = text.subset(remaining).effects(query, model)
        largest = np.argsort(-effects.numpy(), kind="stable")[:step]
        words, remaining = remaining[largest], np.delete(remaining, largest)
        rest = text.subset(remaining)
        yield words, float(model.form.text_term(query, rest.preference.sum(0), rest.mentions.sum(0)))


def by_effect(text: ItemText, query: Tensor, model: Direct, rounds: int = ROUNDS) -> NDArray[np.int64]:
    """Word indices [W] in the order of `deletions`, in about so many rounds."""
    step = max(1, round(len(text) / rounds))
    return np.concatenate([np.zeros(0, np.int64), *(w for w, _ in deletions(text, query, model, step))])


def gradient_x_input(
    passages: Sequence[ReadPassage], query: Tensor, model: Direct, lexicon: Lexicon, centred: bool = False
) -> NDArray[np.float64]:
    """Gradient x input float64 [W] of the text term, summed over the tokens of each word.

    The input is all that the model reads of a token: its embedding and the lexicon's vector.

    Parameters
    ----------
    query
        float64 [K or A] exported query.
    model
        In float64.
    centred
        Whether the train mean, which the model subtracts first, is subtracted from the input.

    References
    ----------
    Simonyan, K., et al. (2013). Deep Inside Convolutional Networks.
    Shrikumar, A., et al. (2017). Learning Important Features Through Propagating Activation Differences.
    """
    read = [passage.inputs(lexicon) for passage in passages]
    inputs = [tokens.requires_grad_() for tokens, _, _ in read]
    preference = torch.zeros(model.aspects * model.channels, dtype=torch.float64)
    mentions = torch.zeros(model.aspects, dtype=torch.float64)
    for tokens in inputs:
        terms, shares = model.token_terms(model.standard(tokens))
        weight = 1 / tokens_per_vote(torch.tensor(len(tokens)), model.config.equal_reviews).double()
        preference, mentions = preference + terms.sum(0) * weight, mentions + shares.sum(0) * weight
    model.form.text_term(query, preference, mentions).backward()  # type: ignore[no-untyped-call]  # torch: no types
    by_word: list[NDArray[np.float64]] = [np.zeros(0)]
    for tokens, word, spans in read:
        assert tokens.grad is not None
        values = tokens.detach() - model.centre if centred else tokens.detach()
        product = (tokens.grad * values).sum(1).numpy()
        by_word.append(np.bincount(word, product, minlength=len(spans)).astype(np.float64))
    return np.concatenate(by_word)
