"""A finished run as ranking needs it: tables, ids and parameters, without store or dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmdirect.artefacts import Json
from llmdirect.aspects import aspect_names
from llmdirect.checkpoint import RunFolder
from llmdirect.csr import Csr
from llmdirect.dataset import Dataset
from llmdirect.errors import MismatchError, MissingError
from llmdirect.lexicon import Lexicon
from llmdirect.model import EPS, Direct
from llmdirect.ranking import Scorer
from llmdirect.scores import Scores, scorer
from llmdirect.words import WordTypes


def ranking_files(scores: Scores, dataset: Dataset, words: WordTypes) -> tuple[dict[str, Tensor], Json]:
    """What a run keeps beside the parameters: the tensors of `Trained`, and the external ids.

    Nothing in them says anything of the held-out splits.
    """
    ranking, view = scorer(scores), scores.view
    tables: dict[str, Any] = {
        "query": ranking.query,
        "item": ranking.item,
        "item_mass": ranking.item_mass,
        "item_bias": ranking.item_bias,
        "user_bias": ranking.user_bias,
        "profile": scores.profiles.cpu().numpy(),
        "recent_indptr": view.recent.indptr,
        "recent_indices": view.recent.indices,
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


@dataclass(frozen=True, eq=False)
class Trained:
    """The best state of a finished run. U users, I items."""

    run: RunFolder
    model: Direct
    lexicon: Lexicon
    """What the model reads of a word beside the embeddings of its tokens."""
    scorer: Scorer
    profile: Tensor
    """float32 [I, K or M]: what a user's interest is read from, where these items stand in the history."""
    seen: Csr
    """Train interactions of each user."""
    recent: Csr
    """The newest of each user's train positives, at most 30: the history that is read."""
    aspect_names: list[str]
    """The most specific words of each aspect."""
    user_ids: list[str]
    item_ids: list[str]
    titles: list[str | None]

    @classmethod
    def load(cls, path: Path | str) -> "Trained":
        """Reads a run. FileNotFoundError where there is none, DataError where it is damaged or unfinished."""
        run = RunFolder.open(path)
        tables, catalogue = run.tensors("best/tables"), run.values("best/catalogue")
        num_users, num_items = len(catalogue["users"]), len(catalogue["items"])
        parameters = run.tensors("best/model")
        lexicon = Lexicon.from_tensors(run.tensors("best/lexicon"))
        model = Direct(run.model_config, len(parameters["centre"]), num_users, num_items)
        model.load_state_dict(parameters)
        model.eval().requires_grad_(False)
        form = run.model_config.form
        collaborative: dict[str, Any] = {}
        if "item_item_values" in tables:
            table = (tables[f"item_item_{part}"].numpy() for part in ("indptr", "indices", "values"))
            collaborative = {
                "history": Csr(tables["history_indptr"].numpy(), tables["history_indices"].numpy()),
                "item_item": tuple(table),
            }
        ranking = Scorer(
            form="dot" if form == "cosine" else "ratio",
            query=tables["query"],
            item=tables["item"],
            item_bias=tables["item_bias"],
            eps=EPS,
            item_mass=tables.get("item_mass"),
            user_bias=tables.get("user_bias"),
            **collaborative,
        )
        return cls(
            run=run,
            model=model,
            lexicon=lexicon,
            scorer=ranking,
            profile=tables["profile"],
            seen=Csr(tables["seen_indptr"].numpy(), tables["seen_indices"].numpy()),
            recent=Csr(tables["recent_indptr"].numpy(), tables["recent_indices"].numpy()),
            aspect_names=catalogue["aspects"],
            user_ids=catalogue["users"],
            item_ids=catalogue["items"],
            titles=catalogue["titles"],
        )

    def alone(self, user: int) -> "Trained":
        """The run with this user alone, who becomes user 0; the tables of items are shared."""
        rows, base = np.array([user]), self.scorer
        history = None if base.history is None else base.history.rows(rows)
        bias = None if base.user_bias is None else base.user_bias[rows]
        return replace(
            self,
            scorer=base.for_users(base.query[rows], history, bias),
            seen=self.seen.rows(rows),
            recent=self.recent.rows(rows),
            user_ids=[self.user_ids[user]],
        )

    def user_idx(self, user_id: str) -> int:
        """Index of an external user id; MissingError naming what to do for a new user."""
        return _place(
            self.user_ids,
            user_id,
            f"{self.run.path}: no user {user_id!r}; for somebody new give --history ITEM,… or --text",
        )

    def item_idx(self, item_id: str) -> int:
        """Index of an external item id; MissingError with ids that look like it."""
        return _place(self.item_ids, item_id, f"{self.run.path}: no item {item_id!r} in the catalogue")

    def check_dataset(self, dataset: Dataset) -> None:
        """MismatchError unless the run was trained on this very dataset."""
        made_from = self.run.manifest["dataset"]["hash"]
        if dataset.hash != made_from:
            raise MismatchError(
                f"{self.run.path} was trained on dataset {made_from[:12]} "
                f"({self.run.manifest['dataset']['path']}), {dataset.path} is {dataset.hash[:12]}: "
                "test a run on its own dataset, or train on this one"
            )


def _place(ids: list[str], wanted: str, message: str) -> int:
    try:
        return ids.index(wanted)
    except ValueError:
        from difflib import get_close_matches

        close = get_close_matches(wanted, ids[:50_000], n=3)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise MissingError(f"{message}{hint}") from None
