"""Values of raw reviews: ids, missing values, ratings and times."""

from typing import Final, NamedTuple

import polars as pl

MISSING: Final = ("", "NaN", "nan", "None", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaT", "<NA>", "\\N")
"""Spellings of missing values, as databases, R, pandas and spreadsheets write them."""
_MISSING_NUMBERS: Final = tuple(sorted({spelling.lower() for spelling in MISSING} | {"-"}))
_NUMBER: Final = r"^-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
_WHOLE_FLOAT: Final = r"^-?\d+(\.0+)?$"
_BASIC_DATE: Final = r"^((?:19|20)\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
"""Dates such as 20060102, which would be days of 1970 as epoch seconds."""
_YEAR: Final = r"^((?:19|20)\d\d)$"
_UNITS: Final = ((4e9, 1e3, "seconds"), (4e12, 1, "milliseconds"), (4e15, 1e-3, "microseconds"))
"""Largest usual number since 1970 (the year 2096), milliseconds of one, name."""
_CLOCK: Final = (
    r"(?:,?[ T]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))? ?(?P<half>[AaPp][Mm])?)?$"
)
_POINTS: Final = r"^(?P<first>\d{1,2})\.(?P<other>\d{1,2})\.(?P<year>\d{4})" + _CLOCK
"""Dates such as 31.12.2020 14:05, whose day is first everywhere."""
_SLASHES: Final = r"^(?P<first>\d{1,2})[/-](?P<other>\d{1,2})[/-](?P<year>\d{4})" + _CLOCK
"""Dates such as 12/31/2020 2:05 PM, whose day is first or second."""
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
AMBIGUOUS_REASON: Final = (
    "time '{}' is ambiguous, as no time of the column tells whether the day or the month is first (or some "
    'tell one, some the other); write ISO 8601 (2006-01-02); `columns={"time": ""}` leaves times out'
)


def parse_ids(values: pl.Series) -> pl.Series:
    """Ids without blanks at the ends, null where missing.

    `12.0` is `12`, as pandas writes integers beside a missing value, where all numbers among the ids are
    whole and they are half of the ids or more.
    """
    ids = _without_missing(values.str.strip_chars(), MISSING)
    num_ids = len(ids) - ids.null_count()
    num_numbers = ids.str.contains(_NUMBER).sum()
    if num_numbers == ids.str.contains(_WHOLE_FLOAT).sum() and 2 * num_numbers >= num_ids:
        return ids.str.replace(r"^(-?\d+)\.0+$", "${1}")
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


class Times(NamedTuple):
    """Times of a column."""

    text: pl.Series
    """The values, null where missing."""
    milliseconds: pl.Series
    """int64 since 1970, null where missing or not understood."""
    unit: str
    """What the values are, in words."""
    is_ambiguous: pl.Series
    """Whether day and month of a value cannot be told apart, bool."""


def parse_times(values: pl.Series) -> Times:
    """Times of a column: all numbers in one unit, the days of all dates with slashes in one place."""
    text = _without_missing(values.str.strip_chars(), _MISSING_NUMBERS, lower=True)
    given = text.drop_nulls()
    for pattern, date, name in ((_BASIC_DATE, "${1}-${2}-${3}", "dates"), (_YEAR, "${1}-01-01", "years")):
        if given.str.contains(pattern).all():
            return Times(text, _parse_dates(text.str.replace(pattern, date)), name, text.is_null() & False)
    number = text.cast(pl.Float64, strict=False)
    typical = number.abs().median()
    milliseconds, unit = 1.0, ""
    if isinstance(typical, float):
        milliseconds, unit = next(
            ((factor, name) for largest, factor, name in _UNITS if typical < largest),
            (1e-6, "nanoseconds"),
        )
        unit = f"{unit} since 1970"
    scaled = number * milliseconds
    result = pl.select(pl.when(scaled.abs() < _LATEST_MS).then(scaled.round())).to_series().cast(pl.Int64)
    dates = pl.select(pl.when(number.is_null()).then(text)).to_series()
    iso, order, is_ambiguous = _as_iso(dates)
    units = [unit] if unit else []
    if iso.null_count() < len(iso):
        result = result.zip_with(result.is_not_null(), _parse_dates(iso))
        units.append(f"dates{order}")
    return Times(text, result, ", ".join(units) or "dates", is_ambiguous)


def _as_iso(dates: pl.Series) -> tuple[pl.Series, str, pl.Series]:
    """Dates with points or slashes as ISO 8601, others as they are; what is first; which are ambiguous."""
    with_points, with_slashes = (dates.str.contains(form).fill_null(False) for form in (_POINTS, _SLASHES))
    orders: list[str] = []
    is_ambiguous = with_slashes & False
    if with_points.any():
        dates = dates.zip_with(~with_points, _rearranged(dates, _POINTS, day_first=True))
        orders.append("day first")
    if with_slashes.any():
        numbers = dates.filter(with_slashes).str.extract_groups(_SLASHES).struct.unnest()
        is_day = (numbers[name].cast(pl.Int64) > 12 for name in ("first", "other"))
        day_first, month_first = (bool(days.any()) for days in is_day)
        if day_first == month_first:
            is_ambiguous = with_slashes
        else:
            dates = dates.zip_with(~with_slashes, _rearranged(dates, _SLASHES, day_first))
            orders.append("day first" if day_first else "month first")
    return dates, "".join(f", {order}" for order in dict.fromkeys(orders)), is_ambiguous


def _rearranged(dates: pl.Series, form: str, day_first: bool) -> pl.Series:
    """Dates of one form as ISO 8601, null for others."""
    parts = dates.str.extract_groups(form).struct.unnest()
    day, month = ("first", "other") if day_first else ("other", "first")
    hour = pl.col("hour").cast(pl.Int64).fill_null(0)
    half = pl.col("half").str.to_lowercase()
    is_hour = half.is_null() | hour.is_between(1, 12)
    hour = pl.when(half.is_null()).then(hour).otherwise(hour % 12 + 12 * (half == "pm"))
    return parts.select(
        pl.when(is_hour).then(
            pl.format(
                "{}-{}-{}T{}:{}:{}",
                pl.col("year"),
                pl.col(month).str.zfill(2),
                pl.col(day).str.zfill(2),
                hour.cast(pl.String).str.zfill(2),
                pl.col("minute").fill_null("00"),
                pl.col("second").fill_null("00"),
            )
        )
    ).to_series()


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
