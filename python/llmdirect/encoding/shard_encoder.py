"""One run of `precompute`: a job's shards are encoded and written."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.common.devices import has_own_memory
from llmdirect.common.errors import DataError
from llmdirect.common.files import free_bytes
from llmdirect.common.progress import Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.encoders import Tokens
from llmdirect.encoding.encoders.flops import peak_rate
from llmdirect.encoding.job import Job, Options, open_job
from llmdirect.encoding.results import EncodingPlan, PrecomputeResult, Throughput
from llmdirect.encoding.throughput import ThroughputMeter, duration
from llmdirect.store.batch_plan import record_budget
from llmdirect.store.shards import keep_or_clear, shard_folder, store_bytes, write_shard

_WAITING_SHARDS = 2  # encoded and not yet written: bounds the memory
_TRIAL_TOKENS = 1024

logger = logging.getLogger(__name__)


def open_run(
    options: Options, dataset: Dataset, progress: Progress
) -> tuple["ShardEncoder | None", list[int], PrecomputeResult]:
    """The run as its plan says (None: nothing to do), the shards it lacks, what `precompute` returns."""
    job = open_job(options, dataset, frozen=True, progress=progress)
    if isinstance(job, PrecomputeResult):
        return None, [], job
    run = ShardEncoder(job)
    pending = run.pending()
    return run, pending, run.summary(pending)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """What a shard will hold: arrays by name [rows, …], rows of each text, and their spans [rows, 2]."""

    arrays: dict[str, torch.Tensor]
    lengths: NDArray[np.int64]
    spans: NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class _Read:
    """A shard's texts, tokenised, and for each a mask of the tokens that are kept."""

    tokens: list[Tokens]
    kept: list[NDArray[np.bool_]]


class ShardEncoder:
    """One run over the shards that are not there yet."""

    def __init__(self, job: Job) -> None:
        self._store, self._texts, self._encoder, self._plan = job.store, job.texts, job.encoder, job.plan
        self._token_format, self._calibration = job.token_format, job.calibration.to(job.encoder.device)
        self._dim = job.token_format.dim(job.encoder.dim)
        self._num_passages = job.num_passages
        self._on_cuda = job.encoder.device.type == "cuda"
        self._copies: torch.cuda.Stream | None = None
        if self._on_cuda:
            self._copies = torch.cuda.Stream(job.encoder.device)  # type: ignore[no-untyped-call]  # torch: no types
        self._identity = job.plan.header["encoder"]
        self._source = {key: value for key, value in job.plan.header.items() if key != "encoder"}

    def pending(self, shards: Iterable[int] | None = None) -> list[int]:
        """Those of the shards (default: all) that are not complete; what a killed run left of them goes."""
        return [
            shard
            for shard in (range(self._plan.num_shards) if shards is None else shards)
            if not keep_or_clear(shard_folder(self._store, shard), expected=self._expected(shard))
        ]

    def _expected(self, shard: int) -> Json:
        start, stop = self._plan.shard_range(shard)
        expected = {"encoder": self._identity, "source": self._source, "passages": stop - start}
        return expected if self._token_format.tokens != "all" else {**expected, "rows": self.rows(shard)}

    def summary(self, pending: list[int]) -> PrecomputeResult:
        """What the run amounts to, before it starts."""
        plan, row_bytes = self._plan, self._token_format.row_bytes(self._dim)
        rows = int(plan.rows.sum())
        rows_to_write = sum(map(self.rows, pending))
        texts_to_write = sum(stop - start for start, stop in map(plan.shard_range, pending))
        sizes = EncodingPlan(
            model=self._identity["id"],
            passages=self._num_passages,
            texts_without_tokens=int((plan.rows == 0).sum()),
            texts_in_windows=int((plan.rows > self._encoder.max_length).sum()),
            dim=self._dim,
            dtype=self._token_format.dtype,
            calibration=plan.calibration,
            bytes=store_bytes(rows, len(plan.text), row_bytes),
            shards=plan.num_shards,
            tokens_to_encode=rows_to_write,
            bytes_to_write=store_bytes(rows_to_write, texts_to_write, row_bytes),
            bytes_free=free_bytes(self._store),
        )
        at_most = (
            "at most " if self._token_format.tokens != "all" else ""
        )  # which words a text has is seen later
        logger.info(
            "%s texts, %s tokens: %s%.2f GB in all, %s of %s shards (%.2f GB) to make; consolidation needs "
            "as much again while both are there",
            *(f"{len(plan.text):,}", f"{rows:,}", at_most, sizes.bytes / 1e9),
            *(len(pending), plan.num_shards, sizes.bytes_to_write / 1e9),
        )
        if sizes.texts_in_windows:
            logger.info(
                "%s texts exceed %s tokens: read in overlapping windows, whole",
                f"{sizes.texts_in_windows:,}",
                self._encoder.max_length,
            )
        return PrecomputeResult(
            self._store, len(plan.text), rows, len(pending), 0, consolidated=False, plan=sizes
        )

    def estimate(self, pending: list[int], processes: int = 1) -> float | None:
        """Seconds of so many processes like this one, by a batch of middling texts; None: nothing pending."""
        if not pending:
            return None
        places = np.concatenate([np.arange(*self._plan.shard_range(shard)) for shard in pending])
        places = places[self._plan.rows[places] > 0]
        if not len(places):
            return 0.0
        places = places[len(places) // 2 :]
        # A GPU is as fast as in the run only with as much to do.
        wanted = self._plan.token_budget if has_own_memory(self._encoder.device) else _TRIAL_TOKENS
        taken = np.cumsum(self._plan.rows[places])
        trial = places[: int(np.searchsorted(taken, min(wanted, self._plan.token_budget))) + 1]
        tokens = self._encoder.tokenize([self._texts.texts[text] for text in self._plan.text[trial]])
        for _ in range(2):  # the first time, code and memory are fetched
            started = time.perf_counter()
            self._encoder.embed_in_parts(tokens, token_budget=self._plan.token_budget)[0].cpu()
            seconds = time.perf_counter() - started
        share = self._operations(pending) / self._encoder.operations(self._plan.rows[trial])
        logger.info(
            "about %s, by %s tokens in %.2f s",
            *(duration(seconds * share / processes), f"{sum(map(len, tokens)):,}", seconds),
        )
        return seconds * share / processes

    def _operations(self, shards: list[int]) -> float:
        lengths = [self._plan.rows[slice(*self._plan.shard_range(shard))] for shard in shards]
        return self._encoder.operations(np.concatenate(lengths))

    def encode(self, pending: list[int], progress: Progress) -> Throughput | None:
        """Encodes the shards; returns how fast.

        One thread tokenises the next shard, another writes the last ones: the device waits for neither.
        Their errors are raised here.
        """
        if not pending:
            return None
        writing: deque[Future[None]] = deque()
        total = sum(map(self.rows, pending))
        peak = peak_rate(self._encoder.device, self._encoder.dtype)
        with (
            progress.task(f"encode with {self._identity['id']}", total, "tokens") as task,
            ThreadPoolExecutor(1, thread_name_prefix="tokeniser") as tokeniser,
            ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as writer,
        ):
            pace = ThroughputMeter(task, *peak)
            ahead = tokeniser.submit(self._read, pending[0])
            try:
                for shard, following in zip(pending, [*pending[1:], None], strict=True):
                    texts = ahead.result()
                    if following is not None:
                        ahead = tokeniser.submit(self._read, following)
                    encoded = self._encode_shard(shard, texts, pace)
                    # The writer waits for the device, so that this thread can go on to the next shard.
                    ready = self._copies.record_event() if self._copies is not None else None
                    while len(writing) >= _WAITING_SHARDS:
                        writing.popleft().result()
                    writing.append(writer.submit(self._write_shard, shard, encoded, ready, pace))
                while writing:
                    writing.popleft().result()
            except BaseException:
                for each in (tokeniser, writer):
                    each.shutdown(wait=False, cancel_futures=True)
                raise
            return pace.summary()

    def _read(self, shard: int) -> _Read:
        start, stop = self._plan.shard_range(shard)
        texts = [self._texts.texts[text] for text in self._plan.text[start:stop]]
        tokens = self._encoder.tokenize(texts)
        return _Read(tokens, self._token_format.kept(texts, [each.spans for each in tokens]))

    def _encode_shard(self, shard: int, read: _Read, pace: ThroughputMeter) -> _Encoded:
        start, _ = self._plan.shard_range(shard)
        lengths = np.array([each.sum() for each in read.kept], np.int64)
        encoded = _Encoded(
            self._buffers(int(lengths.sum())),
            lengths,
            np.concatenate([each.spans[own] for each, own in zip(read.tokens, read.kept, strict=True)]),
        )
        row = 0
        for batch, low, high in self._plan.batches(shard):
            tokens = read.tokens[low - start : high - start]
            part = self._embed(batch, tokens)
            pace.encoded(len(tokens), len(part), self._encoder.operations([len(each) for each in tokens]))
            own = np.concatenate(read.kept[low - start : high - start])
            if not own.all():  # numbers made on the CPU: a mask would make the device wait for its own count
                part = part.index_select(0, torch.from_numpy(np.flatnonzero(own)).to(part.device))
            values = self._calibration.store(part, self._token_format.dtype)
            with self._copying(values):
                for name, column in values.items():
                    encoded.arrays[name][row : row + len(part)].copy_(column, non_blocking=self._on_cuda)
            row += len(part)
        return encoded

    @contextmanager
    def _copying(self, values: dict[str, torch.Tensor]) -> Iterator[None]:
        """Copies from the device go beside the next batch's arithmetic, in a stream of their own."""
        if self._copies is None:
            yield
            return
        self._copies.wait_stream(torch.cuda.current_stream(self._encoder.device))
        with torch.cuda.stream(self._copies):
            yield
        for column in values.values():
            column.record_stream(self._copies)  # its memory is not used again before it is copied

    def _buffers(self, rows: int) -> dict[str, torch.Tensor]:
        """Memory for `rows` tokens as they are stored."""
        dtype: torch.dtype = getattr(torch, self._token_format.dtype)
        buffers = {"tokens": torch.empty(rows, self._dim, dtype=dtype, pin_memory=self._on_cuda)}
        if self._calibration.channels is not None:
            buffers["scales"] = torch.empty(rows, dtype=torch.float16, pin_memory=self._on_cuda)
        return buffers

    def _embed(self, batch: int, tokens: list[Tokens]) -> torch.Tensor:
        """The batch's vectors; one that does not fit the device is split, and the plan remembers how."""
        longest = min(max(map(len, tokens)), self._encoder.max_length)
        cost = sum(self._encoder.cost(len(each), longest) for each in tokens)
        budget = self._plan.budgets.get(batch, min(cost, self._plan.token_budget))
        vectors, fitted = self._encoder.embed_in_parts(tokens, token_budget=budget)
        if fitted != budget:
            logger.warning("batch %s does not fit the device: split into %s tokens at once", batch, fitted)
            record_budget(self._store, self._plan, batch, fitted)
        return vectors

    def _write_shard(
        self, shard: int, encoded: _Encoded, ready: torch.cuda.Event | None, pace: ThroughputMeter
    ) -> None:
        if ready is not None:
            ready.synchronize()
        start, stop = self._plan.shard_range(shard)
        offsets = np.concatenate([[0], np.cumsum(encoded.lengths)])
        tokens, scales = encoded.arrays["tokens"], encoded.arrays.get("scales")
        finite = torch.isfinite(tokens).all(dim=1) if scales is None else torch.isfinite(scales)
        if not bool(finite.all()):
            place = int(np.searchsorted(offsets, int(finite.logical_not().nonzero()[0]), side="right")) - 1
            self._refuse(int(self._plan.text[start + place]))
        channels = self._calibration.channels
        write_shard(
            shard_folder(self._store, shard),
            tokens=(tokens.view(torch.uint16) if tokens.dtype is torch.bfloat16 else tokens).numpy(),
            offsets=offsets,
            spans=encoded.spans,
            keys=self._texts.keys[self._plan.text[start:stop]],
            scales=None if scales is None else scales.numpy(),
            channels=None if channels is None else channels.cpu().numpy(),
            dtype=self._token_format.dtype,
            form=self._token_format.to_json(self._plan.calibration),
            encoder=self._identity,
            source=self._source,
        )
        pace.written(sum(array.nbytes for array in encoded.arrays.values()))

    def _refuse(self, text: int) -> None:
        dtype = self._token_format.dtype
        cure = "store --dtype bfloat16 or float32" if dtype == "float16" else "try another --device"
        raise DataError(
            f"{self._store}: passage {self._texts.row[text]} ({self._texts.texts[text][:40]!r} …) has a "
            f"vector that is not finite in {dtype}; {cure}"
        )

    def rows(self, shard: int) -> int:
        """Tokens of the shard's texts."""
        start, stop = self._plan.shard_range(shard)
        return int(self._plan.rows[start:stop].sum())
