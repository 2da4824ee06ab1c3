"""What all rows of a scoreboard share in one protocol: splits, store, queries, folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from llmdirect.benchmark.baselines import Need, TrainData
from llmdirect.benchmark.models import FittedModel
from llmdirect.benchmark.spaces import Space
from llmdirect.choices import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.common.errors import DataError
from llmdirect.common.files import write_atomic
from llmdirect.common.progress import Progress
from llmdirect.common.types import Json, canonical_json
from llmdirect.data.dataset import NO_TIME, TEST, TRAIN, VALID, Dataset
from llmdirect.data.resplit import resplit, rolling_cut
from llmdirect.data.subsets import cold_items, without_users
from llmdirect.encoding.lexical import write_lexical_store
from llmdirect.evaluation.development import UserHalf, users_of
from llmdirect.evaluation.queries import Queries, QueryTime, build_queries, new_user_queries
from llmdirect.ranking.metrics import metrics
from llmdirect.store.lexical import is_lexical, train_texts_hash
from llmdirect.store.store import EmbeddingStore, with_item_passages

METRIC: Final = "ndcg@10"
"""Metric that settings are chosen by."""
OWN: Final = "own"
"""Protocol that takes the split of the dataset itself."""
PROTOCOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "random": {"split": "random", "fractions": DEFAULT_FRACTIONS},
    "leave-last-out": {"split": "leave-last-out"},
    "global-time": {},
    "mmrec": {"split": "random", "fractions": (0.8, 0.1, 0.1)},
    "alpharec": {"split": "random", "fractions": (0.4, 0.3, 0.3)},
    "cold-items": {},
    "new-users": {},
    OWN: {},
}
"""Arguments of `resplit` by protocol, where it makes the splits."""
MIN_INTERACTIONS: Final = {"alpharec": 20}
"""Protocols that drop users with fewer interactions."""
_PARTS: Final = 10
"""Parts of the users, one of which new-users holds out."""
_KEPT: Final = 3
"""Splits whose train data are in memory, those of a search."""
_WITHOUT_TEST: Final = (0.9, 0.1, 0.0)
NUM_CUTS: Final = 5
"""Splits of global-time."""
_RANDOM: Final = ("random", "mmrec", "alpharec", "cold-items", "new-users")


def has_times(dataset: Dataset) -> bool:
    """Whether every interaction has a time."""
    return not (dataset.interactions.timestamp == NO_TIME).any()


def default_protocols(dataset: Dataset) -> list[str]:
    """Protocols of a dataset: its own split, and the others that it has times for."""
    options = dataset.manifest["options"]
    if options["split"] == "given" or options["unit"] == "document":
        return [OWN]
    return ["random", "leave-last-out", "global-time"] if has_times(dataset) else ["random"]


def num_splits(protocol: str, dataset: Dataset, splits: int) -> int:
    """Number of splits of a protocol, where `splits` random ones are wanted."""
    if protocol in _RANDOM:
        return splits
    return NUM_CUTS if protocol == "global-time" else 1


def make_split(dataset: Dataset, protocol: str, number: int) -> Dataset:
    """Split of a protocol, by its number from 0.

    Where the protocol is that of the dataset, the first split is the dataset's own, whatever its seed and
    shares. Random splits have the seeds after it.

    Raises
    ------
    DataError
        If a time is missing that the protocol needs.
    """
    options = dataset.manifest["options"]
    if protocol == OWN:
        return dataset
    if protocol == "global-time":
        return rolling_cut(dataset, number, cuts=NUM_CUTS)
    is_own = protocol == "random" == options["split"]
    seed = (options["seed"] if is_own else DEFAULT_SEED) + number
    if protocol == "cold-items":
        return cold_items(dataset, seed=seed)
    if protocol == "new-users":
        whole = resplit(dataset, seed=DEFAULT_SEED, fractions=_WITHOUT_TEST)
        return without_users(whole, new_users(dataset, number))
    arguments = dict(PROTOCOLS[protocol])
    if is_own:
        arguments["fractions"] = tuple(options["fractions"])
    return resplit(dataset, seed=seed, **arguments)


Kind = Literal["ours", "ablation", "other"]
"""The default model; a part or a simpler form of it; a model that a user could pick instead."""


@dataclass(frozen=True, eq=False)
class FittedRow:
    """A row fitted on one split."""

    model: FittedModel
    details: Json = field(default_factory=dict)
    """More entries of the row's result on this split."""


@dataclass(frozen=True)
class Row:
    """A model of the scoreboard with its search space."""

    fit: "Callable[[Benchmark, int, Json], FittedRow]"
    """(benchmark, number of the split, settings)"""
    space: Space = field(default_factory=dict)
    """Empty: nothing to tune."""
    kind: Kind = "other"
    needs: frozenset[Need] = frozenset()
    first_trial: Json | None = None
    """Settings of the first trial; drawn if not given."""
    parts: tuple[str, ...] = ()
    """Rows that it combines; each is tuned before it."""
    finalists: int = 5
    """Number of settings, the best ones over several splits, among which the validation of a split
    chooses."""
    fixed_settings: Json = field(default_factory=dict)
    """Settings that are not tuned, as part of the row's identity."""


def new_users(dataset: Dataset, number: int) -> NDArray[np.bool_]:
    """Users that the split `number` of new-users holds out, a tenth of all: bool [U]."""
    part = np.random.default_rng(DEFAULT_SEED).permutation(dataset.num_users) % _PARTS
    held_out: NDArray[np.bool_] = part == number % _PARTS
    return held_out


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Data, folder and limits that all rows of a scoreboard share in one protocol."""

    protocol: str
    dataset: Dataset
    """The dataset that is split."""
    splits: list[Dataset]
    """The same dataset, split in several ways."""
    store: EmbeddingStore
    out: Path
    """Folder of searches, results and runs."""
    progress: Progress
    rows: Mapping[str, Row]
    """All rows by name, parts of others included."""
    tuning_seconds: float
    """Time for the hyper-parameter search of one row."""
    users: UserHalf = "report"
    """Users whose test interactions are measured."""
    query_time: QueryTime = "last"
    tuning: dict[str, Json] = field(default_factory=dict)
    """Results of `tune` by row."""
    fitted: dict[str, FittedModel] = field(default_factory=dict)
    """Parts of a mix, fitted once."""
    _train_data: dict[int, TrainData] = field(default_factory=dict)
    _lexical: dict[int, EmbeddingStore] = field(default_factory=dict)
    _queries: dict[tuple[int, int], Queries] = field(default_factory=dict)

    def train_data(self, split: int) -> TrainData:
        """Train data of a split (its number from 0), built once for all baselines."""
        if split not in self._train_data:
            while len(self._train_data) >= _KEPT:  # it may hold the pooled texts
                self._train_data.pop(next(iter(self._train_data)))
            store = self.store_of(split)
            self._train_data[split] = TrainData(with_item_passages(self.splits[split], store), store)
        return self._train_data[split]

    def store_of(self, split: int) -> EmbeddingStore:
        """Embeddings for a split: word vectors of train texts are fitted for each, others are for all."""
        if not is_lexical(self.store.encoder):
            return self.store
        if split not in self._lexical:
            dataset = self.splits[split]
            self._lexical[split] = write_lexical_store(
                dataset,
                self.out / "stores" / f"lexical-{train_texts_hash(dataset)[:12]}",
                dimensions=self.store.dim,
                dtype=self.store.dtype,
                tokens=self.store.token_format.tokens,
                progress=self.progress,
            )
        return self._lexical[split]

    def queries(self, split: int, part: int) -> Queries:
        """Queries of VALID (all users) or TEST (the users that are measured) of a split, built once."""
        key = split, part
        if key not in self._queries:
            dataset = self.splits[split]
            among = users_of("all" if part == VALID else self.users, dataset.user_ids)
            if self.protocol == "new-users" and part == TEST:
                self._queries[key] = new_user_queries(self.dataset, among & new_users(dataset, split))
            else:
                self._queries[key] = build_queries(dataset, part, query_time=self.query_time, among=among)
        return self._queries[key]

    def candidates(self, split: int, part: int) -> NDArray[np.bool_] | None:
        """Items that may be listed: bool [I], None for all; of cold-items, those without a train
        interaction."""
        if self.protocol != "cold-items" or part != TEST:
            return None
        dataset = self.splits[split]
        is_cold = np.ones(dataset.num_items, bool)
        is_cold[dataset.csr(TRAIN, positive_only=False).indices] = False
        return is_cold

    @cached_property
    def kinds(self) -> frozenset[str]:
        """What the dataset has that a row may need: "order", "times", "text"."""
        dataset = self.splits[0]
        kinds = {"order", "times"} if has_times(dataset) else set()
        return frozenset(kinds | ({"text"} if dataset.has_text else set()))

    def validation(self, model: FittedModel, split: int) -> float:
        """Mean of the tuning metric on the validation of a split."""
        queries = self.queries(split, VALID)
        values = metrics(model.top(queries, 10), queries.relevant, [METRIC])[METRIC]
        if np.isnan(values).all():
            raise DataError(f"{self.splits[split].path}: validation holds nothing to choose settings by")
        return float(np.nanmean(values))


def write_json(path: Path, value: Json) -> None:
    """Write a line of canonical JSON, atomically."""
    text = canonical_json(value).encode() + b"\n"
    write_atomic(path, lambda file: file.write(text))
