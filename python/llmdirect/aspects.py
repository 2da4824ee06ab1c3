"""What an aspect is about, in words."""

import torch

from llmdirect.model import Direct
from llmdirect.stop_words import is_function_word
from llmdirect.words import WordTypes

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
