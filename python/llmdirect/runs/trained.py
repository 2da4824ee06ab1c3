"""A finished run as ranking needs it: tables, ids and parameters, without store or dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.arrays import ArrayOrTensor
from llmdirect.common.csr import Csr
from llmdirect.common.errors import MismatchError, MissingError
from llmdirect.data.dataset import Dataset
from llmdirect.model.direct import Direct
from llmdirect.ranking.scorer import EPS, ScoreTables
from llmdirect.ranking.top_k import RankedLists, rank
from llmdirect.runs.aspect_edits import AspectEdits
from llmdirect.runs.folder import RunFolder
from llmdirect.store.calibration import Calibration
from llmdirect.store.token_format import TokenFormat
from llmdirect.text.lexicon import Lexicon


@dataclass(frozen=True, eq=False)
class Trained:
    """The best state of a finished run. U users, I items."""

    run: RunFolder
    model: Direct
    lexicon: Lexicon
    """What the model reads of a word beside the embeddings of its tokens."""
    token_format: TokenFormat
    """Which tokens of a text the model reads."""
    calibration: Calibration
    """What the encoder's vectors go through before the model reads them."""
    tables: ScoreTables
    profile: Tensor
    """float32 [I, K or M]: what a user's interest is read from, where these items stand in the history."""
    seen: Csr
    """Train interactions of each user."""
    recent: Csr
    """The newest of each user's train positives, at most 30: the history that is read."""
    aspect_names: list[str]
    """Of each aspect: its most telling words, or what somebody named it."""
    user_ids: list[str]
    item_ids: list[str]
    titles: list[str | None]
    query: Tensor
    """float32 [U, K or A]: the scorer's queries as the model has them: no aspect is off, none was moved."""
    edits: AspectEdits = field(default_factory=AspectEdits)
    """What was decided about the aspects; the scorer's queries have nothing of those that are off."""
    what_if: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """Users whose interests were moved: float64 [A] what each is multiplied by."""
    written: tuple[tuple[str, ...], Tensor] | None = None
    """Of somebody new: what they wrote, and what each text says, as a row of `profile`."""

    @classmethod
    def load(cls, path: Path | str, edits: AspectEdits | None = None) -> "Trained":
        """Reads a run, with what RUN/aspects.json says of its aspects, or with these `edits` instead.

        FileNotFoundError where there is none, DataError where it is damaged or unfinished.
        """
        run, (tables, parameters, words), catalogue = RunFolder.read(
            path, ("best/tables", "best/model", "best/lexicon"), "best/catalogue"
        )
        num_users, num_items = len(catalogue["users"]), len(catalogue["items"])
        lexicon = Lexicon.from_tensors(words)
        model = Direct(run.model_config, len(parameters["centre"]), num_users, num_items)
        model.load_state_dict(parameters)
        model.eval().requires_grad_(False)
        collaborative: dict[str, Any] = {}
        if "item_item_values" in tables:
            table = (tables[f"item_item_{part}"].numpy() for part in ("indptr", "indices", "values"))
            collaborative = {
                "history": Csr(tables["history_indptr"].numpy(), tables["history_indices"].numpy()),
                "item_item": tuple(table),
            }
        ranking = ScoreTables(
            kernel=model.form.kernel,
            query=tables["query"],
            item=tables["item"],
            item_bias=tables["item_bias"],
            eps=EPS,
            item_mentions=tables.get("item_mass"),
            user_bias=tables.get("user_bias"),
            **collaborative,
        )
        if edits is None:
            edits = AspectEdits.read(run.path, run.parameters, model.aspects)
        if edits.off:
            query = scaled(tables["query"], edits.factors(model.aspects))
            ranking = ranking.for_users(query, ranking.history, ranking.user_bias)
        return cls(
            run=run,
            model=model,
            lexicon=lexicon,
            token_format=TokenFormat.from_manifest({"dtype": "float32", **run.manifest["store"]}),
            calibration=Calibration(projection=tables.get("projection")),
            tables=ranking,
            profile=tables["profile"],
            seen=Csr(tables["seen_indptr"].numpy(), tables["seen_indices"].numpy()),
            recent=Csr(tables["recent_indptr"].numpy(), tables["recent_indices"].numpy()),
            aspect_names=edits.named(catalogue["aspects"]),
            user_ids=catalogue["users"],
            item_ids=catalogue["items"],
            titles=catalogue["titles"],
            query=tables["query"],
            edits=edits,
        )

    def for_user(self, user: int) -> "Trained":
        """The run with this user alone, who becomes user 0; the tables of items are shared."""
        rows, base = np.array([user]), self.tables
        history = None if base.history is None else base.history.rows(rows)
        bias = None if base.user_bias is None else base.user_bias[rows]
        return replace(
            self,
            tables=base.for_users(base.query[rows], history, bias),
            seen=self.seen.rows(rows),
            recent=self.recent.rows(rows),
            user_ids=[self.user_ids[user]],
            query=self.query[rows],
            what_if={0: self.what_if[user]} if user in self.what_if else {},
        )

    def factors(self, user: int) -> NDArray[np.float64]:
        """float64 [A]: what the model's interest of the user is multiplied by, 0 for aspects that are off."""
        return self.what_if.get(user, self.edits.factors(self.model.aspects))

    def with_interests(self, user: int, interests: Mapping[int, float]) -> "Trained":
        """The run as if some of the user's interests were so many times the model's: {3: 1.5} for +50 %.

        In the cosine form this multiplies the aspect's contribution to every item's score, and nothing else
        changes; in the ratio form the interest counts so many times as much. An aspect that is switched off
        stays off; of merged ones any number stands for all. Seen items, popularity and the collaborative
        term do not depend on interests. Raises ValueError for an aspect that is none or a negative factor.
        """
        factors = self.edits.factors(self.model.aspects, interests)
        base, query = self.tables, self.tables.query.copy()
        query[user] = scaled(self.query[user], factors)
        return replace(
            self,
            tables=base.for_users(query, base.history, base.user_bias),
            what_if={**self.what_if, user: factors},
        )

    def recommend(
        self, user: int, *, interests: Mapping[int, float] | None = None, k: int = 10
    ) -> RankedLists:
        """The `k` best items for a user, without what they have in train; one row.

        interests: aspect -> factor, what `with_interests` takes. Exact: the items' table is ranked anew.
        """
        moved = self.with_interests(user, interests) if interests else self
        return rank(moved.tables, [user], k=k, seen=self.seen)

    def user_idx(self, user_id: str) -> int:
        """Index of an external user id; MissingError naming what to do for a new user."""
        return _place(
            self.user_ids,
            user_id,
            f"{self.run.path}: no user {user_id!r}; for somebody new: `recommend` with --history or --text",
        )

    def item_idx(self, item_id: str) -> int:
        """Index of an external item id; MissingError with ids that look like it."""
        return _place(self.item_ids, item_id, f"{self.run.path}: no item {item_id!r} in the catalogue")

    def open_dataset(self, moved: Path | str | None = None) -> Dataset:
        """The dataset that the run was trained on; moved: where it lies now.

        Raises FileNotFoundError where it is not there any more, MismatchError for another one.
        """
        place = Path(moved or self.run.manifest["dataset"]["path"])
        if moved is None and not place.exists():
            raise FileNotFoundError(
                f"{place}: not there any more, and {self.run.path} was trained on it; name with --dataset "
                "where it lies now"
            )
        found = Dataset.open(place)
        self.check_dataset(found)
        return found

    def check_dataset(self, dataset: Dataset) -> None:
        """MismatchError unless the run was trained on this very dataset."""
        made_from = self.run.manifest["dataset"]["hash"]
        if dataset.hash != made_from:
            raise MismatchError(
                f"{self.run.path} was trained on dataset {made_from[:12]} "
                f"({self.run.manifest['dataset']['path']}), {dataset.path} is {dataset.hash[:12]}: "
                "test a run on its own dataset, or train on this one"
            )


def scaled(query: ArrayOrTensor, factors: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 [..., K]: queries [..., K] with each aspect's channels times its factor [A]."""
    channels = query.shape[-1] // len(factors)
    return np.asarray(query, np.float32) * np.repeat(factors, channels).astype(np.float32)


def _place(ids: list[str], wanted: str, message: str) -> int:
    wanted = str(wanted)  # ids are text, whatever they were in the raw file
    try:
        return ids.index(wanted)
    except ValueError:
        from difflib import get_close_matches

        close = get_close_matches(wanted, ids[:50_000], n=3)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise MissingError(f"{message}{hint}") from None
