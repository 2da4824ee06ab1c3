"""Token embeddings of the passages of a dataset, in shards that survive a kill."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from llmdirect.common.conditions import check_conditions
from llmdirect.common.errors import MissingError
from llmdirect.common.files import check_disk
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.ranges import check_range
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.lexical import encode_lexical
from llmdirect.encoding.options import DEFAULT_ENCODER, SIZES, Options, named_folder
from llmdirect.encoding.process_group import ProcessGroup
from llmdirect.encoding.results import PrecomputeResult
from llmdirect.store.lexical import LEXICAL
from llmdirect.store.no_text import NO_TEXT, write_empty_store
from llmdirect.store.shards import shard_writer
from llmdirect.store.token_format import TokenFormat

if TYPE_CHECKING:
    from llmdirect.encoding.encoders.registered import RegisteredEncoder

SHARD_TOKENS = 1 << 16  # 300 MB at dim 2304 in two bytes: what a kill can cost
_ENGINES = ("here", "ray")


def precompute(
    dataset_path: Path | str,
    *,
    encoder: str | None = None,
    dimensions: int | None = None,
    dtype: str = TokenFormat.dtype,
    project: int | None = None,
    tokens: str | None = None,
    device: str | None = None,
    token_budget: int | None = None,
    shard_tokens: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    store: str | None = None,
    estimate_only: bool = False,
    engine: str | None = None,
    workers: int | None = None,
    embeddings: Any = None,
    embedding_ids: Path | str | Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> PrecomputeResult:
    """Write the token embeddings of the passages of a dataset to DATASET/stores/STORE/shards.

    Each distinct text is encoded once. A text longer than the encoder reads at once is encoded in overlapping
    windows, each token once; a text without tokens gets no rows. The batches are fixed in plan.json before
    the first shard, so a resumed run ends with the same bytes. A consolidated store grows: only texts that it
    lacks are encoded, with its own calibration, and `consolidate` joins them.

    Processes started by torchrun share the shards, each on a GPU of its own.

    Parameters
    ----------
    dataset_path
        Folder written by `prepare`.
    encoder
        Language model: name on the Hub, folder of a checkpoint, "minilm", or a name of `register_encoder`; by
        default "google/t5gemma-2b-2b-ul2". Or "lexical": static word vectors, fitted on the train texts
        (`encode_lexical`), without a language model.
    dimensions
        Dimensions of the vectors of "lexical"; 384 by default.
    dtype
        Type on disk: "int8", "bfloat16", "float16" or "float32".
    project
        Number of principal components to keep; all dimensions by default. Components and the scales of int8
        are fitted once, on a sample of train passages, and written to calibration.safetensors.
    tokens
        "all" (default), or "content": without special tokens, punctuation and stop words.
    device
        "auto" (default), "cpu", "cuda", "cuda:1" or "mps".
    token_budget
        Tokens per batch. By default 2048 on the CPU; elsewhere 32768, halved until the longest texts fit.
    shard_tokens
        Tokens per shard, by default 65536.
    max_length
        Tokens read at once, at most the limit of the encoder.
    revision
        Branch, tag or commit on the Hub.
    store
        Name of the store, by default that of the encoder and the format; or the path of a store elsewhere.
    estimate_only
        Count the tokens and time one batch; write nothing.
    engine
        "here" (default), or "ray": actors of a Ray cluster encode the shards (see `ray_backend`).
    workers
        Number of actors of `engine="ray"`; by default one per GPU, or one.
    embeddings
        Vectors of one's own instead of an encoder: a .npy, Parquet or Feather file, an array, or a table. By
        item, where there are item ids alone or as many vectors as items; by passage, where there are user
        and item ids or as many vectors as passages (docs/data.md).
    embedding_ids
        Item ids of the rows of an array: a list, or a file with one a line.
    progress
        Where progress is shown.

    Returns
    -------
    PrecomputeResult

    Raises
    ------
    MissingError
        If the encoder or the device is missing.
    MismatchError
        If the folder holds a store of another encoder or other settings.
    DataError
        If there are no passages, a file is damaged, or a vector is not finite.
    BusyError
        If another process writes to the store.
    OSError
        If the disk or the memory of the device is too small.
    ValueError
        If a setting is out of range.

    Examples
    --------
    >>> precompute("instruments", encoder="minilm").tokens  # doctest: +SKIP
    182736
    """
    if engine is not None and engine not in _ENGINES:
        raise ValueError(f"`engine`: {engine!r}, expected one of {', '.join(_ENGINES)}")
    is_lexical = encoder == LEXICAL and embeddings is None
    registered = None if encoder is None or is_lexical or embeddings is not None else _registered(encoder)
    settings = {
        "encoder": encoder,
        "dimensions": dimensions,
        "project": project,
        "tokens": tokens,
        "device": device,
        "token_budget": token_budget,
        "shard_tokens": shard_tokens,
        "max_length": max_length,
        "revision": revision,
        "estimate_only": estimate_only or None,
        "engine": engine,
        "workers": workers,
        "embeddings": embeddings,
        "embedding_ids": embedding_ids,
        "registered_encoder": registered,
        "lexical_encoder": is_lexical or None,
    }
    defaults = {"engine": engine or "here", "encoder": encoder or DEFAULT_ENCODER}
    check_conditions("precompute", settings, settings | defaults)
    if workers is not None:
        check_range("workers", workers, SIZES)
    if estimate_only and engine == "ray" and workers is None:
        raise ValueError(
            '`estimate_only`: the time depends on the number of workers; with `engine="ray"` give '
            "`workers` too"
        )
    group = ProcessGroup.from_environment()
    if group.size > 1 and (embeddings is not None or registered is not None or is_lexical):
        raise ValueError(
            f"{group.size} processes, but vectors without a language model are written by one; run it "
            "without torchrun"
        )
    token_format = TokenFormat(dtype, project, tokens or TokenFormat.tokens)
    if is_lexical:
        dataset = Dataset.open(dataset_path)
        if not dataset.has_text:
            return _empty(dataset, store, estimate_only, group)
        return encode_lexical(
            dataset, dimensions=dimensions, token_format=token_format, store=store, progress=progress
        )
    # These modules import torch, which takes seconds.
    from llmdirect.encoding.own_vectors import store_own_vectors
    from llmdirect.encoding.registered_job import encode_registered

    shard_tokens = SHARD_TOKENS if shard_tokens is None else shard_tokens
    if embeddings is not None:
        check_range("shard_tokens", shard_tokens, SIZES)
        return store_own_vectors(
            Dataset.open(dataset_path),
            embeddings,
            ids=embedding_ids,
            token_format=token_format,
            shard_tokens=shard_tokens,
            store=store,
            progress=progress,
        )
    if registered is not None:
        dataset = Dataset.open(dataset_path)
        if not dataset.has_text:
            return _empty(dataset, store, estimate_only, group)
        return encode_registered(
            dataset, registered, token_format=token_format, store=store, progress=progress
        )
    options = Options(
        dataset=Path(dataset_path),
        encoder=encoder or DEFAULT_ENCODER,
        token_format=token_format,
        device=group.device(device or "auto"),
        token_budget=token_budget,
        shard_tokens=shard_tokens,
        max_length=max_length,
        revision=revision,
        store=store,
    )
    dataset = Dataset.open(dataset_path)
    if not dataset.has_text:
        return _empty(dataset, store, estimate_only, group)
    if estimate_only:
        return _estimate(options, dataset, workers or group.size, progress)
    return _run(options, dataset, group, engine or "here", workers, progress)


def _run(
    options: Options,
    dataset: Dataset,
    group: ProcessGroup,
    engine: str,
    workers: int | None,
    progress: Progress,
) -> PrecomputeResult:
    """Hold the lock of the store and encode, here or by Ray."""
    backend = None
    if engine == "ray":
        backend = _ray_backend(group)
        options = backend.cluster_options(options)
    with group.join():
        if not group.is_main:
            group.barrier()  # until the main process has written the plan
        with shard_writer(options.folder, shared=not group.is_main) as share:
            if backend is not None:
                result: PrecomputeResult = backend.encode(options, workers, share, progress)
                return result
            return _encode(options, dataset, group, share, progress)


def _registered(encoder: str) -> "RegisteredEncoder | None":
    """`registered_encoder`, whose module imports torch."""
    from llmdirect.encoding.encoders.registered import registered_encoder

    return registered_encoder(encoder)


def _empty(dataset: Dataset, store: str | None, estimate_only: bool, group: ProcessGroup) -> PrecomputeResult:
    """Result for a dataset without text: an empty store, for which no encoder is loaded."""
    folder = named_folder(dataset.path, store or NO_TEXT)
    if group.is_main and not estimate_only:
        write_empty_store(dataset, folder)
    texts = dataset.passages.text.n_unique()
    return PrecomputeResult(folder, texts, 0, 0, 0, consolidated=not estimate_only)


def _estimate(options: Options, dataset: Dataset, processes: int, progress: Progress) -> PrecomputeResult:
    from llmdirect.encoding.estimate import estimate_seconds
    from llmdirect.encoding.job import open_job

    job = open_job(options, dataset, write=False, progress=progress)
    if isinstance(job, PrecomputeResult):
        return job
    shards = list(range(job.plan.num_shards))
    seconds = estimate_seconds(job, shards, processes)
    return replace(job.summary(shards), estimated_seconds=seconds)


def _encode(
    options: Options,
    dataset: Dataset,
    group: ProcessGroup,
    share: Callable[[], None] | None,
    progress: Progress,
) -> PrecomputeResult:
    """Encode the part of this process; `share` lets the other processes write to the store."""
    from llmdirect.encoding.estimate import estimate_seconds
    from llmdirect.encoding.job import plan_job
    from llmdirect.encoding.shard_encoder import ShardEncoder

    job, pending, result = plan_job(options, dataset, progress)
    if share is not None and group.size > 1:
        share()
        group.barrier()
    group.barrier()  # every process has listed the pending shards before the first one is written
    if job is not None and result.plan is not None:
        check_disk(options.folder, result.plan.bytes_to_write, "the shards need")
        if group.is_main:
            result = replace(result, estimated_seconds=estimate_seconds(job, pending, group.size))
        throughput = ShardEncoder(job).encode(group.partition(pending), progress)
        result = replace(result, throughput=throughput)
    group.barrier()
    return replace(result, encoded_shards=len(pending))


def _ray_backend(group: ProcessGroup) -> ModuleType:
    """Module that needs Ray, an optional dependency."""
    if group.size > 1:
        raise ValueError("`engine='ray'` starts its own workers; run it without torchrun")
    try:
        from llmdirect.encoding import ray_backend
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingError("ray is not installed: `pip install llmdirect[ray]`") from None
    return ray_backend
