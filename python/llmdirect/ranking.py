"""Full ranking: every item is scored for every user, the seen ones are taken out, the best k stay.

`docs/metrics.md` defines candidates, ties and every metric.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmdirect import _core
from llmdirect.arrays import ArrayOrTensor, float_array, index_array
from llmdirect.artefacts import check_place, write_atomic
from llmdirect.csr import Csr

CUTOFF_METRICS = tuple(_core.list_metric_names())
"""Metrics that take a cutoff, as in "ndcg@10". The other one is "auc"."""
EPS = 5e-7
"""Of the ratio form, as published."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scorer:
    """All that a score is made of, in float32. U users, I items, vectors of K numbers (K may be 0).

    score = user_bias[u] + item_bias[i] + text term + Σ_{j in history[u]} item_item[j, i]; the text term is
    query·item (form "dot") or (query·item) / (query·item_mass + eps) (form "ratio").

    Arrays may be NumPy or CPU tensors of any number type. Raises ValueError for shapes that do not fit.
    """

    form: Literal["dot", "ratio"] = "dot"
    query: ArrayOrTensor
    """[U, K]"""
    item: ArrayOrTensor
    """[I, K]"""
    item_mass: ArrayOrTensor = None
    """[I, K], for the ratio form alone."""
    eps: float = EPS
    item_bias: ArrayOrTensor = None
    """[I]; 0 if not given."""
    user_bias: ArrayOrTensor = None
    """[U]; 0 if not given."""
    history: Csr | None = None
    """U rows of items."""
    item_item: tuple[ArrayOrTensor, ArrayOrTensor, ArrayOrTensor] | None = None
    """indptr [I + 1], indices [nnz] and values [nnz]: row j holds what an item j of the history adds."""
    item_item_rows: Csr | None = field(init=False, repr=False, default=None)
    """Where `item_item` has values."""

    def __post_init__(self) -> None:
        if self.form not in ("dot", "ratio"):
            raise ValueError(f"form is {self.form!r}; there are 'dot' and 'ratio'")
        if (self.form == "ratio") != (self.item_mass is not None):
            raise ValueError("item_mass belongs to the ratio form: give it there and only there")
        if (self.history is None) != (self.item_item is None):
            raise ValueError("history and item_item belong together: give both or none")
        self._set("query", float_array("query", self.query, 2))
        self._set("item", float_array("item", self.item, 2))
        num_users, num_items = self.num_users, self.num_items
        if self.item_bias is None:
            self._set("item_bias", np.zeros(num_items, np.float32))
        shapes: dict[str, tuple[int, ...]] = {
            "item": (num_items, self.query.shape[1]),
            "item_mass": (num_items, self.query.shape[1]),
            "item_bias": (num_items,),
            "user_bias": (num_users,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = float_array(name, value, len(shape))
            if array.shape != shape:
                sizes = f"{num_users} users, {num_items} items and queries of {self.query.shape[1]}"
                raise ValueError(f"{name} has the shape {array.shape}, expected {shape} for {sizes}")
            self._set(name, array)
        if self.item_item is not None:
            indptr, indices, values = self.item_item
            table = Csr(indptr, indices)
            self._set("item_item_rows", table)
            self._set("item_item", (table.indptr, table.indices, float_array("item_item values", values, 1)))

    def for_users(
        self, query: ArrayOrTensor, history: Csr | None = None, user_bias: ArrayOrTensor = None
    ) -> "Scorer":
        """The same catalogue for other users: query [V, K], V rows of history, user_bias [V].

        The tables of the catalogue are shared, and not checked again. history: left out where this scorer
        has no table of items. Raises ValueError for shapes that do not fit.
        """
        other = copy.copy(self)
        other._set("query", float_array("query", query, 2))
        other._set("history", history)
        other._set("user_bias", None if user_bias is None else float_array("user_bias", user_bias, 1))
        if (history is None) != (self.item_item is None):
            raise ValueError("history belongs to a table of items: give it where the scorer has one")
        bias = other.query[:, 0] if other.user_bias is None else other.user_bias
        rows = len(bias) if history is None else history.num_rows
        if other.query.shape[1] != self.query.shape[1] or not len(other.query) == len(bias) == rows:
            raise ValueError(
                f"query {other.query.shape}, user_bias {bias.shape} and {rows} rows of history do not fit "
                f"vectors of {self.query.shape[1]} numbers"
            )
        return other

    def without(self, *, popularity: bool = False, collaboration: bool = False) -> "Scorer":
        """The same scorer as if items had no bias, or the history added nothing."""
        other = copy.copy(self)
        if popularity:
            other._set("item_bias", np.zeros(self.num_items, np.float32))
        if collaboration:
            for name in ("history", "item_item", "item_item_rows"):
                other._set(name, None)
        return other

    def weighted(self, weight: float) -> "Scorer":
        """The same scorer with what the history adds times a weight. ValueError where it adds nothing."""
        if self.item_item is None:
            raise ValueError("there is no table of items to weigh")
        other = copy.copy(self)
        indptr, indices, values = self.item_item
        other._set("item_item", (indptr, indices, values * np.float32(weight)))
        return other

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def num_users(self) -> int:
        """U"""
        return len(self.query)

    @property
    def num_items(self) -> int:
        """I"""
        return len(self.item)

    def of_pairs(self, users: ArrayOrTensor, items: ArrayOrTensor) -> NDArray[np.float64]:
        """float64 [n]: the score of item n for user n, seen or not."""
        users, items = index_array("users", users), index_array("items", items)
        query = np.asarray(self.query[users], np.float64)
        score: NDArray[np.float64] = (query * np.asarray(self.item[items], np.float64)).sum(1)
        if self.form == "ratio":
            score /= (query * np.asarray(self.item_mass[items], np.float64)).sum(1) + self.eps
        score += np.asarray(self.item_bias[items], np.float64)
        if self.user_bias is not None:
            score += np.asarray(self.user_bias[users], np.float64)
        return score + self.collaborative_of_pairs(users, items)

    def of_user(self, user: int) -> NDArray[np.float32]:
        """float32 [I]: the score of every item for one user, which takes no preparation as `rank` does."""
        query = self.query[user]
        scores: NDArray[np.float32] = self.item @ query
        if self.form == "ratio":
            scores /= self.item_mass @ query + np.float32(self.eps)
        scores += self.item_bias
        if self.user_bias is not None:
            scores += self.user_bias[user]
        if self.item_item is not None and self.item_item_rows is not None and self.history is not None:
            borders, values = self.item_item_rows.indptr, self.item_item[2]
            for source in self.history.row(user).tolist():
                scores[self.item_item_rows.row(source)] += values[borders[source] : borders[source + 1]]
        return scores

    def collaborative_of_pairs(
        self, users: NDArray[np.int32], items: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """float64 [n]: the collaborative term of item n for user n; 0 without one."""
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.array([self.collaborative_parts(*pair)[1].sum() for pair in pairs], np.float64)

    def collaborative_parts(self, user: int, item: int) -> tuple[list[int], NDArray[np.float64]]:
        """The items of a user's history that add to the collaborative term of an item, and what each adds."""
        sources: list[int] = []
        values: list[float] = []
        if self.item_item is not None and self.item_item_rows is not None and self.history is not None:
            for source in self.history.row(user).tolist():
                row = self.item_item_rows.row(source)
                place = int(np.searchsorted(row, item))
                if place < len(row) and row[place] == item:
                    sources.append(source)
                    values.append(float(self.item_item[2][self.item_item_rows.indptr[source] + place]))
        return sources, np.array(values, np.float64)


def place_among(others: NDArray[np.float64], score: float) -> int:
    """Rank, from 1, of an item with this score beside the scores of others, ascending; ahead of equals."""
    return 1 + len(others) - int(np.searchsorted(others, score, side="right"))


ItemItem = tuple[ArrayOrTensor, ArrayOrTensor, ArrayOrTensor]


def with_item_item(text: Scorer, history: Csr, item_item: ItemItem) -> Scorer:
    """The scorer of a text term and biases, with what items of a history add beside them."""
    return replace(text, history=history, item_item=item_item)


@dataclass(frozen=True, eq=False)
class RankedLists:
    """The best k candidates of B users."""

    items: NDArray[np.int32]
    """[B, k] best first, equal scores by smaller item; -1 where there are fewer candidates than k."""
    scores: NDArray[np.float32]
    """[B, k]; -inf beside item -1."""
    auc: NDArray[np.float64] | None
    """[B], if relevant items were given; NaN for a user without a relevant or without another candidate."""
    user_rows: NDArray[np.int32]
    """[B] the users of the lists."""


def rank(
    scorer: Scorer, user_rows: ArrayOrTensor, *, k: int, seen: Csr | None, relevant: Csr | None = None
) -> RankedLists:
    """Ranks all items but the seen ones for each of `user_rows` [B].

    seen, relevant: U rows, one for each user of the scorer. `relevant` asks for the AUC over the full list
    of candidates; relevant items that are seen are no candidates and do not count. Memory: B * k, and a
    copy of the item vectors.

    Raises ValueError for a score that is NaN or +inf (of any item, seen or not), naming user and item, and
    for indices or sizes that do not fit. A score of -inf is ranked last.
    """
    if k < 0:
        raise ValueError(f"k is {k}, below 0")
    user_rows = index_array("user_rows", user_rows)
    items, scores, auc = _core.rank(
        user_rows,
        k,
        scorer.query,
        scorer.item,
        scorer.item_bias,
        item_mass=scorer.item_mass,
        eps=scorer.eps,
        user_bias=scorer.user_bias,
        history=_checked(scorer.history),
        item_item=_checked(scorer.item_item_rows),
        item_item_values=None if scorer.item_item is None else scorer.item_item[2],
        seen=_checked(seen),
        relevant=_checked(relevant),
    )
    return RankedLists(items, scores, auc, user_rows)


def _checked(table: Csr | None) -> _core.CheckedCsr | None:
    return None if table is None else table.checked


def parse_metric(name: str) -> tuple[str, int | None]:
    """("ndcg", 10) of "ndcg@10", ("auc", None) of "auc"; ValueError that lists the names otherwise."""
    if name == "auc":
        return name, None
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", name, re.ASCII)
    if match is None or match[1] not in CUTOFF_METRICS:
        valid = ", ".join(f"{metric}@K" for metric in CUTOFF_METRICS)
        raise ValueError(f"no metric {name!r}; there are {valid} (K from 1) and auc")
    return match[1], int(match[2])


def metrics(items: ArrayOrTensor, relevant: Csr, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Metrics of lists that are ranked already: one float64 [B] for each name.

    items: [B, k], best first, padded at the end with -1. relevant: B rows, aligned with the lists, so
    `test.without(seen).rows(user_rows)`. A user without relevant items gets NaN.

    Raises ValueError for an unknown name, "auc" (which needs all candidates: `rank` gives it), a cutoff
    beyond k, and a list that holds an item twice.
    """
    names = list(names)
    requests = []
    for name in names:
        metric, cutoff = parse_metric(name)
        if cutoff is None:
            raise ValueError(f"{name} needs all candidates, not a list: give `relevant` to rank()")
        requests.append((metric, cutoff))
    values = _core.list_metrics(index_array("items", items, 2), relevant.checked, requests)
    return {name: values[:, column].copy() for column, name in enumerate(names)}


def evaluate(
    scorer: Scorer, user_rows: ArrayOrTensor, *, names: Iterable[str], seen: Csr | None, relevant: Csr
) -> dict[str, NDArray[np.float64]]:
    """Ranks once, as long as the largest cutoff asks, and gives every metric by user: float64 [B] each.

    seen, relevant: U rows, as for `rank`. Relevant items that are seen do not count in any metric.
    """
    names = list(names)
    cutoffs = [cutoff for _, cutoff in map(parse_metric, names) if cutoff is not None]
    in_need = relevant if "auc" in names else None
    lists = rank(scorer, user_rows, k=max(cutoffs, default=0), seen=seen, relevant=in_need)
    candidates = relevant if seen is None else relevant.without(seen)
    by_list = metrics(
        lists.items, candidates.rows(lists.user_rows), [name for name in names if name != "auc"]
    )
    if lists.auc is not None:
        by_list["auc"] = lists.auc
    return {name: by_list[name] for name in names}


def mean_metrics(per_user: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The mean of each metric over the users for whom it is defined (not NaN); NaN if there are none."""
    means = {}
    for name, values in per_user.items():
        defined = values[~np.isnan(values)]
        means[name] = float(defined.mean()) if defined.size else float("nan")
    return means


def check_run_file(path: Path) -> None:
    """Before the ranking whose lists `write_run` is to write. ValueError or OSError where it could not."""
    if path.suffix != ".parquet":
        raise ValueError(f"{path}: a run is written as Parquet; give a name that ends in .parquet")
    check_place(path)


def write_run(path: Path, lists: RankedLists, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    """Writes `path` (Parquet: user_idx i32, item_idx i32, rank i32 from 1, score f32) and its TREC twin.

    The twin has the suffix .trec and lines `user_id Q0 item_id rank score llmdirect`. Whitespace and % in
    ids are percent-encoded there (`urllib.parse.unquote` gives them back). Each file is replaced at once or
    not at all. Raises ValueError if `path` does not end in .parquet, or an id is missing or empty.
    """
    check_run_file(path)
    listed = lists.items >= 0
    rows, columns = np.nonzero(listed)
    run = pl.DataFrame(
        {
            "user_idx": lists.user_rows[rows],
            "item_idx": lists.items[listed],
            "rank": (columns + 1).astype(np.int32),
            "score": lists.scores[listed],
        }
    )
    trec = run.select(
        _tokens("user_ids", user_ids, run["user_idx"]),
        pl.lit("Q0").alias("Q0"),
        _tokens("item_ids", item_ids, run["item_idx"]),
        "rank",
        "score",
        pl.lit("llmdirect").alias("tag"),
    )
    write_atomic(path, run.write_parquet)
    write_atomic(
        path.with_suffix(".trec"),
        lambda file: trec.write_csv(file, include_header=False, separator=" ", quote_style="never"),
    )


def _tokens(name: str, ids: Sequence[str], indices: pl.Series) -> pl.Series:
    """The id of each index, as one token of a line."""
    highest = indices.max()
    if isinstance(highest, int) and highest >= len(ids):
        raise ValueError(f"{name} has {len(ids)} ids, but the lists hold index {highest}")
    tokens = [re.sub(r"[\s%]", lambda match: quote(match[0]), external) for external in ids]
    if "" in tokens:
        raise ValueError(f"{name}[{tokens.index('')}] is empty; a TREC file cannot hold it")
    return pl.Series(name, tokens, dtype=pl.String).gather(indices)
