"""`llmdirect cache-model`."""

from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text

HELP = """Download the encoder of a language model once, for later use by its id without a network.

\b
Examples:
  hf auth login                                     # once, for models whose licence you must accept
  llmdirect cache-model google/t5gemma-2b-2b-ul2
  llmdirect cache-model google/t5gemma-2b-2b-ul2 --out ./encoder
"""


def cache_model(
    model: Annotated[str, typer.Argument(help="Id of the Hugging Face Hub, or a folder with a checkpoint.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Folder to write. (default: the cache folder, where other commands find the "
                "encoder by its id)"
            )
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the model on the Hub.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Data type of the weights on disk: bfloat16, float16 or float32.")
    ] = "bfloat16",
    as_json: JsonFlag = False,
) -> None:
    from llmdirect.encoding.encoders import cache_model as run

    result = run(model, out, revision=revision, dtype=dtype, progress=Bars())
    if as_json:
        emit(result.to_json())
    else:
        state = "is already there" if result.already else "is kept"
        size = sum(result.files.values()) / 1e9
        print_text(f"{result.id} {state}: {result.path} ({size:.2f} GB)")
