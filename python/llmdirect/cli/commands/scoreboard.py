"""`llmdirect scoreboard`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text, stdout
from llmdirect.cli.options import DatasetArgument

_COLUMNS = 25
"""Columns of the terminal that a protocol takes beside the names of the rows."""
_NAMES = 26


def scoreboard(
    dataset: DatasetArgument,
    protocols: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="How the data is split: random (70/10/20), leave-last-out, global-time (five cuts), "
            "cold-items, new-users, mmrec (8:1:1), alpharec (4:3:3, users with 20 interactions or more), or "
            "own, the dataset's own split. (default: random, and with times leave-last-out and global-time)",
        ),
    ] = None,
    splits: Annotated[
        int | None, typer.Option(help="Number of random splits, with ascending seeds.", show_default="3")
    ] = None,
    budget_minutes: Annotated[
        float | None, typer.Option(help="Minutes for tuning each model.", show_default="10")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Only these models (rows of the table).")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--run",
            metavar="FILE",
            help="Ranked lists of a model of your own for the dataset's test split: TREC or Parquet. "
            "Repeatable.",
        ),
    ] = None,
    encoders: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Compare encoders instead of models: llmdirect on the embeddings of each. none reads no "
            "text, lexical needs no language model.",
        ),
    ] = None,
    users: Annotated[
        str,
        typer.Option(
            help="Users whose test interactions are measured: report (half of them, by hash), development "
            "(the other half, for decisions of your own) or all."
        ),
    ] = "report",
    query_time: Annotated[
        str | None,
        typer.Option(
            help="When a query of leave-last-out comes: last (at the user's last known event) or event (at "
            "the tested event itself).",
            show_default="last",
        ),
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
    """Tune and measure the default model beside others; resumes an interrupted run.

    Example:

      llmdirect scoreboard instruments
      llmdirect scoreboard instruments --rows ease,ease-words,llmdirect --budget-minutes 1
      llmdirect scoreboard instruments --protocols cold-items --rows tfidf-knn,ease-words,llmdirect
      llmdirect scoreboard instruments --run mine.trec
      llmdirect scoreboard instruments --encoders lexical,minilm
    """
    from llmdirect.common.conditions import check_conditions

    given = {"rows": rows, "budget_minutes": budget_minutes, "runs": runs or None, "query_time": query_time}
    check_conditions("scoreboard", given | {"store": store, "encoders": encoders})
    if encoders:
        from llmdirect.benchmark.encoders import compare_encoders

        comparison = compare_encoders(
            dataset,
            _names(encoders) or [],
            out=out,
            protocols=_names(protocols),
            splits=splits,
            users=users,  # type: ignore[arg-type]  # checked there
            progress=Bars(),
        )
        emit(comparison) if as_json else show_encoders(comparison)
        return
    from llmdirect.benchmark.scoreboard import scoreboard as run_scoreboard

    result = run_scoreboard(
        dataset,
        out=out,
        rows=_names(rows),
        protocols=_names(protocols),
        splits=splits,
        budget_minutes=budget_minutes,
        users=users,  # type: ignore[arg-type]  # checked there
        query_time=query_time or "last",  # type: ignore[arg-type]
        runs=runs or (),
        store=store,
        progress=Bars(),
    )
    if as_json:
        emit(result)
    else:
        show(result)


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def show_encoders(result: dict[str, Any]) -> None:
    """Print NDCG@10 by encoder and protocol, seconds and bytes of each, and a sentence for each."""
    table = Table(box=None, pad_edge=False)
    table.add_column("encoder", style="bold", no_wrap=True)
    for name in (*result["protocols"], "s", "MB"):
        table.add_column(name, justify="right")
    for row in result["encoders"]:
        cells = []
        for protocol in result["protocols"]:
            figures = row["protocols"][protocol]
            mean = figures.get("metrics")
            cells.append(f"{mean['mean']:.4f} ({mean['low']:.4f}-{mean['high']:.4f})" if mean else "-")
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f}"
        table.add_row(row["encoder"], *cells, seconds, f"{row['bytes'] / 1e6:.1f}")
    stdout().print(table)
    for row in result["encoders"]:
        for protocol, figures in row["protocols"].items():
            if figures["failed"]:
                print_text(f"{row['encoder']}, {protocol}: {figures['failed']}")
    for sentence in result["verdicts"]:
        print_text(sentence)
    print_text(
        f"NDCG@10 of llmdirect with 95 % intervals over users; ratios are to {result['mark']}, paired by "
        "user. s: seconds of encoding, where it was done here. MB: size of the store."
    )


def show(result: dict[str, Any]) -> None:
    """Print the table of a scoreboard, a sentence for each protocol, and the paths of the full one."""
    from llmdirect.benchmark.table import caption, summary_cells, verdicts

    protocols = list(result["protocols"])
    with_ratio = stdout().width >= _NAMES + 2 * _COLUMNS * len(protocols)
    table = Table(box=None, pad_edge=False)
    table.add_column("model", style="bold", no_wrap=True)
    for protocol in protocols:
        table.add_column(protocol, justify="right")
        if with_ratio:
            table.add_column("llmdirect / row", justify="right", no_wrap=True)
    for row in result["rows"]:
        cells = [summary_cells(row["protocols"][protocol]) for protocol in protocols]
        shown = [cell for value, ratio in cells for cell in ((value, ratio) if with_ratio else (value,))]
        style = "italic" if row["kind"] == "ablation" else None
        table.add_row(row["model"], *shown, style=style)
    stdout().print(table)
    for row in result["rows"]:
        for protocol in protocols:
            if failed := row["protocols"][protocol]["failed"]:
                print_text(f"{row['model']}, {protocol}: {failed}")
    for sentence in verdicts(result):
        print_text(sentence)
    print_text(caption(result))
    print_text(f"all figures: {result['markdown']}, {result['plot']}, {result['per_user']}")
