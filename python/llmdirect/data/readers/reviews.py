"""Reader of raw reviews; each record becomes a review or a bad line."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.data.dataset import SPLIT_NAMES
from llmdirect.data.readers.bad_lines import BadLine, check_bad_lines
from llmdirect.data.readers.formats import (
    KNOWN_NAMES,
    WEIGHT_NAMES,
    Layout,
    choose_interaction_layout,
    choose_layout,
    field_list,
    named_fields,
)
from llmdirect.data.readers.record_file import LINE, RecordFile
from llmdirect.data.readers.sources import Source, resolve_source
from llmdirect.data.readers.values import (
    AMBIGUOUS_REASON,
    TIME_REASON,
    parse_ids,
    parse_numbers,
    parse_splits,
    parse_texts,
    parse_times,
)
from llmdirect.text.clean import clean_texts

_FILE: Final = "#file"
_FIRST_USUAL_MS: Final = 788_918_400_000  # 1995, before which nobody wrote reviews on the web


@dataclass(frozen=True)
class FieldSummary:
    """What was read from the field of a role."""

    role: str
    field: str
    """Its name in the file."""
    read: int
    """Number of values."""
    missing: int
    """Number of records without a value."""
    odd: int
    """Number of unusual values: empty texts, times before 1995 or in the future."""
    remark: str
    """Range or unit of the values, and what is odd."""

    def to_json(self) -> Json:
        """JSON object."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Reviews:
    """Reviews of a raw source, in its order."""

    label: str
    """Name of the source, for messages."""
    frame: pl.DataFrame
    """Columns user, item, text (string, not null), rating (float32), time_ms (int64, milliseconds since
    1970), split (uint8) and weight (float32), null where missing, and `LINE` (int64: line of the file, row
    of a table)."""
    format: str
    """Name of the format."""
    description: str
    """How the files are written, in words."""
    bad_lines: int
    """Number of lines left out."""
    fields: list[FieldSummary]
    """What was read, by role."""
    not_used: list[str]
    """Fields of the files that have no role."""

    def to_json(self) -> Json:
        """What was read, for the manifest of a dataset."""
        return {
            "format": self.format,
            "description": self.description,
            "rows_read": self.frame.height,
            "bad_lines": self.bad_lines,
            "fields": [field.to_json() for field in self.fields],
            "not_used": self.not_used,
        }

    @property
    def has_ratings(self) -> bool:
        """Whether the format has a rating field."""
        return any(field.role == "rating" for field in self.fields)


def read_interactions(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    skip_bad_lines: bool = False,
    encoding: str | None = None,
    quote: str | None = None,
    progress: Progress = SILENT,
) -> Reviews:
    """Read interactions without text, such as orders.

    Parameters
    ----------
    source
        As in `read_reviews`.
    columns
        Field of each role: user, item, rating, time, weight; a weight is a number above 0.
    skip_bad_lines, encoding, quote, progress
        As in `read_reviews`.

    Raises
    ------
    OSError, ValueError, DataError
        As `read_reviews`.
    """
    raw = resolve_source(source)
    columns = named_fields(columns)
    files = raw.open(
        encoding=encoding, quote=quote, columns=columns, candidates=(*KNOWN_NAMES, *WEIGHT_NAMES)
    )
    layout = choose_interaction_layout(raw.label, _field_names(files), columns)
    return _read(raw.label, files, [None] * len(files), layout, True, skip_bad_lines, progress)


def read_reviews(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    with_summary: bool = False,
    skip_bad_lines: bool = False,
    encoding: str | None = None,
    quote: str | None = None,
    raw_text: bool = False,
    split_column: str | None = None,
    valid: Source | None = None,
    test: Source | None = None,
    progress: Progress = SILENT,
) -> Reviews:
    """Read reviews.

    The layouts of Amazon 2014, 2018 and 2023, Yelp, Google Local, Goodreads, Steam, MovieLens and RecBole are
    recognised, and any other with `columns`. All times of a source are numbers of one unit since 1970, ISO
    8601 (UTC without a zone), or of the form `Mon Jan 02 15:04:05 -0700 2006`. Values such as NaN, NA, None
    and null are missing.

    Parameters
    ----------
    source
        File, folder, pattern or "-", plain or compressed, or several of these; or a table in memory.
    columns
        Field of each role: user, item, text, rating, time, summary; "" leaves a role out. Numbers from 0 are
        the columns of a file without a header.
    with_summary
        Put the summary of a review on a line before its text.
    skip_bad_lines
        Leave out bad lines instead of raising an error.
    encoding, quote
        As in `RawSource.open`.
    raw_text
        Leave texts as they are; else entities, tags, and characters that are not shown are cleaned.
    split_column
        Field with the split of each review: train, valid (also validation, val, dev) or test.
    valid, test
        Sources of the reviews of these splits; `source` is then train.
    progress
        Receiver of progress reports.

    Raises
    ------
    OSError
        If a file cannot be read.
    ValueError
        If a role, the encoding or the kind of quotes is unknown.
    DataError
        If the fields are not recognised, a file is damaged, has bad lines, or there is no review.
    """
    raw = resolve_source(source)
    columns = named_fields(columns)
    files: list[RecordFile] = []
    splits: list[int | None] = []
    for code, part in enumerate((raw, valid, test)):
        if part is not None:
            candidates = (*KNOWN_NAMES, *([split_column] if split_column else []))
            files += resolve_source(part).open(
                encoding=encoding, quote=quote, columns=columns, candidates=candidates
            )
            splits += [None if valid is None and test is None else code] * (len(files) - len(splits))
    layout = choose_layout(raw.label, _field_names(files), columns, with_summary, split_column)
    return _read(raw.label, files, splits, layout, raw_text, skip_bad_lines, progress)


def _field_names(files: list[RecordFile]) -> list[str]:
    return list(dict.fromkeys(name for file in files for name in file.names))


def _read(
    label: str,
    files: list[RecordFile],
    splits: list[int | None],
    layout: Layout,
    raw_text: bool,
    skip_bad_lines: bool,
    progress: Progress,
) -> Reviews:
    """Read files in one layout; `splits` has the split of each file, None for none."""
    required = ("user", "item") if layout.text_optional else ("user", "item", "text")
    for file in files:
        for role in required:
            if layout.fields[role] not in file.names:
                raise DataError(
                    f"{file.label}: no field {layout.fields[role]!r} for the {role}, which other files have; "
                    f"found: {field_list(file.names)}"
                )
    frames: list[pl.DataFrame] = []
    bad: list[BadLine] = []
    for index, file in enumerate(files):
        fields = {role: name for role, name in layout.fields.items() if name in file.names}
        for frame, unreadable in file.frames(fields, progress):
            absent = (pl.lit(None, pl.String).alias(role) for role in layout.fields if role not in fields)
            frames.append(
                frame.with_columns(*absent, pl.lit(index, pl.Int32).alias(_FILE)).select(
                    LINE, _FILE, *layout.fields
                )
            )
            bad += [BadLine(file.label, file.unit, number, reason) for number, reason in unreadable]
    rows = pl.concat(frames)
    num_records = rows.height + len(bad)
    frame, summaries, invalid = _validate(rows, layout, files, splits, raw_text)
    bad += invalid
    if not skip_bad_lines:
        check_bad_lines(label, sorted(bad), total=num_records)
    if frame.is_empty():
        unit = files[0].unit
        first = f"; {unit} {bad[0].number}: {bad[0].reason}" if bad else ""
        besides = f" besides {len(bad):,} bad {unit}s{first}" if bad else ""
        raise DataError(f"{label}: holds no {'review' if 'text' in layout.fields else 'record'}{besides}")
    description = "; ".join(dict.fromkeys(file.description for file in files))
    not_used = [name for name in _field_names(files) if name not in layout.fields.values()]
    return Reviews(label, frame, layout.name, description, len(bad), summaries, not_used)


def _validate(
    rows: pl.DataFrame,
    layout: Layout,
    files: list[RecordFile],
    splits: list[int | None],
    raw_text: bool,
) -> tuple[pl.DataFrame, list[FieldSummary], list[BadLine]]:
    """Reviews, what their fields hold, and bad lines."""
    fields = layout.fields
    nothing = pl.Series([None] * rows.height, dtype=pl.String)
    rating_text, rating = parse_numbers(rows["rating"] if "rating" in fields else nothing)
    times = parse_times(rows["time"] if "time" in fields else nothing)
    split = pl.Series(splits, dtype=pl.UInt8).gather(rows[_FILE])
    text = parse_texts(rows["text"]) if "text" in fields else nothing
    weight_text, weight = parse_numbers(rows["weight"] if "weight" in fields else nothing)
    summary = parse_texts(rows["summary"]).fill_null("") if "summary" in fields else None
    values = pl.DataFrame(
        {
            LINE: rows[LINE],
            _FILE: rows[_FILE],
            "user": parse_ids(rows["user"]),
            "item": parse_ids(rows["item"]),
            "text": text.fill_null("") if layout.text_optional else text,
            "rating_text": rating_text,
            "rating": rating.cast(pl.Float32),
            "weight_text": weight_text,
            "weight": weight.cast(pl.Float32),
            "time_text": times.text,
            "time_ms": times.milliseconds,
            "is_ambiguous": times.is_ambiguous,
            "split": parse_splits(rows["split"]) if "split" in fields else split,
            **({} if summary is None else {"summary": summary}),
        }
    ).with_columns(_rejection_reason(fields).alias("reason"))
    rejected = values.filter(pl.col("reason").is_not_null()).select(_FILE, LINE, "reason")
    bad = [
        BadLine(files[index].label, files[index].unit, number, reason)
        for index, number, reason in rejected.iter_rows()
    ]
    good = values.filter(pl.col("reason").is_null())
    texts = good["text"] if raw_text else clean_texts(good["text"])
    if summary is not None:
        title = (good["summary"] if raw_text else clean_texts(good["summary"])).str.strip_chars()
        texts = pl.select(
            pl.when(title == "").then(texts).when(texts == "").then(title).otherwise(title + "\n" + texts)
        ).to_series()
    frame = good.select("user", "item", texts.alias("text"), "rating", "time_ms", "split", "weight", LINE)
    missing = {
        "user": values["user"].null_count(),
        "item": values["item"].null_count(),
        "text": text.null_count(),
        "rating": rating_text.null_count(),
        "time": times.text.null_count(),
        "summary": int((summary == "").sum()) if summary is not None else 0,
        "split": values["split"].null_count(),
        "weight": weight_text.null_count(),
    }
    summaries = [
        FieldSummary(
            role, fields[role], rows.height - missing[role], missing[role], *_remark(role, frame, times.unit)
        )
        for role in fields
    ]
    return frame, summaries, bad


def _remark(role: str, frame: pl.DataFrame, time_unit: str) -> tuple[int, str]:
    """Number of odd values of a role, and a remark on its values."""
    if role in ("user", "item"):
        return 0, f"{frame[role].n_unique():,} different"
    if role == "split":
        return 0, ", ".join(f"{number:,} {SPLIT_NAMES[code]}" for code, number in _counts(frame["split"]))
    if role == "text":
        num_empty = int((frame["text"].str.strip_chars() == "").sum())
        return num_empty, "empty" if num_empty else ""
    if role == "summary":
        return 0, ""
    values = frame["time_ms" if role == "time" else role].drop_nulls()
    if values.is_empty():
        return 0, ""
    low, high = (float(value) for value in values.sort().gather([0, len(values) - 1]))
    if role in ("rating", "weight"):
        return 0, f"{low:g} to {high:g}"
    num_odd = int(((values < _FIRST_USUAL_MS) | (values > time.time() * 1000)).sum())
    first, last = (_date(value) for value in (low, high))
    odd = ", some before 1995 or in the future" if num_odd else ""
    return num_odd, f"{first} to {last}, {time_unit}{odd}"


def _counts(values: pl.Series) -> list[tuple[int, int]]:
    return [(int(value), int((values == value).sum())) for value in values.unique().sort()]


def _date(milliseconds: float) -> str:
    return str(
        pl.Series([int(milliseconds)], dtype=pl.Int64).cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%d")[0]
    )


def _rejection_reason(fields: Mapping[str, str]) -> pl.Expr:
    """First rule that a row breaks, null if none."""
    rating, value = pl.col("rating_text"), pl.col("rating")
    weight_text, weight = pl.col("weight_text"), pl.col("weight")
    time_text = pl.col("time_text")
    rules: list[tuple[pl.Expr, str | pl.Expr]] = [
        (pl.col(role).is_null(), f"no {role} ({fields[role]} is missing)")
        for role in ("user", "item", "text")
        if role in fields
    ]
    if "split" in fields:
        reason = f"split ({fields['split']}) is none of train, valid, test"
        rules.append((pl.col("split").is_null(), reason))
    rules += [
        (rating.is_not_null() & value.is_null(), _format_reason("rating '{}' is not a number", rating)),
        (value.is_not_null() & ~value.is_finite(), _format_reason("rating '{}' is not finite", rating)),
        (
            weight_text.is_not_null() & ~(weight.is_finite() & (weight > 0)).fill_null(False),
            _format_reason("weight '{}' is not a number above 0", weight_text),
        ),
        (pl.col("is_ambiguous"), _format_reason(AMBIGUOUS_REASON, time_text)),
        (time_text.is_not_null() & pl.col("time_ms").is_null(), _format_reason(TIME_REASON, time_text)),
    ]
    return pl.coalesce(
        pl.when(is_broken).then(pl.lit(reason) if isinstance(reason, str) else reason)
        for is_broken, reason in rules
    )


def _format_reason(message: str, value: pl.Expr) -> pl.Expr:
    before, after = (pl.lit(part) for part in message.split("{}"))
    return before + value.str.slice(0, 40) + after
