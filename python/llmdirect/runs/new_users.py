"""Users who are not in the training data, by their items and texts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.config import HISTORY
from llmdirect.runs.trained import Trained
from llmdirect.runs.user_rows import UserRows, UserTexts

if TYPE_CHECKING:  # transformers takes seconds to import, and only texts need it
    from llmdirect.encoding.encoders import PassageEncoder


def new_user(
    trained: Trained, items: NDArray[np.int64], texts: UserTexts | None = None, user_id: str = "you"
) -> Trained:
    """The run with a new user as its only one, without retraining.

    Parameters
    ----------
    items
        [n] items of the user, newest first.
    texts
        What `read_texts` returned. Texts are read as further entries of the history where the model reads
        histories alone, else as the user's own passages.
    """
    model = trained.model
    history = trained.profile[torch.from_numpy(items[:HISTORY])]
    empty = trained.profile[:0]
    passages = empty if texts is None else texts.profiles
    if model.config.user == "history":
        history, passages = torch.cat([history, passages]), empty
    sides = [(rows[None], torch.ones(1, len(rows), dtype=torch.bool)) for rows in (history, passages)]
    with torch.no_grad():
        query = model.form.export_query(model.interests(model.user(*sides)), model.temperature())
    bias = None if trained.users.bias is None else model.bias.reshape(1)
    return trained.with_users(UserRows.new_user(user_id, query, items, bias, texts))


def read_texts(trained: Trained, texts: Sequence[str], encoder: "PassageEncoder") -> UserTexts:
    """Profiles of texts of a new user.

    Parameters
    ----------
    encoder
        That of the run's embeddings (`load_run_encoder`).

    Raises
    ------
    ValueError
        If a text has no words.
    """
    model, rows = trained.model, []
    sums = model.form.profile_source(model.passages, _embedding_sums)
    for text, embedding in zip(texts, encoder.encode(texts), strict=True):
        [kept] = trained.token_format.kept([text], [embedding.spans])
        kept &= embedding.spans[:, 1] > embedding.spans[:, 0]
        vectors = trained.calibration.project(embedding.tokens.float()).numpy()
        tokens = torch.from_numpy(trained.lexicon.extend(vectors[kept], text, embedding.spans[kept]))
        if not len(tokens):
            raise ValueError(f"`texts`: {text!r} holds no words that the encoder knows; leave it out")
        mask = torch.ones(1, len(tokens), dtype=torch.bool)
        rows.append(model.profiles(*sums(tokens[None], mask)))
    return UserTexts(tuple(texts), torch.cat(rows))


def _embedding_sums(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [R, D] and numbers [R] of the tokens [R, T, D] in the mask [R, T]."""
    return (tokens * mask[..., None]).sum(1), mask.sum(1)
