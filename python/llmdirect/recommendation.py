"""The best items for users of the run, or for somebody new, without retraining."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.artefacts import Json
from llmdirect.config import HISTORY
from llmdirect.csr import Csr
from llmdirect.dataset import SPLIT_NAMES
from llmdirect.errors import MismatchError
from llmdirect.evaluation import seen_before
from llmdirect.model import unit
from llmdirect.ranking import RankedLists, rank
from llmdirect.trained import Trained, scaled

if TYPE_CHECKING:  # transformers takes seconds to import, and only texts need it
    from llmdirect.encoders import Encoder


def recommend(
    run: Path | str,
    user_ids: Sequence[str],
    *,
    k: int = 10,
    interests: Mapping[int, float] | None = None,
    new_only: bool = False,
    dataset: Path | str | None = None,
) -> Json:
    """The `k` best items for each of these users, without what they have in train.

    interests: aspect -> factor, as if these users' interest in it were so many times as large. new_only:
    without what was held out of train to measure either, for which the run's dataset is read; it lies at
    `dataset`, if it was moved.

    Returns {"recommendations": [{"user_id", "items": [{"rank", "item_id", "title", "score"}]}]}.
    Raises MissingError for a user that the run does not know, ValueError for an aspect that is none or that
    is switched off.
    """
    if isinstance(user_ids, str):
        raise ValueError(f"user_ids is {user_ids!r}, expected a list of ids")
    trained = Trained.load(run)
    if off := sorted(trained.edits.off & (interests or {}).keys()):
        raise ValueError(
            f"interest {off[0]}: the aspect is switched off; `llmdirect aspects {run} --on {off[0]}` first"
        )
    users = [trained.user_idx(user_id) for user_id in user_ids]
    for user in users if interests else []:
        trained = trained.with_interests(user, interests or {})
    seen = seen_before(trained.open_dataset(dataset), len(SPLIT_NAMES)) if new_only else trained.seen
    lists = rank(trained.scorer, users, k=min(k, len(trained.item_ids)), seen=seen)
    return {
        "recommendations": [
            {"user_id": user_id, "items": _items(trained, lists, row)} for row, user_id in enumerate(user_ids)
        ]
    }


def recommend_new(
    run: Path | str,
    *,
    history: list[str] | None = None,
    texts: list[str] | None = None,
    k: int = 10,
    model: str | None = None,
    device: str = "auto",
) -> Json:
    """The `k` best items for somebody new, who has the items `history` (newest first) or wrote `texts`.

    model: where the run's language model lies, if its name is not enough; read for `texts` alone.
    A text is read as what an item of the history says (user side "history"), else as the user's own.

    Raises MissingError for an unknown item or a model that cannot be had, MismatchError for another model,
    ValueError without any history and text.
    """
    trained = Trained.load(run)
    items = np.array([trained.item_idx(item_id) for item_id in dict.fromkeys(history or [])], np.int64)
    if not len(items) and not texts:
        raise ValueError("somebody new is known by --history ITEM,… or --text; give one of them")
    written = text_profiles(trained, texts, encoder_of(trained, model, device)) if texts else None
    if trained.model.config.user == "text" and not texts:
        raise ValueError(f"{run}: reads interests from texts alone; give --text")
    somebody = newcomer(trained, items, texts or [], written)
    lists = rank(somebody.scorer, [0], k=min(k, len(trained.item_ids)), seen=somebody.seen)
    return {"recommendations": [{"user_id": None, "items": _items(trained, lists, 0)}]}


def _items(trained: Trained, lists: RankedLists, row: int) -> list[Json]:
    return [
        {
            "rank": place + 1,
            "item_id": trained.item_ids[item],
            "title": trained.titles[item],
            "score": float(lists.scores[row, place]),
        }
        for place, item in enumerate(lists.items[row].tolist())
        if item >= 0
    ]


def newcomer(
    trained: Trained, items: NDArray[np.int64], texts: list[str], written: Tensor | None, name: str = "you"
) -> Trained:
    """The run with somebody new as its one user: items [n], newest first, and `text_profiles` of `texts`."""
    model, base = trained.model, trained.scorer
    history = trained.profile[torch.from_numpy(items[:HISTORY])]
    nothing = trained.profile[:0]
    read = nothing if written is None else written
    if model.config.user == "history":
        history, read = torch.cat([history, read]), nothing
    sides = [(rows[None], torch.ones(1, len(rows), dtype=torch.bool)) for rows in (history, read)]
    with torch.no_grad():
        query = model.interests(model.user(*sides))
        if model.config.form == "cosine":
            query = query * model.temperature()
    own = Csr.from_pairs(np.zeros(len(items), np.int64), items, 1)
    shown = scaled(query, trained.edits.factors(model.aspects))
    return replace(
        trained,
        scorer=base.for_users(
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


def encoder_of(trained: Trained, model: str | None = None, device: str = "auto") -> "Encoder":
    """The language model that the run's embeddings are of.

    model: where it lies, if its name is not enough. Raises MismatchError for another one.
    """
    from llmdirect.encoders import load_encoder

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
        [kept] = trained.form.kept([text], [embedding.spans])
        kept &= embedding.spans[:, 1] > embedding.spans[:, 0]
        vectors = trained.calibration.project(embedding.tokens.float()).numpy()
        tokens = torch.from_numpy(trained.lexicon.beside(vectors[kept], text, embedding.spans[kept]))
        if not len(tokens):
            raise ValueError(f"--text {text!r}: holds no words")
        if direct.config.form == "cosine":
            said, _ = direct.passages(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool))
            rows.append(unit(said))
        else:
            rows.append(direct.mention(direct.standard(tokens.mean(0, keepdim=True))))
    return torch.cat(rows)
