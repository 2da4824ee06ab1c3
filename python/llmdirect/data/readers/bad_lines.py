"""Lines of raw files that cannot be used."""

from pathlib import Path
from typing import Final

from llmdirect.common.errors import DataError

BadLines = list[tuple[int, str]]
"""Number from 1 and reason of each line."""
_MAX_LISTED: Final = 10


def check_bad_lines(path: Path, bad: BadLines, *, total: int | None = None, unit: str = "line") -> None:
    """Check that there is no bad line.

    Parameters
    ----------
    path
        File of the lines.
    bad
        Bad lines.
    total
        Number of all lines.
    unit
        "line", or "row" of a table.

    Raises
    ------
    DataError
        If there are bad lines; the message gives number and reason of the first ones.
    """
    if not bad:
        return
    listed = "".join(f"\n  {unit} {number}: {reason}" for number, reason in bad[:_MAX_LISTED])
    more = f"\n  and {len(bad) - _MAX_LISTED:,} more" if len(bad) > _MAX_LISTED else ""
    of_all = "" if total is None else f"of {total:,} "
    raise DataError(
        f"{path}: {len(bad):,} {of_all}{unit}s are bad; mend them, or leave them out with "
        f"`skip_bad_lines=True`:{listed}{more}"
    )
