"""Interface of the readers of raw records."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import polars as pl

from llmdirect.common.progress import Progress
from llmdirect.data.readers.bad_lines import BadLines

LINE: Final = "#line"
"""Column of the numbers of records; no role or field is called so."""
Piece = tuple[pl.DataFrame, BadLines]
"""Records of a part of a file, and its bad lines.

The frame has the column `LINE` (int64; line of the file, or row of a table, from 1) and a string column per
role, null where absent.
"""


class RecordFile(Protocol):
    """Records of one raw file or table."""

    label: str
    """Path or name, for messages."""
    unit: str
    """What is counted: "line" or "row"."""
    description: str
    """Format in words, such as "CSV: commas, without quotes"."""
    names: list[str]
    """Field names."""

    def frames(self, fields: Mapping[str, str], progress: Progress) -> Iterator[Piece]:
        """Read the field of each role, in pieces.

        Raises
        ------
        DataError
            If the file is damaged, or a field holds what is no text.
        """

    def records(
        self, names: Sequence[str], progress: Progress
    ) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
        """Read some fields with values of any type: number of each record, and the record or its defect."""
