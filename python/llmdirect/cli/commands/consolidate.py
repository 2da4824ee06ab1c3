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
        Path, typer.Argument(help="A dataset with shards, or a folder of numbered .npy files.")
    ],
    out: Annotated[Path | None, typer.Option(help="Where to write (numbered .npy files only).")] = None,
    layout: Annotated[
        LayoutChoice | None, typer.Option(help="One ragged store, or padded arrays for np.load.")
    ] = None,
    dtype: Annotated[DtypeChoice | None, typer.Option(help="Round to this (layout store only).")] = None,
    store: Annotated[str | None, typer.Option(help="Name of the store, where there are several.")] = None,
    keep_shards: Annotated[bool, typer.Option("--keep-shards", help="Do not remove the shards.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Join the shards of a dataset into one store, or merge folders of numbered .npy files.

    The new state appears at once or not at all: after a stop, run the command again.
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
