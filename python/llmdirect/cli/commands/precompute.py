"""`llmdirect precompute`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text
from llmdirect.common.progress import SILENT

if TYPE_CHECKING:
    from llmdirect.encoding.accuracy_check import AccuracyCheck
    from llmdirect.encoding.results import PrecomputeResult

HELP = """Encode each text of a dataset once, and write its token embeddings; resumes an interrupted run.

\b
Examples:
  llmdirect precompute DATASET                      # T5-Gemma 2B, the encoder of google/t5gemma-2b-2b-ul2
  llmdirect precompute DATASET --encoder minilm     # a small encoder that runs on a CPU
  llmdirect precompute DATASET --encoder lexical    # word vectors of the dataset itself, in seconds
  llmdirect precompute DATASET --estimate           # tokens, disk and time, without encoding
  llmdirect precompute DATASET --dtype int8 --check # errors of rounding and projection, on a sample
  llmdirect precompute DATASET --dtype int8 --project 256    # 256 dimensions: a ninth of the disk space
  llmdirect precompute DATASET --embeddings items.parquet    # vectors of your own, no encoder
  torchrun --nproc-per-node 4 -m llmdirect precompute DATASET    # four GPUs share the shards
  llmdirect precompute DATASET --engine ray         # workers of a Ray cluster, which may join and leave
"""


def precompute(
    dataset: Annotated[Path, typer.Argument(help="Folder written by `prepare`.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help=(
                "Language model: an id of the Hugging Face Hub, a local folder, or minilm. Or lexical: word "
                "vectors fitted on the train texts, without a language model."
            ),
            show_default="google/t5gemma-2b-2b-ul2",
        ),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Dimensions of the word vectors of lexical. (default: 384)")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Data type of the embeddings on disk: int8, bfloat16, float16 or float32.")
    ] = "int8",
    project: Annotated[
        int | None,
        typer.Option(help="Reduce embeddings to this number of dimensions by PCA. (default: no reduction)"),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Tokens to keep: all, or content (no special tokens, punctuation or stop words).",
            show_default="all",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device of the encoder: auto, cpu, cuda, cuda:1 or mps.", show_default="auto"),
    ] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            help=(
                "Maximum number of tokens in a batch. (default: 2048 on a CPU; on a GPU 32768, "
                "less if memory is short)"
            )
        ),
    ] = None,
    shard_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens in a shard. After an interruption, at most the unfinished shard is encoded again.",
            show_default=str(1 << 16),
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            help=(
                "Maximum tokens in one forward pass; longer texts are read in overlapping "
                "windows. (default: the encoder's limit)"
            )
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the encoder on the Hub.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help=(
                "Name of the store in DATASET/stores, or a path. (default: named after the "
                "encoder and data type)"
            )
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Vectors of your own instead of an encoder, of items or passages: .npy, Parquet or Feather.",
        ),
    ] = None,
    embedding_ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Item ids of the vectors of a .npy file, one a line."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="here: this machine. ray: workers of a Ray cluster (needs the extra `ray` of the package).",
            show_default="here",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of Ray workers. (default: one per GPU; without a GPU, one)")
    ] = None,
    estimate_only: Annotated[
        bool,
        typer.Option(
            "--estimate",
            help="Print the number of tokens, the disk space and the time needed, without encoding.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Measure the errors of --dtype and --project on a sample, without writing a store.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    shared: dict[str, Any] = dict(
        encoder=encoder, dtype=dtype, project=project, device=device, max_length=max_length, revision=revision
    )
    settings: dict[str, Any] = dict(
        dimensions=dimensions,
        tokens=tokens,
        token_budget=token_budget,
        shard_tokens=shard_tokens,
        store=store,
        engine=engine,
        workers=workers,
        estimate_only=estimate_only or None,
        embeddings=embeddings,
        embedding_ids=embedding_ids,
    )
    if check:
        from llmdirect.common.conditions import check_conditions

        check_conditions("precompute", {**settings, "encoder": encoder, "check": check})
        _check(as_json, dataset, **_without_none(shared))
        return
    from llmdirect.encoding.precompute import precompute as run
    from llmdirect.encoding.process_group import ProcessGroup

    is_main = ProcessGroup.from_environment().is_main
    result = run(
        dataset,
        **_without_none({**shared, **settings}),
        progress=Bars() if is_main else SILENT,
    )
    if not is_main:
        return
    if as_json:
        emit(result.to_json())
    else:
        print_text(_summary(result, dataset, estimate_only))


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that are given."""
    return {name: value for name, value in settings.items() if value is not None}


def _check(as_json: bool, dataset: Path, **settings: Any) -> None:
    """`precompute --check`."""
    from llmdirect.encoding.accuracy_check import check

    result = check(dataset, **settings, progress=Bars())
    if as_json:
        emit(result.to_json())
    else:
        print_text(_errors(result))


def _errors(check: "AccuracyCheck") -> str:
    lines = [f"{check.model} on {check.device}, {check.tokens:,} tokens of {check.passages} passages:"]
    for stage in check.stages:
        error = f"relative error {stage.relative:.2e}, worst cosine {stage.worst_cosine:.5f}"
        lines.append(f"  {stage.name:<20} {error}")
    outliers = check.outlier_channels
    largest = f"the largest, {outliers.channel}, is {outliers.largest:.1f} times the median"
    lines.append(f"  outlier channels     {outliers.count}; {largest}")
    if check.soft_cap is not None:
        lines.append(f"  soft-cap             without it, vectors would differ by {check.soft_cap:.2e}")
    return "\n".join(lines)


def _summary(result: "PrecomputeResult", dataset: Path, estimate: bool) -> str:
    plan = result.plan
    if plan is None and not result.tokens:
        return f"{dataset}: no text, so nothing to encode; next: llmdirect train {dataset}"
    if plan is None:
        return f"{result.store}: complete and consolidated, nothing to do"
    size = f"{result.texts:,} texts, {result.tokens:,} tokens, {plan.bytes / 1e9:.2f} GB"
    if estimate:
        from llmdirect.encoding.throughput import format_duration

        free = f"{plan.bytes_free / 1e9:.2f} GB are free"
        if plan.bytes_free < plan.bytes_to_write:
            free += ", too little"
        needed = format_duration(result.estimated_seconds or 0.0)
        return f"{result.store} would hold {size} in {plan.shards} shards, in about {needed}; {free}"
    if result.vectors:
        size = size.replace(" texts", f" {result.vectors}s").replace(" tokens", " vectors")
    if plan.calibration and "explained" in plan.calibration:
        size += f", {plan.dim} components with {plan.calibration['explained']:.1%} of the variance"
    encoded = f"{result.encoded_shards} of {plan.shards} shards made now"
    return f"{result.store}: {size}; {encoded}; next: llmdirect consolidate {dataset}"
