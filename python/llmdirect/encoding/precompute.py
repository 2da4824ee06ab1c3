"""Encodes each distinct passage of a dataset once, in shards that survive a kill."""

from dataclasses import replace
from pathlib import Path

from llmdirect.common.errors import MissingError
from llmdirect.common.files import check_disk, disk_full_hint
from llmdirect.common.locks import shared_writer, single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.dataset import Dataset
from llmdirect.encoding.job import Options, open_job
from llmdirect.encoding.process_group import ProcessGroup
from llmdirect.encoding.results import PrecomputeResult
from llmdirect.encoding.shard_encoder import ShardEncoder, open_run
from llmdirect.store.token_format import TokenFormat

DEFAULT_MODEL = "google/t5gemma-2b-2b-ul2"
SHARD_TOKENS = 1 << 16  # 300 MB at dim 2304 in two bytes: what a kill can cost


def precompute(
    dataset_path: Path | str,
    *,
    model: str = DEFAULT_MODEL,
    dtype: str = TokenFormat.dtype,
    project: int | None = None,
    tokens: str = "all",
    device: str = "auto",
    token_budget: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    max_length: int | None = None,
    revision: str | None = None,
    name: str | None = None,
    estimate_only: bool = False,
    engine: str = "here",
    workers: int | None = None,
    progress: Progress = SILENT,
) -> PrecomputeResult:
    """Writes the token embeddings of a dataset's passages to DATASET/stores/NAME/shards.

    Each distinct text is encoded once; a text beyond the model's limit in overlapping windows, each token
    once; a text without tokens gets no rows. Batches are fixed beforehand in plan.json: a run that was
    killed goes on where it stopped and ends with the same bytes. A consolidated store grows: only the texts
    that it lacks are encoded, as its others were, and `consolidate` joins them.

    `dtype` is the type on disk: int8, bfloat16, float16 or float32; `project` keeps so many principal
    components, `tokens` "content" drops special tokens, punctuation and stop words once they are encoded.
    Components and the scales of int8 are fitted once, before the first shard, on a sample of train passages
    alone, and lie in calibration.safetensors; a store that grows keeps them.

    `token_budget` is the tokens of a batch (default 2048 on the CPU; elsewhere 32768, halved until the
    longest texts fit), `shard_tokens` the tokens of a shard, `max_length` a lower limit than the model's own.
    `name` defaults to the model's name with the form; a path names a store elsewhere. `estimate_only` counts
    the tokens, encodes some texts to see how fast that is, and writes nothing.

    Returns counts, bytes and the folder. Raises MissingError (model, device), MismatchError (the folder holds
    a store of another model or other settings), DataError (no passages, a vector that is not finite),
    OSError (too little disk or device memory), BusyError (another process writes there).

    Started by torchrun, the processes share the shards; each takes a GPU of its own. `engine` "ray" hands the
    shards to `workers` actors of a Ray cluster instead (default: one a GPU, or one): see ray_engine.
    """
    if engine not in ("here", "ray"):
        raise ValueError(f"engine={engine!r}; one of here, ray")
    if workers is not None and (workers < 1 or engine != "ray"):
        raise ValueError(f"workers={workers}; at least 1, and with engine ray alone")
    options = Options(
        dataset=Path(dataset_path),
        model=model,
        token_format=TokenFormat(dtype, project, tokens),
        device=device,
        token_budget=token_budget,
        shard_tokens=shard_tokens,
        max_length=max_length,
        revision=revision,
        name=name,
    )
    team = ProcessGroup.from_environment()
    options = replace(options, device=team.device(device))
    dataset = Dataset.open(dataset_path)
    if estimate_only:
        job = open_job(options, dataset, frozen=False, progress=progress)
        if isinstance(job, PrecomputeResult):
            return job
        run, shards = ShardEncoder(job), list(range(job.plan.num_shards))
        seconds = run.estimate(shards, workers or team.size)
        return replace(run.summary(shards), estimated_seconds=seconds)
    if engine == "ray":
        if team.size > 1:
            raise ValueError("engine='ray' starts its own workers; run it without torchrun")
        return _ray_engine(options, workers, progress)
    with team.gathered():
        if not team.first:
            team.meet()  # the first has frozen the plan
        with (
            (single_writer if team.first else shared_writer)(options.store) as share,
            disk_full_hint(options.store, "make room and run again: shards that are complete stay"),
        ):
            encoder, pending, result = open_run(options, dataset, progress)
            if share and team.size > 1:
                share()
                team.meet()
            team.meet()  # all know what is pending before the first shard is made
            if encoder and result.plan:
                check_disk(options.store, result.plan.bytes_to_write, "the shards need")
                if team.first:
                    result = replace(result, estimated_seconds=encoder.estimate(pending, team.size))
                result = replace(result, throughput=encoder.encode(team.share(pending), progress))
            team.meet()
            return replace(result, encoded_shards=len(pending))


def _ray_engine(options: Options, workers: int | None, progress: Progress) -> PrecomputeResult:
    try:
        from llmdirect.encoding import ray_backend as ray_engine
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingError("ray is not installed: `pip install llmdirect[ray]`") from None
    return ray_engine.encode(options, workers, progress)
