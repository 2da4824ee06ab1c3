"""`llmdirect explore`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, print_text
from llmdirect.cli.options import RunArgument


def explore(
    run: RunArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 chooses a free one.", min=0, max=65535)
    ] = 8000,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder of the run's dataset, if it was moved.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder for texts of new users, if it was moved: a local folder or an id of the Hub."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Device of the encoder for texts of new users: auto, cpu or cuda.")
    ] = "auto",
) -> None:
    """Serve a run as local web pages: recommendations, explanations, sliders for interests, new users.

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
