"""Reader of raw reviews; each row becomes a review or a bad line."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.bad_lines import BadLines, check_bad_lines
from llmdirect.data.readers.csv_files import csv_header, read_csv
from llmdirect.data.readers.formats import Layout, choose_layout
from llmdirect.data.readers.json_lines import LINE, numbered_lines, parse_line, read_json_lines
from llmdirect.data.readers.parquet_files import parquet_columns, read_parquet
from llmdirect.data.readers.raw_files import check_input_file, detect_format, open_decompressed

_SAMPLED_LINES: Final = 1000  # as fields may differ from line to line
_MILLISECONDS_FROM: Final = 1e11  # as seconds this would be the year 5138
_TIMES_END: Final = 1e14  # in milliseconds the same
_TIME_FORMATS: Final = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%dT%H:%M",
    "%a %b %d %H:%M:%S %z %Y",
)
_TIME_REASON: Final = (
    "time '{}' is neither epoch, ISO 8601 (2006-01-02) nor like 'Mon Jan 02 15:04:05 -0700 2006'"
)
_MISSING: Final = ("", "nan", "na", "n/a", "nat", "null", "none")
"""Spellings of missing values, in lower case."""
_BASIC_DATE: Final = r"^((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
"""Dates such as 20060102, which would be days of 1970 as epoch seconds."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """Reviews of a raw file, in its order."""

    frame: pl.DataFrame
    """Columns user, item, text (string, not null), rating (float32) and time_ms (int64, milliseconds since
    1970), null where missing, and line (int64: line of the file, row of Parquet)."""
    format: str
    """Name of the format."""
    bad_lines: int
    """Number of lines left out."""
    has_ratings: bool
    """Whether the format has a rating field."""


def read_reviews(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    with_summary: bool = False,
    skip_bad_lines: bool = False,
    progress: Progress = SILENT,
) -> Reviews:
    """Read a file of reviews.

    Amazon 2014, 2018, 2023 and Yelp files are recognised, and any JSON lines, CSV or Parquet file with
    `columns`. Times are epoch seconds or milliseconds, ISO 8601 (UTC without a zone), or of the form
    `Mon Jan 02 15:04:05 -0700 2006`. A rating or time that is blank, NaN, NA or null is missing.

    Parameters
    ----------
    path
        The file, plain or compressed.
    columns
        Field of each role: user, item, text, rating, time, summary.
    with_summary
        Put the summary of a review on a line before its text.
    skip_bad_lines
        Leave out bad lines instead of raising an error.
    progress
        Receiver of progress reports.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If a role is unknown.
    DataError
        If the fields are not recognised, the file is damaged, has bad lines, or no review.
    """
    path = Path(path)
    check_input_file(path)
    format = detect_format(path)
    if format == "parquet":
        names = parquet_columns(path)
        layout = choose_layout(path, names, columns, with_summary)
        frame, bad = _validate(_read_parquet(path, layout), layout)
    else:
        with open_decompressed(path) as file:
            names = csv_header(path, file) if format == "csv" else _sample_json_fields(path, file)
        layout = choose_layout(path, names, columns, with_summary)
        with open_decompressed(path, progress) as file:
            frame, bad = _validate_all(_read_frames(path, file, format, layout), layout)
    unit = "row" if format == "parquet" else "line"
    if not skip_bad_lines:
        check_bad_lines(path, bad, total=frame.height + len(bad), unit=unit)
    if frame.is_empty():
        raise DataError(f"{path}: holds no review" + (f" besides {len(bad):,} bad {unit}s" if bad else ""))
    return Reviews(frame, layout.name, len(bad), "rating" in layout.fields)


def _sample_json_fields(path: Path, file: IO[bytes]) -> list[str]:
    """Fields of the first lines that are objects, in the order of appearance."""
    names: dict[str, None] | None = None
    reasons: list[str] = []
    for number, line in islice(numbered_lines(file), _SAMPLED_LINES):
        try:
            names = (names or {}) | dict.fromkeys(parse_line(line))
        except ValueError as error:
            if line.strip():
                reasons.append(f"line {number}: {error}")
    if names is None:
        reason = reasons[0] if reasons else "every line is blank"
        raise DataError(f"{path}: no JSON object among the first {_SAMPLED_LINES:,} lines; {reason}")
    return list(names)


def _read_frames(
    path: Path, file: IO[bytes], format: str, layout: Layout
) -> Iterator[tuple[pl.DataFrame, BadLines]]:
    if format == "csv":
        return read_csv(path, file, layout.fields)
    return read_json_lines(file, layout.fields)


def _validate_all(
    parts: Iterator[tuple[pl.DataFrame, BadLines]], layout: Layout
) -> tuple[pl.DataFrame, BadLines]:
    frames: list[pl.DataFrame] = []
    bad: BadLines = []
    for raw, unreadable in parts:
        frame, invalid = _validate(raw, layout)
        frames.append(frame)
        bad += unreadable + invalid
    return pl.concat(frames), sorted(bad)


def _read_parquet(path: Path, layout: Layout) -> pl.DataFrame:
    rows = read_parquet(path, list(dict.fromkeys(layout.fields.values())))
    columns = []
    for role, name in layout.fields.items():
        dtype = rows.schema[name]
        if dtype.is_temporal() and role == "time":
            column = pl.col(name).cast(pl.Datetime("ms")).dt.epoch("ms").cast(pl.String)
        elif dtype.is_nested() or dtype in (pl.Boolean(), pl.Binary()):
            raise DataError(f"{path}: column {name!r} is {dtype}, expected text or numbers for the {role}")
        elif dtype.is_float() and role in ("user", "item"):  # integers in a column with missing values
            whole = pl.col(name).cast(pl.Int64, strict=False)
            text = pl.col(name).cast(pl.String)
            column = pl.when(whole == pl.col(name)).then(whole.cast(pl.String)).otherwise(text)
        else:
            column = pl.col(name).cast(pl.String)
        columns.append(column.alias(role))
    return rows.select(columns).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})


def _validate(raw: pl.DataFrame, layout: Layout) -> tuple[pl.DataFrame, BadLines]:
    """Reviews and bad lines of rows of strings, by the rules that all formats share."""
    fields = layout.fields
    raw = raw.with_columns(
        pl.lit(None, pl.String).alias(role) for role in ("rating", "time") if role not in fields
    )
    if layout.text_optional:
        raw = raw.with_columns(pl.col("text").fill_null(""))
    raw = raw.with_columns(_missing_to_null("rating"), _missing_to_null("time"))
    rows = raw.with_columns(
        _parse_number(pl.col("rating")).cast(pl.Float32).alias("rating_value"),
        _parse_times(raw["time"]).alias("time_ms"),
    )
    rows = rows.with_columns(_rejection_reason(fields).alias("reason"))
    bad = rows.filter(pl.col("reason").is_not_null())
    good = rows.filter(pl.col("reason").is_null())
    text = pl.col("text")
    if "summary" in fields:
        summary = pl.col("summary").fill_null("").str.strip_chars()
        joined = pl.when(text == "").then(summary).otherwise(summary + "\n" + text)
        text = pl.when(summary == "").then(text).otherwise(joined)
    frame = good.select(
        "user", "item", text.alias("text"), pl.col("rating_value").alias("rating"), "time_ms", LINE
    )
    return frame, list(zip(bad[LINE].to_list(), bad["reason"].to_list(), strict=True))


def _missing_to_null(role: str) -> pl.Expr:
    stripped = pl.col(role).str.strip_chars()
    return pl.when(~stripped.str.to_lowercase().is_in(_MISSING)).then(stripped).alias(role)


def _parse_number(text: pl.Expr) -> pl.Expr:
    """float64, null where not a number; a decimal comma is accepted before at most two digits."""
    return text.str.replace(r"^(-?\d+),(\d\d?)$", "${1}.${2}").cast(pl.Float64, strict=False)


def _rejection_reason(fields: Mapping[str, str]) -> pl.Expr:
    """First rule that a row breaks, null if none."""
    rating, value, time = pl.col("rating"), pl.col("rating_value"), pl.col("time")
    rules: list[tuple[pl.Expr, str | pl.Expr]] = []
    for role in ("user", "item"):
        rules += [
            (pl.col(role).is_null(), f"no {role} ({fields[role]} is missing)"),
            (pl.col(role).str.strip_chars() == "", f"empty {role} ({fields[role]})"),
        ]
    rules += [
        (pl.col("text").is_null(), f"no text ({fields['text']} is missing)"),
        (rating.is_not_null() & value.is_null(), _format_reason("rating '{}' is not a number", rating)),
        (value.is_not_null() & ~value.is_finite(), _format_reason("rating '{}' is not finite", rating)),
        (time.is_not_null() & pl.col("time_ms").is_null(), _format_reason(_TIME_REASON, time)),
    ]
    return pl.coalesce(
        pl.when(is_broken).then(pl.lit(reason) if isinstance(reason, str) else reason)
        for is_broken, reason in rules
    )


def _format_reason(message: str, value: pl.Expr) -> pl.Expr:
    return pl.format(message, value.str.slice(0, 40))


def _parse_times(times: pl.Series) -> pl.Series:
    """Milliseconds since 1970, int64, null where a time is not understood."""
    times = times.str.replace(_BASIC_DATE, "${1}-${2}-${3}")
    number = times.cast(pl.Float64, strict=False)
    number = pl.select(
        pl.when(number.abs() < _MILLISECONDS_FROM)
        .then(number * 1000)
        .when(number.abs() < _TIMES_END)
        .then(number)
    ).to_series()
    result = number.round().cast(pl.Int64)
    rest = times.filter(result.is_null() & times.is_not_null())
    if rest.is_empty():
        return result
    iso = rest.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00").str.replace(
        r"^(\S{10}) (\d)", "${1}T${2}"
    )
    parsed = pl.Series([None] * len(rest), dtype=pl.Int64)
    for time_format in _TIME_FORMATS:
        times_read = iso.str.to_datetime(time_format, strict=False, time_unit="ms")
        parsed = pl.select(pl.coalesce(parsed, times_read.dt.epoch("ms"))).to_series()
    return result.scatter((result.is_null() & times.is_not_null()).arg_true(), parsed)
