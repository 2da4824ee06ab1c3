"""`llmdirect explore`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, print_text
from llmdirect.cli.options import RunArgument


def explore(
    run: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: all interfaces.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: a free one.", min=0, max=65535)] = 8000,
    dataset: Annotated[Path | None, typer.Option(help="Location of the run's dataset, if moved.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Location of the run's encoder, for pasted texts.")
    ] = None,
    device: Annotated[str, typer.Option(help="For pasted texts: auto, cpu, cuda.")] = "auto",
) -> None:
    """Serve a run as local web pages: lists, explanations, changed interests, new users.

    Examples:

      llmdirect explore run

      llmdirect explore run --port 8080 --encoder ./encoder
    """
    from llmdirect.explore.server import serve

    def print_address(address: str) -> None:
        print_text(f"{address}  (Ctrl-C ends it)")

    serve(
        run,
        host=host,
        port=port,
        dataset=dataset,
        encoder=encoder,
        device=device,
        ready=print_address,
        progress=Bars(),
    )
