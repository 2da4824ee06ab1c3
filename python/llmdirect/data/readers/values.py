"""Values of raw reviews: ids, missing values, ratings and times."""

from typing import Final

import polars as pl

MISSING: Final = ("", "NaN", "nan", "None", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaT", "<NA>", "\\N")
"""Spellings of missing values, as databases, R, pandas and spreadsheets write them."""
_MISSING_NUMBERS: Final = tuple(sorted({spelling.lower() for spelling in MISSING} | {"-"}))
_WHOLE_FLOAT: Final = r"^-?\d+(\.0+)?$"
_BASIC_DATE: Final = r"^((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
"""Dates such as 20060102, which would be days of 1970 as epoch seconds."""
_YEAR: Final = r"^((?:19|20)\d\d)$"
_UNITS: Final = ((4e9, 1e3, "seconds"), (4e12, 1, "milliseconds"), (4e15, 1e-3, "microseconds"))
"""Largest usual number since 1970 (the year 2096), milliseconds of one, name."""
_LATEST_MS: Final = 7_258_118_400_000  # the year 2200
_TIME_FORMATS: Final = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%dT%H:%M:%S%.f",
    "%a %b %d %H:%M:%S %z %Y",
)
_SPLITS: Final = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("valid", "validation", "val", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
TIME_REASON: Final = (
    "time '{}' is neither a number since 1970, ISO 8601 (2006-01-02), "
    "nor like 'Mon Jan 02 15:04:05 -0700 2006'"
    '; `columns={"time": ""}` leaves times out'
)


def parse_ids(values: pl.Series) -> pl.Series:
    """Ids without blanks at the ends, null where missing.

    Where all ids are whole numbers, `12.0` is `12`, as pandas writes integers beside a missing value.
    """
    ids = _without_missing(values.str.strip_chars(), MISSING)
    if ids.drop_nulls().str.contains(_WHOLE_FLOAT).all():
        return ids.str.replace(r"\.0+$", "")
    return ids


def parse_splits(values: pl.Series) -> pl.Series:
    """Splits by their usual names: uint8, 0 train, 1 valid, 2 test; null for anything else."""
    names = values.str.strip_chars().str.to_lowercase()
    return names.replace_strict(_SPLITS, default=None, return_dtype=pl.UInt8)


def parse_texts(values: pl.Series) -> pl.Series:
    """Texts, null where missing; an empty text is a text."""
    marks = [spelling for spelling in MISSING if spelling]
    return _without_missing(values, marks)


def parse_numbers(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Numbers of ratings or weights.

    Booleans are 1 and 0, and a decimal comma is accepted before at most two digits.

    Returns
    -------
    text
        The values, null where missing.
    number
        float64, null where missing or not a number.
    """
    text = _without_missing(values.str.strip_chars(), _MISSING_NUMBERS, lower=True)
    plain = text.str.replace(r"^(-?\d+),(\d\d?)$", "${1}.${2}").str.to_lowercase()
    plain = plain.replace({"true": "1", "false": "0"})
    return text, plain.cast(pl.Float64, strict=False)


def parse_times(values: pl.Series) -> tuple[pl.Series, pl.Series, str]:
    """Times of a column, all numbers in one unit.

    Returns
    -------
    text
        The values, null where missing.
    milliseconds
        int64 since 1970, null where missing or not understood.
    unit
        What the values are, in words.
    """
    text = _without_missing(values.str.strip_chars(), _MISSING_NUMBERS, lower=True)
    given = text.drop_nulls()
    for pattern, date, name in ((_BASIC_DATE, "${1}-${2}-${3}", "dates"), (_YEAR, "${1}-01-01", "years")):
        if given.str.contains(pattern).all():
            return text, _parse_dates(text.str.replace(pattern, date)), name
    number = text.cast(pl.Float64, strict=False)
    typical = number.abs().median()
    milliseconds, unit = 1.0, "dates"
    if isinstance(typical, float):
        milliseconds, unit = next(
            ((factor, name) for largest, factor, name in _UNITS if typical < largest),
            (1e-6, "nanoseconds"),
        )
        unit = f"{unit} since 1970"
    scaled = number * milliseconds
    result = pl.select(pl.when(scaled.abs() < _LATEST_MS).then(scaled.round())).to_series().cast(pl.Int64)
    if number.null_count() == text.null_count():
        return text, result, unit
    dates = pl.select(pl.when(number.is_null()).then(text)).to_series()
    return text, result.zip_with(result.is_not_null(), _parse_dates(dates)), unit


def _parse_dates(text: pl.Series) -> pl.Series:
    """Milliseconds since 1970 of written times, null where not understood."""
    iso = text.str.replace(r"^(\d{4}-\d\d)$", "${1}-01").str.replace(r" ?UTC$", "+00:00")
    iso = iso.str.replace(r"^(\d{4}[-/]\d\d[-/]\d\d)$", "${1}T00:00:00")
    iso = iso.str.replace(r"^(\S{10}) (\d)", "${1}T${2}")
    parsed = pl.Series([None] * len(text), dtype=pl.Int64)
    for time_format in _TIME_FORMATS:
        if parsed.null_count() == text.null_count():
            break
        times = iso.str.to_datetime(time_format, strict=False, time_unit="ms")
        parsed = parsed.zip_with(parsed.is_not_null(), times.dt.epoch("ms"))
    return parsed


def _without_missing(
    values: pl.Series, spellings: "tuple[str, ...] | list[str]", lower: bool = False
) -> pl.Series:
    compared = values.str.to_lowercase() if lower else values
    keep = ~compared.is_in(list(spellings))
    return pl.select(pl.when(keep).then(values)).to_series()
