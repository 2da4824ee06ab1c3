"""`llmdirect report`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, stdout
from llmdirect.cli.options import RunArgument


def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path("report.html"),
    scoreboard: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `scoreboard --json` printed.")
    ] = None,
    faithfulness: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `faithfulness --json` printed.")
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Where the run's dataset lies now, if moved.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a run as one HTML file: data, training, scoreboard, aspects, explained recommendations.

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
        stdout.print(f"report: {result['report']}", highlight=False, markup=False, soft_wrap=True)
