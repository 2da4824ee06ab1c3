"""`llmdirect scoreboard`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import DatasetArgument

_WIDE = 100
"""Columns of a terminal that has room for all columns of the table."""


def scoreboard(
    dataset: DatasetArgument,
    splits: Annotated[
        int | None, typer.Option(help="Number of random splits, with the seeds 242, 243, …", show_default="3")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="How the data is split: direct (70/10/20), mmrec (8:1:1), alpharec (4:3:3, users with 20 "
            "interactions or more), leave-last-out, global-time or cold-items."
        ),
    ] = "direct",
    budget_minutes: Annotated[
        float | None, typer.Option(help="Minutes for tuning, shared among the models.", show_default="60")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Only these models (rows of the table).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the results. (default: DATASET/scoreboard)"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="Store of token embeddings, if the dataset has several."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Tune, fit and measure DIRECT and its baselines; resumes an interrupted run.

    Example:

      llmdirect scoreboard instruments --splits 3
      llmdirect scoreboard instruments --rows ease,ease-text,direct --budget-minutes 5
      llmdirect scoreboard instruments --protocol cold-items --rows embedding-knn,ease-words,direct
    """
    from llmdirect.benchmark.scoreboard import scoreboard as run_scoreboard

    result = run_scoreboard(
        dataset,
        out=out,
        rows=[name.strip() for name in rows.split(",")] if rows else None,
        splits=splits,
        protocol=protocol,
        budget_minutes=budget_minutes,
        store=store,
        progress=Bars(),
    )
    if as_json:
        emit(result)
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    """Print the table of a scoreboard, and the paths of the full one."""
    from llmdirect.benchmark.table import caption

    first, second = result["metrics"][:2]
    table = Table(box=None, pad_edge=False)
    table.add_column("model", style="bold", no_wrap=True)
    names = (first, second, "direct / row", "valid", "train\nleft out", "s")
    shown = len(names) if stdout().width >= _WIDE else 4
    for name in names[:shown]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in result["rows"]:
        if row["failed"]:
            table.add_row(row["model"], "failed")
            continue
        interval, ratio, left_out = row["metrics"][first], row["ratio_direct"], row["train_left_out"]
        cells = (
            f"{interval['mean']:.4f} ±{(interval['high'] - interval['low']) / 2:.4f}",
            f"{row['metrics'][second]['mean']:.4f}",
            f"{ratio['mean']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})" if ratio else "",
            f"{row['validation']:.4f}",
            f"{left_out:.4f}" if left_out is not None else "",
            f"{row['seconds']:.0f}",
        )
        table.add_row(row["model"], *cells[:shown])
    stdout().print(table)
    for row in result["rows"]:
        if row["failed"]:
            print_text(f"{row['model']} failed: {row['failed']}")
    print_text(caption(result, full=False))
    print_text(f"all figures: {result['markdown']}, {result['plot']}")
