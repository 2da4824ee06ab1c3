"""What a run of `precompute` will do: which texts it encodes, by which encoder and plan, into which store."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import Store
from llmdirect.common.devices import has_own_memory
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST, check_disk, digest
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.encoding.calibrate import fit
from llmdirect.encoding.encoders import Encoder, load_encoder, resolve
from llmdirect.encoding.encoders.sources import Source, slug
from llmdirect.encoding.results import PrecomputeResult
from llmdirect.store.batch_plan import BatchPlan, differences, make_plan, read_plan, write_plan
from llmdirect.store.calibration import Calibration
from llmdirect.store.shards import (
    clear_shards,
    content_hash,
    damaged_file,
    encoder_differences,
    read_store_manifest,
    store_bytes,
)
from llmdirect.store.token_format import TokenFormat

_COUNTED_AT_ONCE = 8192

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What `precompute` was asked for; its arguments, and `token_format` for how tokens are kept."""

    dataset: Path
    model: str
    token_format: TokenFormat
    device: str
    token_budget: int | None
    shard_tokens: int
    max_length: int | None
    revision: str | None
    name: str | None

    def __post_init__(self) -> None:
        for option, value in {"token_budget": self.token_budget, "shard_tokens": self.shard_tokens}.items():
            if value is not None and value < 1:
                raise ValueError(f"{option}={value}; at least 1")

    @property
    def store(self) -> Path:
        """DATASET/stores/NAME, or the folder that `name` is the path of."""
        if self.name and os.sep in self.name:
            return Path(self.name)
        default = f"{slug(resolve(self.model, self.revision).id)}-{self.token_format.name}"
        return self.dataset / "stores" / (slug(self.name) if self.name else default)


@dataclass(frozen=True, eq=False)
class Texts:
    """The distinct texts of a dataset in the order of their keys; `row` is where each comes first, `train`
    whether it stands in train.
    """

    keys: NDArray[np.uint8]
    row: NDArray[np.int64]
    train: NDArray[np.bool_]
    texts: list[str]

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Texts":
        """All of the dataset's. DataError where it has none."""
        if not dataset.num_passages:
            raise DataError(f"{dataset.path}: has no passages to encode")
        keys = np.ascontiguousarray(dataset.passage_keys())
        # As strings of 16 bytes: padding is zero bytes, so they compare as the bytes do.
        _, row, number = np.unique(keys.view("S16").ravel(), return_index=True, return_inverse=True)
        train = np.bincount(number, dataset.passages.split == TRAIN) > 0
        return cls(keys[row], row.astype(np.int64), train, dataset.passages.text.gather(row).to_list())

    @property
    def hash(self) -> str:
        """Digest of the keys."""
        return digest(self.keys.tobytes())

    def without(self, known: NDArray[np.bool_]) -> "Texts":
        """Those that are not `known` [n]."""
        places = np.flatnonzero(~known)
        texts = [self.texts[place] for place in places.tolist()]
        return Texts(self.keys[places], self.row[places], self.train[places], texts)


@dataclass(frozen=True, eq=False)
class Job:
    """The texts that are encoded, and all that decides what their shards hold."""

    store: Path
    num_passages: int
    """Of the dataset, copies among them."""
    texts: Texts
    encoder: Encoder
    plan: BatchPlan
    token_format: TokenFormat
    calibration: Calibration


def open_job(
    options: Options, dataset: Dataset, *, frozen: bool, progress: Progress = SILENT
) -> Job | PrecomputeResult:
    """The job as its plan in the store says, or made anew; the answer of `precompute` where nothing is to do.

    frozen: a new plan and its calibration are written, and what is in their way removed; else nothing is
    written, and nothing fitted.

    Raises MismatchError where the store is of another model or other settings, DataError for damage, OSError
    for too little disk, and what `load_encoder` raises.
    """
    store, token_format = options.store, options.token_format
    texts = Texts.from_dataset(dataset)
    old = read_store_manifest(store, "llmdirect consolidate") if (store / MANIFEST).exists() else None
    if old is not None:
        source = resolve(options.model, options.revision)
        _check_finished(store, old, source, token_format, options.max_length)
        known = Store.open(store, False, False).find(texts.keys) >= 0
        if known.all():
            return _nothing_to_do(store, old, len(known))
        texts = texts.without(known)
    encoder = load_encoder(
        options.model, device=options.device, max_length=options.max_length, revision=options.revision
    )
    token_format.dim(encoder.dim)
    header = _header(options, texts, encoder, old)
    plan = read_plan(store, header)
    if plan is not None:
        calibration = Calibration.read(store, plan.calibration)
        return Job(store, dataset.num_passages, texts, encoder, plan, token_format, calibration)
    rows = _count_tokens(encoder, texts, progress)
    budget = header["settings"]["token_budget"]
    entry = (old or {}).get("form", {}).get("calibration")
    calibration = Calibration.read(store, entry)
    if frozen:
        row_bytes = token_format.row_bytes(token_format.dim(encoder.dim))
        check_disk(store, store_bytes(int(rows.sum()), len(rows), row_bytes), "the shards need")
        if options.token_budget is None and has_own_memory(encoder.device):
            budget = _fitting_budget(encoder, texts, rows, budget)
    if frozen and token_format.calibrated and entry is None:
        train = np.flatnonzero(texts.train)
        known_texts = [texts.texts[text] for text in train.tolist()]
        calibration = fit(
            encoder, known_texts, rows[train], token_format, token_budget=budget, progress=progress
        )
        entry = calibration.write(store)
    plan = make_plan(
        rows,
        header,
        max_length=encoder.max_length,
        cost=encoder.cost,
        token_budget=budget,
        shard_tokens=options.shard_tokens,
        calibration=entry,
    )
    if frozen:
        if old is not None:
            clear_shards(store)  # they were kept beside the store, which has them
        write_plan(store, plan)
    return Job(store, dataset.num_passages, texts, encoder, plan, token_format, calibration)


def _header(options: Options, texts: Texts, encoder: Encoder, old: Json | None) -> Json:
    """What a plan is made for. MismatchError where the store `old` is of another encoder."""
    place, token_format = encoder.device.type, options.token_format
    header: Json = {
        "texts": texts.hash,
        "encoder": encoder.describe(),
        "settings": {
            "dtype": token_format.dtype,
            **({"project": token_format.project} if token_format.project else {}),
            **({"tokens": token_format.tokens} if token_format.tokens != "all" else {}),
            "token_budget": options.token_budget or encoder.tokens_at_once,
            "shard_tokens": options.shard_tokens,
            "device": place,
        },
    }
    if old is None:
        return header
    if different := encoder_differences(old["encoder"], header["encoder"]):
        raise _other_store(options.store, different)
    return {**header, "grows": content_hash(old)}


def _check_finished(
    store: Path, manifest: Json, source: Source, token_format: TokenFormat, max_length: int | None
) -> None:
    """Raises MismatchError where a consolidated store is of another encoder or token format,
    DataError for damage."""
    if damaged := damaged_file(store, manifest):
        raise DataError(
            f"{damaged}: missing or truncated; delete {store}, then run `llmdirect precompute` and "
            "`llmdirect consolidate` again"
        )
    encoder = manifest["encoder"]
    limits = [limit for limit in (encoder.get("model_limit"), max_length) if limit is not None]
    wanted: Json = {"id": source.id, "revision": source.revision, "max_length": min(limits, default=None)}
    if source.revision is None and encoder.get("id") == source.id:
        # A folder's content may have changed under its name; a revision of the Hub or a package does not.
        wanted["weights"] = load_encoder(
            str(source.folder), device="cpu", dtype=encoder["compute_dtype"], max_length=encoder["max_length"]
        ).describe()["weights"]
    different = differences({key: encoder.get(key) for key in wanted}, wanted)
    different += differences(vars(TokenFormat.from_manifest(manifest)), vars(token_format))
    if different:
        raise _other_store(store, different)


def _other_store(store: Path, different: list[str]) -> MismatchError:
    return MismatchError(
        f"{store}: a finished store of another run ({'; '.join(different)}); "
        "delete it or choose another --store"
    )


def _nothing_to_do(store: Path, manifest: Json, wanted: int) -> PrecomputeResult:
    """The answer where a consolidated store has all `wanted` texts."""
    logger.info("%s is complete and consolidated: nothing to do", store)
    if manifest["passages"] > wanted:
        logger.info(
            "it also holds %s texts that the dataset has no more; `llmdirect consolidate` drops them",
            f"{manifest['passages'] - wanted:,}",
        )
    return PrecomputeResult(store, manifest["passages"], manifest["rows"], 0, 0, consolidated=True)


def _fitting_budget(encoder: Encoder, texts: Texts, rows: NDArray[np.int32], budget: int) -> int:
    """The budget, or its half, quarter, … at which the longest texts fit the device's memory."""
    longest = np.argsort(-rows, kind="stable")
    longest = longest[: int(np.searchsorted(np.cumsum(rows[longest]), budget)) + 1]
    tokens = encoder.tokenize([texts.texts[text] for text in longest.tolist()])
    _, fitted = encoder.embed_in_parts(tokens, token_budget=budget)
    if fitted != budget:
        logger.warning("%s tokens at once fit %s, not %s", f"{fitted:,}", encoder.device, f"{budget:,}")
    return fitted


def _count_tokens(encoder: Encoder, texts: Texts, progress: Progress) -> NDArray[np.int32]:
    counts: list[int] = []
    with progress.task("count tokens", len(texts.texts), "texts") as task:
        for start in range(0, len(texts.texts), _COUNTED_AT_ONCE):
            part = texts.texts[start : start + _COUNTED_AT_ONCE]
            counts += encoder.count_tokens(part)
            task.advance(len(part))
    return np.array(counts, np.int32)
