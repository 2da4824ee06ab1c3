"""Top-k items for users of a run, or for a new user, without retraining."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmdirect.common.conditions import check_conditions
from llmdirect.common.types import Result
from llmdirect.data.dataset import SPLIT_NAMES
from llmdirect.evaluation.protocol import seen_items
from llmdirect.ranking.top_k import RankedLists, rank
from llmdirect.runs.inputs import load_run_encoder, open_run_dataset
from llmdirect.runs.new_users import new_user, read_texts
from llmdirect.runs.trained import Trained


@dataclass(frozen=True)
class RecommendedItem(Result):
    """Item of a list."""

    rank: int
    """From 1."""
    item_id: str
    title: str | None
    score: float


@dataclass(frozen=True)
class UserRecommendations(Result):
    """List of one user."""

    user_id: str | None
    """None for a new user."""
    items: list[RecommendedItem]


@dataclass(frozen=True)
class Recommendations(Result):
    """Lists of several users."""

    recommendations: list[UserRecommendations]


def recommend(
    run: Path | str,
    user_ids: Sequence[str],
    *,
    k: int = 10,
    interests: Mapping[int, float] | None = None,
    new_only: bool = False,
    dataset: Path | str | None = None,
) -> Recommendations:
    """Top-k items of users, without the items that they have in train.

    Parameters
    ----------
    run
        Folder that `train` wrote.
    user_ids
        External ids.
    k
        Length of each list.
    interests
        Aspect -> factor by which these users' interest in it is multiplied.
    new_only
        Whether to leave out held-out items, too; reads the run's dataset.
    dataset
        Present location of the run's dataset, where it was moved; read with `new_only` alone.

    Raises
    ------
    MissingError
        For a user that the run does not have.
    ValueError
        For an aspect that does not exist or is switched off, and for a dataset without `new_only`.

    Examples
    --------
    >>> recommend("run", ["u1"], k=5, interests={3: 1.5}).recommendations[0].items  # doctest: +SKIP
    """
    if isinstance(user_ids, str):
        raise ValueError(f"`user_ids`: {user_ids!r}, expected a list of ids")
    check_conditions("recommend", {"user_ids": user_ids, "new_only": new_only or None, "dataset": dataset})
    trained = Trained.load(run)
    if off := sorted(trained.edits.off & (interests or {}).keys()):
        raise ValueError(
            f"interest {off[0]}: the aspect is switched off; "
            f"run `llmdirect aspects {run}` with `on={off[0]}` first"
        )
    users = [trained.user_idx(user_id) for user_id in user_ids]
    for user in users if interests else []:
        trained = trained.with_interests(user, interests or {})
    seen = trained.users.seen
    if new_only:
        seen = seen_items(open_run_dataset(trained.run, dataset), len(SPLIT_NAMES))
    lists = rank(trained.tables, users, k=min(k, len(trained.item_ids)), seen=seen)
    return Recommendations(
        [UserRecommendations(user_id, _items(trained, lists, row)) for row, user_id in enumerate(user_ids)]
    )


def recommend_new(
    run: Path | str,
    *,
    history: list[str] | None = None,
    texts: list[str] | None = None,
    k: int = 10,
    encoder: str | None = None,
    device: str | None = None,
) -> Recommendations:
    """Top-k items of a new user, given their items or texts; one list.

    Parameters
    ----------
    run
        Folder that `train` wrote.
    history
        External ids of the user's items, newest first.
    texts
        Texts of the user. A model that reads histories alone takes each as a further item of the history.
    k
        Length of the list.
    encoder
        Location of the run's encoder, where its id does not suffice; read for `texts` alone.
    device
        Device of the encoder, for `texts` alone; by default "auto".

    Raises
    ------
    MissingError
        For an unknown item, or an encoder that cannot be found.
    MismatchError
        For another encoder.
    ValueError
        Without history and texts, and for an encoder or device without texts.
    """
    check_conditions("recommend", {"texts": texts or None, "encoder": encoder, "device": device})
    trained = Trained.load(run)
    items = np.array([trained.item_idx(item_id) for item_id in dict.fromkeys(history or [])], np.int64)
    if not len(items) and not texts:
        raise ValueError("a new user needs items or texts: give `history`, `texts` or both")
    if trained.model.config.user == "text" and not texts:
        raise ValueError(f"{run}: reads interests from texts alone; give `texts`")
    read = None
    if texts:
        read = read_texts(trained, texts, load_run_encoder(trained.run, encoder, device or "auto"))
    new = new_user(trained, items, read)
    lists = rank(new.tables, [0], k=min(k, len(trained.item_ids)), seen=new.users.seen)
    return Recommendations([UserRecommendations(None, _items(trained, lists, 0))])


def _items(trained: Trained, lists: RankedLists, row: int) -> list[RecommendedItem]:
    return [
        RecommendedItem(
            rank=position + 1,
            item_id=trained.item_ids[item],
            title=trained.titles[item],
            score=float(lists.scores[row, position]),
        )
        for position, item in enumerate(lists.items[row].tolist())
        if item >= 0
    ]
