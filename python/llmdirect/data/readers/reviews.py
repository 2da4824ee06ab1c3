"""Readers of raw reviews: every row of the file ends in the frame or among the bad lines, none is lost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.data.readers.csv_files import csv_header, read_csv
from llmdirect.data.readers.formats import Layout, choose_layout
from llmdirect.data.readers.json_lines import LINE, BadLines, numbered_lines, parse_line, read_json_lines
from llmdirect.data.readers.parquet_files import parquet_columns, read_parquet
from llmdirect.data.readers.raw_files import check_file, open_raw, raw_kind

_SNIFFED_LINES: Final = 1000  # fields may differ from line to line
_BAD_LINES_SHOWN: Final = 10
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
_ABSENT: Final = ("", "nan", "na", "n/a", "nat", "null", "none")
"""What programs write for a value that is not there, in small letters."""
_BASIC_DATE: Final = r"^((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
"""20060102; as epoch seconds all of these would be days of 1970."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """What a raw file says, in the file's order.

    frame: user, item, text (string, never null); rating (float32) and time_ms (int64, milliseconds since
    1970), null where missing; line (int64: line of the file, row for Parquet).
    """

    frame: pl.DataFrame
    format: str
    bad_lines: int
    has_ratings: bool


def read_reviews(
    path: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    with_summary: bool = False,
    skip_bad_lines: bool = False,
    progress: Progress = SILENT,
) -> Reviews:
    """Reads Amazon 2014, 2018, 2023 or Yelp reviews, or any JSON lines, CSV or Parquet file with `columns`.

    columns maps the roles user, item, text, rating, time and summary to field names; with_summary puts
    the summary on a line before the text. Times may be epoch seconds or milliseconds, ISO 8601 (without a
    zone: UTC), or `Mon Jan 02 15:04:05 -0700 2006`. A rating or time that is blank, NaN, NA or null is
    missing.

    Raises OSError kinds where the file cannot be read; DataError where its fields are not recognised, its
    compressed stream is cut, it holds no review, or (unless skip_bad_lines) any line is bad: the message
    counts the bad lines and gives number and reason of the first ones.
    """
    path = Path(path)
    check_file(path)
    kind = raw_kind(path)
    if kind == "parquet":
        found = parquet_columns(path)
        layout = choose_layout(path, found, columns, with_summary)
        frame, bad = _checked(_read_parquet(path, layout), layout)
    else:
        with open_raw(path) as file:
            found = csv_header(path, file) if kind == "csv" else _json_fields(path, file)
        layout = choose_layout(path, found, columns, with_summary)
        with open_raw(path, progress) as file:
            frame, bad = _checked_all(_raw_frames(path, file, kind, layout), layout)
    unit = "row" if kind == "parquet" else "line"
    if bad and not skip_bad_lines:
        shown = "".join(f"\n  {unit} {number}: {reason}" for number, reason in bad[:_BAD_LINES_SHOWN])
        more = f"\n  and {len(bad) - _BAD_LINES_SHOWN:,} more" if len(bad) > _BAD_LINES_SHOWN else ""
        raise DataError(
            f"{path}: {len(bad):,} of {frame.height + len(bad):,} {unit}s are bad; mend them, or leave them "
            f"out with --skip-bad-lines:{shown}{more}"
        )
    if frame.is_empty():
        raise DataError(f"{path}: holds no review" + (f" besides {len(bad):,} bad {unit}s" if bad else ""))
    return Reviews(frame, layout.name, len(bad), "rating" in layout.fields)


def _json_fields(path: Path, file: IO[bytes]) -> list[str]:
    """The fields of the first lines that are objects, in order of appearance."""
    found: dict[str, None] | None = None
    reasons: list[str] = []
    for number, line in islice(numbered_lines(file), _SNIFFED_LINES):
        try:
            found = (found or {}) | dict.fromkeys(parse_line(line))
        except ValueError as error:
            if line.strip():
                reasons.append(f"line {number}: {error}")
    if found is None:
        reason = reasons[0] if reasons else "every line is blank"
        raise DataError(f"{path}: no JSON object among the first {_SNIFFED_LINES:,} lines; {reason}")
    return list(found)


def _raw_frames(
    path: Path, file: IO[bytes], kind: str, layout: Layout
) -> Iterator[tuple[pl.DataFrame, BadLines]]:
    if kind == "csv":
        return read_csv(path, file, layout.fields)
    return read_json_lines(file, layout.fields)


def _checked_all(
    parts: Iterator[tuple[pl.DataFrame, BadLines]], layout: Layout
) -> tuple[pl.DataFrame, BadLines]:
    frames: list[pl.DataFrame] = []
    bad: BadLines = []
    for raw, unreadable in parts:
        frame, wrong = _checked(raw, layout)
        frames.append(frame)
        bad += unreadable + wrong
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
        elif dtype.is_float() and role in ("user", "item"):  # whole numbers beside a missing one
            whole = pl.col(name).cast(pl.Int64, strict=False)
            text = pl.col(name).cast(pl.String)
            column = pl.when(whole == pl.col(name)).then(whole.cast(pl.String)).otherwise(text)
        else:
            column = pl.col(name).cast(pl.String)
        columns.append(column.alias(role))
    return rows.select(columns).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})


def _checked(raw: pl.DataFrame, layout: Layout) -> tuple[pl.DataFrame, BadLines]:
    """The one set of rules for all formats: strings to values; rows that break a rule are bad lines."""
    fields = layout.fields
    raw = raw.with_columns(
        pl.lit(None, pl.String).alias(role) for role in ("rating", "time") if role not in fields
    )
    if layout.text_may_be_absent:
        raw = raw.with_columns(pl.col("text").fill_null(""))
    raw = raw.with_columns(_absent_to_null("rating"), _absent_to_null("time"))
    rows = raw.with_columns(
        _number(pl.col("rating")).cast(pl.Float32).alias("rating_value"),
        _milliseconds(raw["time"]).alias("time_ms"),
    )
    rows = rows.with_columns(_reason(fields).alias("reason"))
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


def _absent_to_null(role: str) -> pl.Expr:
    stripped = pl.col(role).str.strip_chars()
    return pl.when(~stripped.str.to_lowercase().is_in(_ABSENT)).then(stripped).alias(role)


def _number(text: pl.Expr) -> pl.Expr:
    """float64; with a decimal comma too, where at most two digits follow it."""
    return text.str.replace(r"^(-?\d+),(\d\d?)$", "${1}.${2}").cast(pl.Float64, strict=False)


def _reason(fields: Mapping[str, str]) -> pl.Expr:
    """Why a row is bad: the first rule it breaks; null for a good one."""
    rating, value, time = pl.col("rating"), pl.col("rating_value"), pl.col("time")
    rules: list[tuple[pl.Expr, str | pl.Expr]] = []
    for role in ("user", "item"):
        rules += [
            (pl.col(role).is_null(), f"no {role} ({fields[role]} is missing)"),
            (pl.col(role).str.strip_chars() == "", f"empty {role} ({fields[role]})"),
        ]
    rules += [
        (pl.col("text").is_null(), f"no text ({fields['text']} is missing)"),
        (rating.is_not_null() & value.is_null(), _quoting("rating '{}' is not a number", rating)),
        (value.is_not_null() & ~value.is_finite(), _quoting("rating '{}' is not finite", rating)),
        (time.is_not_null() & pl.col("time_ms").is_null(), _quoting(_TIME_REASON, time)),
    ]
    return pl.coalesce(
        pl.when(broken).then(pl.lit(why) if isinstance(why, str) else why) for broken, why in rules
    )


def _quoting(message: str, value: pl.Expr) -> pl.Expr:
    return pl.format(message, value.str.slice(0, 40))


def _milliseconds(times: pl.Series) -> pl.Series:
    """Times as written to int64 milliseconds since 1970; null where not understood."""
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
    for format in _TIME_FORMATS:
        times_read = iso.str.to_datetime(format, strict=False, time_unit="ms")
        parsed = pl.select(pl.coalesce(parsed, times_read.dt.epoch("ms"))).to_series()
    return result.scatter((result.is_null() & times.is_not_null()).arg_true(), parsed)
