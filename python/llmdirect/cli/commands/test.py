"""`llmdirect test`."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import DatafileOption, DatasetOrFile, dataset_or_datafile


def evaluate(
    dataset: DatasetOrFile = None,
    parameters: Annotated[
        Path, typer.Option("--parameters", metavar="RUN", help="Folder written by `train`.")
    ] = Path("run"),
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…", help="Metrics, such as ndcg@10,recall@20,auc; defined in docs/metrics.md."
        ),
    ] = None,
    split: Annotated[
        Literal["valid", "test"], typer.Option(help="Split whose held-out items are to be found.")
    ] = "test",
    lists_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet", help="Write the ranked lists to this file, and to FILE.trec next to it."
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(help="Number of items for each user in the lists.", min=1, show_default="100"),
    ] = None,
    liked: Annotated[
        float | None,
        typer.Option(
            help="Ratings from this one on count as liked, in auc, accuracy and f1 of predicted ratings. "
            "(default: that of the training)"
        ),
    ] = None,
    datafile: DatafileOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Rank all items for every user with held-out items, and compute metrics.

    Examples:

      llmdirect test instruments --parameters run

      llmdirect test instruments --parameters run --metrics ndcg@10,auc --lists-out lists.parquet
    """
    from llmdirect.runs.evaluate import evaluate as work

    result = work(
        dataset_or_datafile(dataset, datafile),
        parameters,
        metrics=[name.strip() for name in metrics.split(",")] if metrics else None,
        split=split,
        lists_out=lists_out,
        depth=depth,
        liked=liked,
        progress=Bars(),
    )
    if as_json:
        emit(result.to_json())
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", style="bold")
    table.add_column(split, justify="right")
    for name, value in result.metrics.items():
        table.add_row(name, "-" if value is None else f"{value:.4f}")
    stdout().print(table)
    ranked = "mse" not in result.metrics
    lines = [
        f"{result.num_users:,} users, {result.num_items:,} items, "
        f"{'full ranking; ' if ranked else ''}split {result.split}, seed {result.seed}"
        + (f"; positive: {result.positive}" if ranked else "")
    ]
    if result.aspects_off:
        off = ", ".join(map(str, result.aspects_off))
        lines.append(f"without the aspects that are switched off: {off} (llmdirect aspects {result.run})")
    if result.lists_out:
        lines.append(f"lists: {result.lists_out}")
    print_text("\n".join(lines))
