"""The best items for users of the run, or for somebody new, without retraining."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llmdirect.common.types import Json
from llmdirect.data.dataset import SPLIT_NAMES
from llmdirect.evaluation.protocol import seen_before
from llmdirect.ranking.top_k import RankedLists, rank
from llmdirect.runs.inputs import load_run_encoder, open_run_dataset
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained


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
    seen = (
        seen_before(open_run_dataset(trained.run, dataset), len(SPLIT_NAMES))
        if new_only
        else trained.users.seen
    )
    lists = rank(trained.tables, users, k=min(k, len(trained.item_ids)), seen=seen)
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
    read = read_texts(trained, texts, load_run_encoder(trained.run, model, device)) if texts else None
    if trained.model.config.user == "text" and not texts:
        raise ValueError(f"{run}: reads interests from texts alone; give --text")
    somebody = new_user(trained, items, read)
    lists = rank(somebody.tables, [0], k=min(k, len(trained.item_ids)), seen=somebody.users.seen)
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
