"""Score tables and ids that a run folder keeps for ranking."""

from typing import Any

import torch
from torch import Tensor

from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.model.scores import CatalogueScores, export_tables
from llmdirect.model.word_types import WordTypes, aspect_names


def ranking_files(
    scores: CatalogueScores, dataset: Dataset, words: WordTypes
) -> tuple[dict[str, Tensor], Json]:
    """Contents of best/tables and best/catalogue; none of them depends on the held-out splits.

    Parameters
    ----------
    words
        From which the aspects are named.

    Returns
    -------
    tensors
        What `Trained.load` reads.
    catalogue
        External ids, titles, and names of the aspects.
    """
    exported, view = export_tables(scores), scores.view
    projection = view.store.calibration.projection
    arrays: dict[str, Any] = {
        "query": exported.query,
        "item": exported.item,
        "item_mass": exported.item_mentions,
        "item_bias": exported.item_bias,
        "user_bias": exported.user_bias,
        "profile": scores.profiles.cpu().numpy(),
        "recent_indptr": view.recent.indptr,
        "recent_indices": view.recent.indices,
        "projection": None if projection is None else projection.numpy(),
        "seen_indptr": view.seen.indptr,
        "seen_indices": view.seen.indices,
    }
    if exported.item_item is not None and exported.history is not None:
        indptr, indices, values = exported.item_item
        arrays |= {"item_item_indptr": indptr, "item_item_indices": indices, "item_item_values": values}
        arrays |= {"history_indptr": exported.history.indptr, "history_indices": exported.history.indices}
    tensors = {name: torch.tensor(value) for name, value in arrays.items() if value is not None}
    catalogue = {
        "users": dataset.user_ids,
        "items": dataset.item_ids,
        "titles": dataset.item_titles,
        "aspects": aspect_names(scores.model, words),
    }
    return tensors, catalogue
