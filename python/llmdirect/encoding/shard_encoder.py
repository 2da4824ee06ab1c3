"""Encoder of the shards of a job: tokenisation, encoding and writing overlap."""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from llmdirect.common.errors import DataError
from llmdirect.common.progress import Progress
from llmdirect.encoding.encoders import Tokens
from llmdirect.encoding.encoders.flops import peak_rate
from llmdirect.encoding.job import Job
from llmdirect.encoding.results import Throughput
from llmdirect.encoding.throughput import ThroughputMeter
from llmdirect.store.batch_plan import record_budget
from llmdirect.store.calibration import first_not_finite
from llmdirect.store.shards import shard_folder, write_shard

_WRITE_QUEUE = 2  # encoded shards that wait for the disk: bounds the memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _TokenizedShard:
    """Tokenised texts of a shard."""

    tokens: list[Tokens]
    kept: list[NDArray[np.bool_]]
    """bool [T] of each text: tokens that are stored."""


@dataclass(frozen=True, eq=False)
class _EncodedShard:
    """Content of a shard."""

    arrays: dict[str, torch.Tensor]
    """`tokens` [rows, dim], and with int8 `scales` [rows]."""
    num_tokens: NDArray[np.int64]
    """int64 [texts] stored tokens of each text."""
    spans: NDArray[np.uint32]
    """uint32 [rows, 2] characters of each token."""


class ShardEncoder:
    """Encoder of the shards of a job."""

    def __init__(self, job: Job) -> None:
        device = job.encoder.device
        self._job = job
        self._calibration = job.calibration.to(device)
        self._on_cuda = device.type == "cuda"
        self._copy_stream: torch.cuda.Stream | None = None
        if self._on_cuda:
            self._copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch: no types

    def encode(self, shards: list[int], progress: Progress) -> Throughput | None:
        """Encode and write shards.

        One thread tokenises the next shard, another writes the previous ones, so that the device waits for
        neither. Their errors are raised here.

        Returns
        -------
        Throughput or None
            None where there are no shards.

        Raises
        ------
        DataError
            If a vector is not finite.
        OSError
            If the disk is full, or a single sequence does not fit the memory of the device.
        """
        if not shards:
            return None
        job = self._job
        total = sum(map(job.plan.shard_tokens, shards))
        peak, peak_from = peak_rate(job.encoder.device, job.encoder.dtype)
        writes: deque[Future[None]] = deque()
        with (
            progress.task(f"encode with {job.encoder_entry['id']}", total, "tokens") as task,
            ThreadPoolExecutor(1, thread_name_prefix="tokeniser") as tokeniser,
            ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as writer,
        ):
            meter = ThroughputMeter(task, peak, peak_from)
            next_shard = tokeniser.submit(self._tokenize, shards[0])
            try:
                for shard, following in zip(shards, [*shards[1:], None], strict=True):
                    tokenized = next_shard.result()
                    if following is not None:
                        next_shard = tokeniser.submit(self._tokenize, following)
                    encoded = self._encode(shard, tokenized, meter)
                    # The writer waits for the device, so that this thread can start the next shard.
                    copied = self._copy_stream.record_event() if self._copy_stream is not None else None
                    while len(writes) >= _WRITE_QUEUE:
                        writes.popleft().result()
                    writes.append(writer.submit(self._write, shard, encoded, copied, meter))
                while writes:
                    writes.popleft().result()
            except BaseException:
                for executor in (tokeniser, writer):
                    executor.shutdown(wait=False, cancel_futures=True)
                raise
            return meter.summary()

    def _tokenize(self, shard: int) -> _TokenizedShard:
        job = self._job
        texts = job.texts.select(job.plan.text_idx[slice(*job.plan.shard_range(shard))])
        tokens = job.encoder.tokenize(texts)
        return _TokenizedShard(tokens, job.token_format.kept(texts, [text.spans for text in tokens]))

    def _encode(self, shard: int, tokenized: _TokenizedShard, meter: ThroughputMeter) -> _EncodedShard:
        job = self._job
        start, _ = job.plan.shard_range(shard)
        num_tokens = np.array([kept.sum() for kept in tokenized.kept], np.int64)
        spans = [text.spans[kept] for text, kept in zip(tokenized.tokens, tokenized.kept, strict=True)]
        arrays = self._buffers(int(num_tokens.sum()))
        row = 0
        for batch, low, high in job.plan.batches(shard):
            tokens = tokenized.tokens[low - start : high - start]
            vectors = self._embed(batch, tokens)
            meter.add_batch(len(tokens), len(vectors), job.encoder.operations([len(text) for text in tokens]))
            kept = np.concatenate(tokenized.kept[low - start : high - start])
            if not kept.all():  # rows computed on the CPU: a mask would make the device wait for its count
                rows = torch.from_numpy(np.flatnonzero(kept))
                vectors = vectors.index_select(0, rows.to(vectors.device))
            stored = self._calibration.quantize(vectors, job.token_format.dtype)
            with self._copying(stored):
                for name, values in stored.items():
                    arrays[name][row : row + len(vectors)].copy_(values, non_blocking=self._on_cuda)
            row += len(vectors)
        return _EncodedShard(arrays, num_tokens, np.concatenate(spans))

    def _embed(self, batch: int, tokens: list[Tokens]) -> torch.Tensor:
        """Vectors of a batch; one that does not fit the device is split, and the plan records how."""
        encoder, plan = self._job.encoder, self._job.plan
        longest = min(max(map(len, tokens)), encoder.max_length)
        cost = sum(encoder.cost(len(text), longest) for text in tokens)
        budget = plan.budgets.get(batch, min(cost, plan.token_budget))
        vectors, fitted = encoder.embed_in_parts(tokens, token_budget=budget)
        if fitted != budget:
            logger.warning("batch %s does not fit the device: split into %s tokens at once", batch, fitted)
            record_budget(self._job.store, plan, batch, fitted)
        return vectors

    def _buffers(self, rows: int) -> dict[str, torch.Tensor]:
        """Uninitialised arrays of a shard of so many tokens."""
        dtype: torch.dtype = getattr(torch, self._job.token_format.dtype)
        buffers = {"tokens": torch.empty(rows, self._job.dim, dtype=dtype, pin_memory=self._on_cuda)}
        if self._calibration.channels is not None:
            buffers["scales"] = torch.empty(rows, dtype=torch.float16, pin_memory=self._on_cuda)
        return buffers

    @contextmanager
    def _copying(self, values: dict[str, torch.Tensor]) -> Iterator[None]:
        """Stream of copies from the device, which overlap with the arithmetic of the next batch."""
        if self._copy_stream is None:
            yield
            return
        self._copy_stream.wait_stream(torch.cuda.current_stream(self._job.encoder.device))
        with torch.cuda.stream(self._copy_stream):
            yield
        for tensor in values.values():
            tensor.record_stream(self._copy_stream)  # its memory is not reused before it is copied

    def _write(
        self, shard: int, encoded: _EncodedShard, copied: torch.cuda.Event | None, meter: ThroughputMeter
    ) -> None:
        if copied is not None:
            copied.synchronize()
        job = self._job
        text_idx = job.plan.text_idx[slice(*job.plan.shard_range(shard))]
        offsets = np.concatenate([[0], np.cumsum(encoded.num_tokens)])
        if (row := first_not_finite(encoded.arrays)) is not None:
            raise self._not_finite(int(text_idx[int(np.searchsorted(offsets, row, side="right")) - 1]))
        write_shard(
            shard_folder(job.store, shard),
            **self._calibration.arrays(encoded.arrays),
            offsets=offsets,
            spans=encoded.spans,
            keys=job.texts.keys[text_idx],
            dtype=job.token_format.dtype,
            token_format=job.token_format.to_json(job.plan.calibration),
            encoder=job.encoder_entry,
            source=job.source_entry,
        )
        meter.add_bytes(sum(array.nbytes for array in encoded.arrays.values()))

    def _not_finite(self, text: int) -> DataError:
        texts, dtype = self._job.texts, self._job.token_format.dtype
        cure = "store `dtype='bfloat16'` or float32" if dtype == "float16" else "try another `device`"
        return DataError(
            f"{self._job.store}: passage {texts.passage_idx[text]} ({texts.texts[text][:40]!r} …) has a "
            f"vector that is not finite in {dtype}; {cure}"
        )
