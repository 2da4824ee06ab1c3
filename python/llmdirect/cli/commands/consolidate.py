"""`llmdirect consolidate`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llmdirect.cli.console import Bars, JsonFlag, emit, print_text

EPILOG = "Example: llmdirect consolidate books/ · llmdirect consolidate embs/ --out merged --layout padded"


class LayoutChoice(StrEnum):
    """Layout of documents in the published format."""

    store = "store"
    padded = "padded"


class DtypeChoice(StrEnum):
    """Type to which the float32 values of the published format are rounded."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"


def consolidate(
    source: Annotated[
        Path, typer.Argument(help="Dataset folder after `precompute`, or a folder of numbered .npy files.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write. Required for numbered .npy files, and only for them."),
    ] = None,
    layout: Annotated[
        LayoutChoice | None,
        typer.Option(
            help="store: one store without padding. padded: arrays for np.load. For numbered .npy files only."
        ),
    ] = None,
    dtype: Annotated[
        DtypeChoice | None,
        typer.Option(help="Data type on disk. For numbered .npy files with --layout store only."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="Store to consolidate, if the dataset has several.")
    ] = None,
    keep_shards: Annotated[
        bool, typer.Option("--keep-shards", help="Keep the shards after they are joined.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Join the shards that `precompute` wrote into one store, or join folders of numbered .npy files.

    The store is replaced in one step when it is complete. If the command is interrupted, run it again.
    """
    from llmdirect.store.consolidation import PaddedArrays
    from llmdirect.store.consolidation import consolidate as join

    result = join(
        source,
        out=out,
        layout=layout.value if layout else None,
        dtype=dtype.value if dtype else None,
        store=store,
        keep_shards=keep_shards,
        progress=Bars(),
    )
    if as_json:
        emit(result.to_json())
    elif isinstance(result, PaddedArrays):
        for name, array in result.files.items():
            print_text(f"{result.path}/{name}: {array['shape']} of {array['dtype']}")
    else:
        state = "written" if result.changed else "up to date already, nothing to do"
        counts = f"{result.passages:,} passages, {result.rows:,} x {result.dim} {result.dtype}"
        if result.dropped:
            state += f", without {result.dropped:,} passages that are no longer in the dataset"
        print_text(f"{result.path}: {counts}, {state}")
