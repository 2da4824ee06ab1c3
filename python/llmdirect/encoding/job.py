"""Encoding job: the texts to encode, the encoder, the batch plan and the store."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmdirect._core import Store
from llmdirect.common.devices import has_own_memory
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import MANIFEST, check_disk, free_bytes
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.calibrate import fit
from llmdirect.encoding.encoders import Encoder, load_encoder, resolve
from llmdirect.encoding.encoders.loading import check_max_length
from llmdirect.encoding.encoders.sources import Source
from llmdirect.encoding.options import Options
from llmdirect.encoding.results import EncodingPlan, PrecomputeResult
from llmdirect.encoding.texts import Texts
from llmdirect.store.batch_plan import BatchPlan, differences, make_plan, read_plan, write_plan
from llmdirect.store.calibration import Calibration
from llmdirect.store.shards import (
    clear_shards,
    content_hash,
    damaged_file,
    encoder_differences,
    keep_or_clear,
    read_store_manifest,
    shard_folder,
    store_bytes,
)
from llmdirect.store.token_format import TokenFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Job:
    """Texts to encode, and everything that determines the content of their shards."""

    store: Path
    """Folder of the store."""
    num_passages: int
    """Passages of the dataset, repeated texts included."""
    texts: Texts
    encoder: Encoder
    plan: BatchPlan
    token_format: TokenFormat
    calibration: Calibration

    @property
    def dim(self) -> int:
        """Length of a stored token embedding."""
        return self.token_format.dim(self.encoder.dim)

    @property
    def encoder_entry(self) -> Json:
        """Manifest entry "encoder" of each shard."""
        entry: Json = self.plan.header["encoder"]
        return entry

    @property
    def source_entry(self) -> Json:
        """Manifest entry "source" of each shard."""
        return {key: value for key, value in self.plan.header.items() if key != "encoder"}

    def operations(self, shards: list[int]) -> float:
        """Floating-point operations that the shards take."""
        counts = [self.plan.num_tokens[slice(*self.plan.shard_range(shard))] for shard in shards]
        return self.encoder.operations(np.concatenate(counts))

    def pending_shards(self, shards: Iterable[int] | None = None) -> list[int]:
        """Shards that are not complete, of all or of `shards`; incomplete ones are removed.

        Raises
        ------
        DataError
            If a complete shard belongs to another job.
        """
        candidates = range(self.plan.num_shards) if shards is None else shards
        return [
            shard
            for shard in candidates
            if not keep_or_clear(shard_folder(self.store, shard), expected=self._expected_entries(shard))
        ]

    def _expected_entries(self, shard: int) -> Json:
        start, stop = self.plan.shard_range(shard)
        expected = {
            "encoder": self.encoder_entry,
            "source": self.source_entry,
            "passages": stop - start,
        }
        if self.token_format.tokens == "all":  # otherwise the number of kept tokens is not known beforehand
            expected["rows"] = self.plan.shard_tokens(shard)
        return expected

    def summary(self, pending: list[int]) -> PrecomputeResult:
        """Result of the job before any shard is encoded; also logged."""
        plan, row_bytes = self.plan, self.token_format.row_bytes(self.dim)
        tokens = int(plan.num_tokens.sum())
        tokens_to_encode = sum(map(plan.shard_tokens, pending))
        texts_to_write = sum(stop - start for start, stop in map(plan.shard_range, pending))
        sizes = EncodingPlan(
            model=self.encoder_entry["id"],
            passages=self.num_passages,
            texts_without_tokens=int((plan.num_tokens == 0).sum()),
            texts_in_windows=int((plan.num_tokens > self.encoder.max_length).sum()),
            dim=self.dim,
            dtype=self.token_format.dtype,
            calibration=plan.calibration,
            bytes=store_bytes(tokens, len(plan.text_idx), row_bytes),
            shards=plan.num_shards,
            tokens_to_encode=tokens_to_encode,
            bytes_to_write=store_bytes(tokens_to_encode, texts_to_write, row_bytes),
            bytes_free=free_bytes(self.store),
        )
        result = PrecomputeResult(
            self.store, len(plan.text_idx), tokens, len(pending), 0, consolidated=False, plan=sizes
        )
        # The tokens that "content" keeps are counted only when they are encoded.
        bound = "at most " if self.token_format.tokens != "all" else ""
        logger.info(
            "%s texts, %s tokens: %s%.2f GB in all, %s of %s shards (%.2f GB) to make; consolidation needs "
            "as much again while both are there",
            *(f"{result.texts:,}", f"{tokens:,}", bound, sizes.bytes / 1e9),
            *(len(pending), plan.num_shards, sizes.bytes_to_write / 1e9),
        )
        if sizes.texts_in_windows:
            logger.info(
                "%s texts exceed %s tokens: read in overlapping windows, whole",
                f"{sizes.texts_in_windows:,}",
                self.encoder.max_length,
            )
        return result


def plan_job(
    options: Options, dataset: Dataset, progress: Progress = SILENT
) -> tuple[Job | None, list[int], PrecomputeResult]:
    """Job with its plan written, its pending shards, and the result before any of them is encoded.

    The job is None where a consolidated store already has all texts. Raises what `open_job` raises.
    """
    job = open_job(options, dataset, write=True, progress=progress)
    if isinstance(job, PrecomputeResult):
        return None, [], job
    pending = job.pending_shards()
    return job, pending, job.summary(pending)


def open_job(
    options: Options, dataset: Dataset, *, write: bool, progress: Progress = SILENT
) -> Job | PrecomputeResult:
    """Job of the store's batch plan, or of a new plan.

    Parameters
    ----------
    options, dataset
        Settings and the opened dataset.
    write
        Write a new plan and its calibration, and remove shards that they replace. Otherwise nothing is
        written and nothing is fitted.

    Returns
    -------
    Job or PrecomputeResult
        The result where a consolidated store already has all texts.

    Raises
    ------
    MismatchError
        If the store is of another encoder or other settings.
    DataError
        If a file of the store is damaged.
    OSError
        If the disk has too little space.

    Also raises what `load_encoder` raises.
    """
    store, token_format = options.folder, options.token_format
    texts = Texts.from_dataset(dataset)
    manifest = read_store_manifest(store, "llmdirect consolidate") if (store / MANIFEST).exists() else None
    if manifest is not None:
        source = resolve(options.encoder, options.revision)
        _check_consolidated(store, manifest, source, token_format, options.max_length)
        stored = Store.open(store, False, False).find(texts.keys) >= 0
        if stored.all():
            return _complete(store, manifest, len(stored))
        texts = texts.without(stored)
    encoder = load_encoder(
        options.encoder, device=options.device, max_length=options.max_length, revision=options.revision
    )
    token_format.dim(encoder.dim)  # raises where the encoder has too few dimensions
    header = _plan_header(options, texts, encoder, manifest)
    plan = read_plan(store, header)
    if plan is not None:
        calibration = Calibration.read(store, plan.calibration)
    else:
        plan, calibration = _new_plan(options, texts, encoder, header, manifest, write, progress)
    return Job(store, dataset.num_passages, texts, encoder, plan, token_format, calibration)


def _new_plan(
    options: Options,
    texts: Texts,
    encoder: Encoder,
    header: Json,
    manifest: Json | None,
    write: bool,
    progress: Progress,
) -> tuple[BatchPlan, Calibration]:
    """Plan and calibration; `manifest` is that of a consolidated store to which the texts are added."""
    store, token_format = options.folder, options.token_format
    num_tokens = texts.count_tokens(encoder, progress)
    budget = header["settings"]["token_budget"]
    entry = (manifest or {}).get("form", {}).get("calibration")
    calibration = Calibration.read(store, entry)
    if write:
        row_bytes = token_format.row_bytes(token_format.dim(encoder.dim))
        needed = store_bytes(int(num_tokens.sum()), len(num_tokens), row_bytes)
        check_disk(store, needed, "the shards need")
        if options.token_budget is None and has_own_memory(encoder.device):
            budget = _fitting_budget(encoder, texts, num_tokens, budget)
        if token_format.calibrated and entry is None:
            train = np.flatnonzero(texts.in_train & (num_tokens > 0))
            if not len(train):  # no text in train: nothing is learned from those of the other splits
                train = np.flatnonzero(num_tokens > 0)
            calibration = fit(
                encoder,
                texts.select(train),
                num_tokens[train],
                token_format,
                token_budget=budget,
                progress=progress,
            )
            entry = calibration.write(store)
    plan = make_plan(
        num_tokens,
        header,
        max_length=encoder.max_length,
        cost=encoder.cost,
        token_budget=budget,
        shard_tokens=options.shard_tokens,
        calibration=entry,
    )
    if write:
        if manifest is not None:
            clear_shards(store)  # kept after consolidation; the store has their content
        write_plan(store, plan)
    return plan, calibration


def _plan_header(options: Options, texts: Texts, encoder: Encoder, manifest: Json | None) -> Json:
    """Identity of a plan. MismatchError where the store of `manifest` is of another encoder."""
    token_format = options.token_format
    header: Json = {
        "texts": texts.hash,
        "encoder": encoder.describe(),
        "settings": {
            "dtype": token_format.dtype,
            **({"project": token_format.project} if token_format.project else {}),
            **({"tokens": token_format.tokens} if token_format.tokens != "all" else {}),
            "token_budget": options.token_budget or encoder.tokens_at_once,
            "shard_tokens": options.shard_tokens,
            "device": encoder.device.type,
        },
    }
    if manifest is None:
        return header
    if different := encoder_differences(manifest["encoder"], header["encoder"]):
        raise _store_mismatch(options.folder, different)
    return {**header, "grows": content_hash(manifest)}


def _check_consolidated(
    store: Path, manifest: Json, source: Source, token_format: TokenFormat, max_length: int | None
) -> None:
    """MismatchError where a consolidated store is of another encoder or format, DataError for damage."""
    if damaged := damaged_file(store, manifest):
        raise DataError(
            f"{damaged}: missing or truncated; delete {store}, then run `llmdirect precompute` and "
            "`llmdirect consolidate` again"
        )
    stored = manifest["encoder"]
    limits = [limit for limit in (stored.get("model_limit"), max_length) if limit is not None]
    expected: Json = {"id": source.id, "revision": source.revision, "max_length": min(limits, default=None)}
    if source.revision is None and stored.get("id") == source.id:
        # A folder's content may have changed under its name; a revision of the Hub or a package does not.
        expected["weights"] = load_encoder(
            str(source.folder), device="cpu", dtype=stored["compute_dtype"], max_length=stored["max_length"]
        ).describe()["weights"]
    different = differences({key: stored.get(key) for key in expected}, expected)
    different += differences(vars(TokenFormat.from_manifest(manifest)), vars(token_format))
    if different:
        raise _store_mismatch(store, different)
    check_max_length(source.id, max_length, stored.get("model_limit"))


def _store_mismatch(store: Path, different: list[str]) -> MismatchError:
    return MismatchError(
        f"{store}: a finished store of another run ({'; '.join(different)}); "
        "delete it or choose another `store`"
    )


def _complete(store: Path, manifest: Json, num_texts: int) -> PrecomputeResult:
    """Result where a consolidated store has all `num_texts` texts of the dataset."""
    logger.info("%s is complete and consolidated: nothing to do", store)
    if manifest["passages"] > num_texts:
        logger.info(
            "it also holds %s texts that are no longer in the dataset; `llmdirect consolidate` drops them",
            f"{manifest['passages'] - num_texts:,}",
        )
    return PrecomputeResult(store, manifest["passages"], manifest["rows"], 0, 0, consolidated=True)


def _fitting_budget(encoder: Encoder, texts: Texts, num_tokens: NDArray[np.int32], budget: int) -> int:
    """Token budget, halved until the longest texts fit the memory of the device."""
    longest = np.argsort(-num_tokens, kind="stable")
    longest = longest[: int(np.searchsorted(np.cumsum(num_tokens[longest]), budget)) + 1]
    _, fitted = encoder.embed_in_parts(encoder.tokenize(texts.select(longest)), token_budget=budget)
    if fitted != budget:
        logger.warning("%s tokens at once fit %s, not %s", f"{fitted:,}", encoder.device, f"{budget:,}")
    return fitted
