"""Which words of an item's document matter for a score: as DIRECT says it, and by others to compare with."""

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
"""In how many rounds `by_effect` orders a document."""


def deletions(
    text: ItemText, query: Tensor, model: Direct, step: int
) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Takes out, `step` at a time, the words of the largest effect on what is left, until nothing is.

    Effects do not add up, since each word taken out changes how much the others count. Yields the words
    [step] and the text term without them and all before.
    """
    left = np.arange(len(text))
    while len(left):
        effects, _ = text.only(left).effects(query, model)
        chosen = np.argsort(-effects.numpy(), kind="stable")[:step]
        words, left = left[chosen], np.delete(left, chosen)
        rest = text.only(left)
        yield words, float(model.form.text_term(query, rest.preference.sum(0), rest.mentions.sum(0)))


def by_effect(text: ItemText, query: Tensor, model: Direct, rounds: int = ROUNDS) -> NDArray[np.int64]:
    """Words [W] in the order in which to take them out so that the text term falls fastest (`deletions`)."""
    step = max(1, round(len(text) / rounds))
    return np.concatenate([np.zeros(0, np.int64), *(w for w, _ in deletions(text, query, model, step))])


def gradient_x_input(
    passages: Sequence[ReadPassage], query: Tensor, model: Direct, lexicon: Lexicon, centred: bool = False
) -> NDArray[np.float64]:
    """[W] gradient of the text term with respect to each token's vector, times that vector, summed by word.

    The vector is all that the model reads of a token: its embedding and the lexicon's numbers. centred: less
    the mean over train, which the model takes off first. (Simonyan et al. 2013, Shrikumar et al. 2017.)
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
    found: list[NDArray[np.float64]] = [np.zeros(0)]
    for tokens, word, spans in read:
        assert tokens.grad is not None
        values = tokens.detach() - model.centre if centred else tokens.detach()
        product = (tokens.grad * values).sum(1).numpy()
        found.append(np.bincount(word, product, minlength=len(spans)).astype(np.float64))
    return np.concatenate(found)
