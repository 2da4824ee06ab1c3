"""`llmdirect precompute`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, stdout
from llmdirect.common.progress import SILENT

HELP = """Encode each passage of a dataset once, in shards that survive a kill.

\b
Examples:
  llmdirect precompute DATASET                      # T5-Gemma 2B, the encoder of google/t5gemma-2b-2b-ul2
  llmdirect precompute DATASET --model minilm       # a small encoder that runs on a CPU
  llmdirect precompute DATASET --estimate           # tokens, disk and time, without encoding
  llmdirect precompute DATASET --dtype int8 --check # what each stage costs in accuracy, on a sample
  llmdirect precompute DATASET --dtype int8 --project 256    # a twentieth of the disk
  torchrun --nproc-per-node 4 -m llmdirect precompute DATASET    # four GPUs share the shards
  llmdirect precompute DATASET --engine ray         # a Ray cluster, where workers may come and go
"""


def precompute(
    dataset: Annotated[Path, typer.Argument(help="Folder made by `prepare`.")],
    model: Annotated[
        str, typer.Option(help="Id of the Hub, a folder, or minilm.")
    ] = "google/t5gemma-2b-2b-ul2",
    dtype: Annotated[str, typer.Option(help="Type on disk: int8, bfloat16, float16 or float32.")] = "int8",
    project: Annotated[
        int | None, typer.Option(help="Keep so many principal components. (default: all dimensions)")
    ] = None,
    tokens: Annotated[
        str, typer.Option(help="all; content: without special tokens, punctuation and stop words.")
    ] = "all",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    token_budget: Annotated[
        int | None, typer.Option(help="Tokens a batch. (default: 2048 on the CPU, else 32768 or what fits)")
    ] = None,
    shard_tokens: Annotated[int, typer.Option(help="Tokens a shard: what a kill can cost.")] = 1 << 16,
    max_length: Annotated[
        int | None,
        typer.Option(help="Tokens read at once; longer texts take windows. (default: the model's)"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the model.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Name of the store in DATASET/stores. (default: model and type)")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="here; ray: actors of a Ray cluster (extra ray) take the shards.")
    ] = "here",
    workers: Annotated[
        int | None, typer.Option(help="Actors of --engine ray. (default: one a GPU, or one)")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Only tell tokens, bytes and time.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only measure the errors of a sample, against float32.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    if check:
        from llmdirect.encoding.accuracy_check import check as measure

        checked = measure(
            dataset,
            model=model,
            dtype=dtype,
            project=project,
            device=device,
            max_length=max_length,
            revision=revision,
            progress=Bars(),
        )
        if as_json:
            emit(checked)
        else:
            stdout.print(_checked(checked), highlight=False, markup=False)
        return
    from llmdirect.encoding.precompute import precompute as run
    from llmdirect.encoding.process_group import ProcessGroup

    first = ProcessGroup.from_environment().first
    result = run(
        dataset,
        model=model,
        dtype=dtype,
        project=project,
        tokens=tokens,
        device=device,
        token_budget=token_budget,
        shard_tokens=shard_tokens,
        max_length=max_length,
        revision=revision,
        name=store,
        estimate_only=estimate,
        engine=engine,
        workers=workers,
        progress=Bars() if first else SILENT,
    )
    if not first:
        return
    if as_json:
        emit(result)
    else:
        stdout.print(_told(result, dataset, estimate), highlight=False, markup=False)


def _checked(result: dict[str, Any]) -> str:
    tokens = f"{result['tokens']:,} tokens of {result['passages']} passages"
    lines = [f"{result['model']} on {result['device']}, {tokens}:"]
    for each in result["stages"]:
        error = f"relative error {each['relative']:.2e}, worst cosine {each['worst_cosine']:.5f}"
        lines.append(f"  {each['name']:<20} {error}")
    outliers = result["outlier_channels"]
    largest = f"the largest, {outliers['channel']}, is {outliers['largest']:.1f} times the median"
    lines.append(f"  outlier channels     {outliers['count']}; {largest}")
    if result["soft_cap"] is not None:
        lines.append(f"  soft-cap             without it, vectors would differ by {result['soft_cap']:.2e}")
    return "\n".join(lines)


def _told(result: dict[str, Any], dataset: Path, estimate: bool) -> str:
    if result["consolidated"]:
        return f"{result['store']}: complete and consolidated, nothing to do"
    size = f"{result['texts']:,} texts, {result['tokens']:,} tokens, {result['bytes'] / 1e9:.2f} GB"
    if estimate:
        from llmdirect.encoding.throughput import duration

        free = f"{result['bytes_free'] / 1e9:.2f} GB are free"
        if result["bytes_free"] < result["bytes_to_write"]:
            free += ", too little"
        needed = duration(result["estimated_seconds"])
        return f"{result['store']} would hold {size} in {result['shards']} shards, in about {needed}; {free}"
    fitted = result["calibration"] or {}
    if "explained" in fitted:
        size += f", {result['dim']} components with {fitted['explained']:.1%} of the variance"
    made = f"{result['encoded_shards']} of {result['shards']} shards made now"
    return f"{result['store']}: {size}; {made}; next: llmdirect consolidate {dataset}"
