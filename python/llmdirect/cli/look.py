"""`explore` and `report`: a run to look at."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli import app
from llmdirect.cli.console import Bars, JsonFlag, emit, stdout
from llmdirect.cli.use import RunArgument


@app.command()
def explore(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    dataset: Annotated[Path | None, typer.Option(help="Where the run's dataset lies now, if moved.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Where the language model lies, for pasted texts.")
    ] = None,
    device: Annotated[str, typer.Option(help="For pasted texts: auto, cpu, cuda.")] = "auto",
) -> None:
    """Look at a run in the browser: lists, the words behind them, and what if interests were others.

    Examples:

      llmdirect explore run

      llmdirect explore run --port 8080 --model ./encoder
    """
    from llmdirect.explore.server import serve

    def say(address: str) -> None:
        stdout.print(f"{address}  (Ctrl-C ends it)", highlight=False, markup=False, soft_wrap=True)

    serve(run, host=host, port=port, dataset=dataset, model=model, device=device, ready=say, progress=Bars())


@app.command()
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
    from llmdirect.report import report as work

    result = work(
        run, out, dataset=dataset, scoreboard=scoreboard, faithfulness=faithfulness, progress=Bars()
    )
    if as_json:
        emit(result)
    else:
        stdout.print(f"report: {result['report']}", highlight=False, markup=False, soft_wrap=True)
