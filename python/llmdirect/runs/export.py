"""Tensors and ids that a run keeps for ranking."""

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
    """What a run keeps beside the parameters: the tensors of `Trained`, and the external ids.

    Nothing in them says anything of the held-out splits.
    """
    ranking, view = export_tables(scores), scores.view
    projection = view.store.calibration.projection
    tables: dict[str, Any] = {
        "query": ranking.query,
        "item": ranking.item,
        "item_mass": ranking.item_mentions,
        "item_bias": ranking.item_bias,
        "user_bias": ranking.user_bias,
        "profile": scores.profiles.cpu().numpy(),
        "recent_indptr": view.recent.indptr,
        "recent_indices": view.recent.indices,
        "projection": None if projection is None else projection.numpy(),
        "seen_indptr": view.seen.indptr,
        "seen_indices": view.seen.indices,
    }
    if ranking.item_item is not None and ranking.history is not None:
        indptr, indices, values = ranking.item_item
        tables |= {"item_item_indptr": indptr, "item_item_indices": indices, "item_item_values": values}
        tables |= {"history_indptr": ranking.history.indptr, "history_indices": ranking.history.indices}
    kept = {name: torch.tensor(value) for name, value in tables.items() if value is not None}
    catalogue = {
        "users": dataset.user_ids,
        "items": dataset.item_ids,
        "titles": dataset.item_titles,
        "aspects": aspect_names(scores.model, words),
    }
    return kept, catalogue
