"""`llmdirect report`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text
from llmdirect.cli.options import RunArgument


def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="HTML file to write.")] = Path("report.html"),
    scoreboard: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Include this output of `scoreboard --json`.")
    ] = None,
    faithfulness: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Include this output of `faithfulness --json`.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of the run's dataset, if it was moved.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a report of a run as one HTML file: data, training, aspects, explained recommendations.

    Examples:

      llmdirect report run

      llmdirect report run --out report.html --scoreboard scoreboard.json
    """
    from llmdirect.reports.run_report import report as work

    result = work(
        run, out, dataset=dataset, scoreboard=scoreboard, faithfulness=faithfulness, progress=Bars()
    )
    if as_json:
        emit(result)
    else:
        print_text(f"report: {result['report']}")
