"""`llmdirect download`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text


def download(
    category: Annotated[
        str, typer.Argument(metavar="CATEGORY", help="Amazon category, such as Musical_Instruments.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder to write the file to.")
    ] = Path(),
    year: Annotated[int, typer.Option(help="Year of the Amazon review collection: 2014 or 2018.")] = 2014,
    as_json: JsonFlag = False,
) -> None:
    """Download the public 5-core reviews of an Amazon category; resumes an interrupted download.

    Example:

      llmdirect download Magazine_Subscriptions --year 2018 --out raw
    """
    from llmdirect.data.download import download as work

    result = work(category, out, year=year, progress=Bars())
    if as_json:
        emit(result.to_json())
    else:
        word = "already there" if result.status == "present" else "fetched and verified"
        print_text(f"{result.path}: {word}, {result.bytes:,} bytes")
