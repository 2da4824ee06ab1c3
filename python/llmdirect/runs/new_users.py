"""Profiles of users who are not in the training data."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.common.errors import MismatchError
from llmdirect.config import HISTORY
from llmdirect.model.direct import normalize
from llmdirect.runs.trained import Trained, scaled

if TYPE_CHECKING:  # transformers takes seconds to import, and only texts need it
    from llmdirect.encoding.encoders import Encoder


def new_user(
    trained: Trained, items: NDArray[np.int64], texts: list[str], written: Tensor | None, name: str = "you"
) -> Trained:
    """The run with somebody new as its one user: items [n], newest first, and `text_profiles` of `texts`."""
    model, base = trained.model, trained.tables
    history = trained.profile[torch.from_numpy(items[:HISTORY])]
    nothing = trained.profile[:0]
    read = nothing if written is None else written
    if model.config.user == "history":
        history, read = torch.cat([history, read]), nothing
    sides = [(rows[None], torch.ones(1, len(rows), dtype=torch.bool)) for rows in (history, read)]
    with torch.no_grad():
        query = model.interests(model.user(*sides))
        if model.config.score_form == "cosine":
            query = query * model.temperature()
    own = Csr.from_pairs(np.zeros(len(items), np.int64), items, 1)
    shown = scaled(query, trained.edits.factors(model.aspects))
    return replace(
        trained,
        tables=base.for_users(
            shown,
            None if base.item_item is None else own,
            None if base.user_bias is None else model.bias.reshape(1),
        ),
        seen=own,
        recent=Csr.from_pairs(np.zeros(len(items[:HISTORY]), np.int64), items[:HISTORY], 1),
        user_ids=[name],
        query=query,
        what_if={},
        written=None if written is None else (tuple(texts), written),
    )


def load_run_encoder(trained: Trained, model: str | None = None, device: str = "auto") -> "Encoder":
    """The language model that the run's embeddings are of.

    model: where it lies, if its name is not enough. Raises MismatchError for another one.
    """
    from llmdirect.encoding.encoders import load_encoder

    made_by = trained.run.manifest["store"]["encoder"]
    encoder = load_encoder(model or made_by["id"], device=device, max_length=made_by["max_length"])
    found = encoder.describe()
    if (found["weights"], found["tokenizer"]) != (made_by["weights"], made_by["tokenizer"]):
        raise MismatchError(
            f"{model or made_by['id']} is not the model whose embeddings {trained.run.path} was trained on "
            f"({made_by['id']}, weights {made_by['weights'][:12]}); name it with --model"
        )
    return encoder


def text_profiles(trained: Trained, texts: list[str], encoder: "Encoder") -> Tensor:
    """What each text says, as a row of the history or of the user's own passages: [N, K or M].

    encoder: the one that the run's embeddings are of. ValueError for a text without words.
    """
    direct, rows = trained.model, []
    for text, embedding in zip(texts, encoder.encode(texts), strict=True):
        [kept] = trained.token_format.kept([text], [embedding.spans])
        kept &= embedding.spans[:, 1] > embedding.spans[:, 0]
        vectors = trained.calibration.project(embedding.tokens.float()).numpy()
        tokens = torch.from_numpy(trained.lexicon.extend(vectors[kept], text, embedding.spans[kept]))
        if not len(tokens):
            raise ValueError(f"--text {text!r}: holds no words")
        if direct.config.score_form == "cosine":
            preference, _ = direct.passages(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
            rows.append(normalize(preference))
        else:
            rows.append(direct.mention(direct.standard(tokens.mean(0, keepdim=True))))
    return torch.cat(rows)
