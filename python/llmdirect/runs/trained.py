"""Finished run as ranking needs it: tables, ids and parameters, without store or dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llmdirect.common.csr import Csr
from llmdirect.common.errors import DataError, MissingError
from llmdirect.common.schema import check_schema
from llmdirect.model.direct import Direct
from llmdirect.model.forms import ScoreForm
from llmdirect.ranking.scorer import EPS, ScoreTables
from llmdirect.runs.aspect_edits import AspectEdits
from llmdirect.runs.folder import RunFolder
from llmdirect.runs.schema import Catalogue
from llmdirect.runs.user_rows import UserRows
from llmdirect.store.calibration import Calibration
from llmdirect.store.token_format import TokenFormat
from llmdirect.text.lexicon import Lexicon


@dataclass(frozen=True, eq=False)
class Trained:
    """Items, users and parameters of a finished run. U users, I items."""

    run: RunFolder
    model: Direct
    lexicon: Lexicon
    """Vectors of words that the model reads next to the embeddings of their tokens."""
    token_format: TokenFormat
    """Which tokens of a text the model reads."""
    calibration: Calibration
    """Projection of the encoder's vectors before the model reads them."""
    item_tables: ScoreTables
    """Score tables of the items; their users are replaced by `users`."""
    profile: Tensor
    """float32 [I, K or M] vectors of items in a history, from which interests are read."""
    aspect_names: list[str]
    """Of each aspect: its top words, or the name in `edits`."""
    item_ids: list[str]
    titles: list[str | None]
    users: UserRows
    edits: AspectEdits = field(default_factory=AspectEdits)
    """Names, groups and switches of aspects."""

    @classmethod
    def load(cls, path: Path | str, edits: AspectEdits | None = None) -> "Trained":
        """Load a finished run.

        Parameters
        ----------
        path
            Run folder.
        edits
            Instead of those in RUN/aspects.json.

        Raises
        ------
        FileNotFoundError
            If there is no run.
        DataError
            If it is damaged or unfinished.
        """
        run, (tables, parameters, words), catalogue = RunFolder.read(
            path, ("best/tables", "best/model", "best/lexicon"), "best/catalogue"
        )
        check_schema(run.file("best/catalogue"), catalogue, Catalogue, run.cure("best/catalogue"))
        num_users, num_items = len(catalogue["users"]), len(catalogue["items"])
        dim = parameters["centre"].numel() if "centre" in parameters else 0
        with torch.device("meta"):  # no memory: sizes in a manifest may be of another model, and any
            run.load_parameters(Direct(run.model_config, dim, num_users, num_items), "best/model", parameters)
        model = Direct(run.model_config, dim, num_users, num_items)
        run.load_parameters(model, "best/model", parameters)
        model.eval().requires_grad_(False)
        if edits is None:
            edits = AspectEdits.read(run.path, run.weights_hash, model.aspects)
        try:
            users = _user_rows(tables, catalogue["users"])
            item_tables = _item_tables(tables, model.form, users)
            lexicon, profile = Lexicon.from_tensors(words), tables["profile"]
            if {len(users.query), users.seen.num_rows, num_users} != {num_users}:
                raise ValueError("numbers of users differ")
            if {len(item_tables.item), len(profile), len(catalogue["titles"])} != {num_items}:
                raise ValueError("numbers of items differ")
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{run.path}: best/tables, best/lexicon and best/catalogue do not agree ({error}); "
                f"{run.cure('best/model')}"
            ) from None
        return cls(
            run=run,
            model=model,
            lexicon=lexicon,
            token_format=TokenFormat.from_manifest({"dtype": "float32", **run.manifest["store"]}),
            calibration=Calibration(projection=tables.get("projection")),
            item_tables=item_tables,
            profile=profile,
            aspect_names=edits.named(catalogue["aspects"]),
            item_ids=catalogue["items"],
            titles=catalogue["titles"],
            users=users,
            edits=edits,
        )

    @cached_property
    def tables(self) -> ScoreTables:
        """Score tables of the users and all items, aspect switches and factors included."""
        users, has_history = self.users, self.item_tables.item_item is not None
        query = users.scaled_query(self.edits.factors(self.model.aspects))
        return self.item_tables.for_users(query, users.history if has_history else None, users.bias)

    def with_users(self, users: UserRows) -> "Trained":
        """The same items with other users."""
        return replace(self, users=users)

    def for_user(self, user: int) -> "Trained":
        """The run with a single user, who becomes user 0; the tables of items are shared."""
        return self.with_users(self.users.for_user(user))

    def factors(self, user: int) -> NDArray[np.float64]:
        """float64 [A] factor of each interest of the user, 0 for aspects that are off."""
        return self.users.factors.get(user, self.edits.factors(self.model.aspects))

    def with_interests(self, user: int, interests: Mapping[int, float]) -> "Trained":
        """The run with some of a user's interests multiplied, such as {3: 1.5} for +50 %.

        In the cosine form this multiplies the aspect's contribution to every item's score and nothing else;
        in the ratio form the interest is multiplied. An aspect that is switched off stays off; the index of
        any aspect of a merged group stands for the whole group. Seen items, popularity and the collaborative
        term do not depend on interests.

        Raises
        ------
        ValueError
            For an aspect that does not exist, or a negative factor.
        """
        factors = self.edits.factors(self.model.aspects, interests)
        return self.with_users(self.users.with_factors(user, factors))

    def without(self, *, popularity: bool = False, collaboration: bool = False) -> "Trained":
        """The run without the popularity of items, or without the collaborative term."""
        tables = self.item_tables.without(popularity=popularity, collaboration=collaboration)
        return replace(self, item_tables=tables)

    def user_idx(self, user_id: str) -> int:
        """Index of an external user id; MissingError where the run does not have it."""
        missing = (
            f"{self.run.path}: no user {user_id!r}; "
            "for a new user run `llmdirect recommend` with `history` or `texts`"
        )
        return _index(self.users.ids, user_id, missing)

    def item_idx(self, item_id: str) -> int:
        """Index of an external item id; MissingError with similar ids where the run does not have it."""
        return _index(self.item_ids, item_id, f"{self.run.path}: no item {item_id!r} in the catalogue")


def _user_rows(tables: Mapping[str, Tensor], ids: list[str]) -> UserRows:
    def rows(name: str) -> Csr:
        return Csr(tables[f"{name}_indptr"].numpy(), tables[f"{name}_indices"].numpy())

    return UserRows(
        ids=ids,
        query=tables["query"],
        seen=rows("seen"),
        recent=rows("recent"),
        history=rows("history") if "item_item_values" in tables else None,
        bias=tables.get("user_bias"),
    )


def _item_tables(tables: Mapping[str, Tensor], form: ScoreForm, users: UserRows) -> ScoreTables:
    item_item = None
    if users.history is not None:
        indptr, indices, values = (tables[f"item_item_{name}"] for name in ("indptr", "indices", "values"))
        item_item = indptr.numpy(), indices.numpy(), values.numpy()
    return ScoreTables(
        kernel=form.kernel,
        query=users.query,
        item=tables["item"],
        item_bias=tables["item_bias"],
        eps=EPS,
        item_mentions=tables.get("item_mass"),
        user_bias=users.bias,
        history=users.history,
        item_item=item_item,
    )


def _index(ids: list[str], external: str, missing: str) -> int:
    external = str(external)  # ids are text, whatever they were in the raw file
    try:
        return ids.index(external)
    except ValueError:
        from difflib import get_close_matches

        close = get_close_matches(external, ids[:50_000], n=3)
        hint = f" (did you mean {', '.join(close)}?)" if close else ""
        raise MissingError(f"{missing}{hint}") from None
