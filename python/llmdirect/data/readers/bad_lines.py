"""Lines of raw files that cannot be used."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from llmdirect.common.errors import DataError

BadLines = list[tuple[int, str]]
"""Number from 1 and reason of each line of a file."""
_MAX_LISTED: Final = 10


class BadLine(NamedTuple):
    """A line of one of several files."""

    file: str
    """Label of the file."""
    unit: str
    """"line", or "row" of a table."""
    number: int
    """From 1."""
    reason: str


def check_bad_lines(label: str, bad: Sequence[BadLine], *, total: int | None = None) -> None:
    """Check that there is no bad line.

    Parameters
    ----------
    label
        Name of all files together.
    bad
        Bad lines.
    total
        Number of all records.

    Raises
    ------
    DataError
        If there are bad lines; the message gives place and reason of the first ones.
    """
    if not bad:
        return
    unit = bad[0].unit
    listed = "".join(
        f"\n  {f'{line.file}: ' if line.file != label else ''}{line.unit} {line.number}: {line.reason}"
        for line in bad[:_MAX_LISTED]
    )
    more = f"\n  and {len(bad) - _MAX_LISTED:,} more" if len(bad) > _MAX_LISTED else ""
    of_all = "" if total is None else f"of {total:,} "
    raise DataError(
        f"{label}: {len(bad):,} {of_all}{unit}s are bad; mend them, or leave them out with "
        f"`skip_bad_lines=True`:{listed}{more}"
    )
