"""Raw sources of records: files, folders, patterns, pipes, and tables in memory."""

import glob
import hashlib
import logging
import stat
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias

import polars as pl

from llmdirect.common.errors import DataError
from llmdirect.common.files import MANIFEST, file_digest
from llmdirect.common.progress import SILENT
from llmdirect.data.readers.delimited_file import DelimitedFile
from llmdirect.data.readers.dialects import QUOTES
from llmdirect.data.readers.encodings import check_encoding
from llmdirect.data.readers.formats import field_list, plain_name
from llmdirect.data.readers.json_file import JsonFile
from llmdirect.data.readers.raw_files import detect_format, format_suffix
from llmdirect.data.readers.record_file import RecordFile
from llmdirect.data.readers.values import parse_numbers, parse_times

_log = logging.getLogger(__name__)
Source: TypeAlias = Any
"""Path, "-" for standard input, pattern, or several of these; or a table in memory: pandas, Polars, Arrow,
Hugging Face datasets."""
_EXPECTED: Final = "expected a file of JSON lines, CSV, Parquet or Feather"
_SUFFIXES: Final = (
    *("", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".dat", ".inter", ".item"),
    *(".parquet", ".feather", ".arrow", ".ipc"),
)
_OPEN_FILES: Final = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
"""Where a shell puts the pipe of `<(command)`."""
_SAMPLED_RECORDS: Final = 20
_MARKER_FILES: Final = ("_SUCCESS", "_metadata", "_common_metadata")


class SpooledPipe(NamedTuple):
    """Temporary file with what came through a pipe, which must be read more than once."""

    file: "IO[bytes]"
    """Lives as long as the source."""
    path: Path
    """Of the file."""
    label: str
    """Name of the pipe, for messages."""


@dataclass(frozen=True, eq=False)
class RawSource:
    """Where raw records come from."""

    label: str
    """Its name, for messages."""
    paths: list[Path]
    """Files, in the order in which they are read; none for a table in memory."""
    table: Any = None
    """Arrow table in memory."""
    spooled: "list[SpooledPipe]" = field(default_factory=list)
    """What came through pipes."""

    def __post_init__(self) -> None:
        for pipe in self.spooled:
            weakref.finalize(self, pipe.file.close)

    def label_of(self, path: Path) -> str | None:
        """Name that the user gave to the pipe of a temporary file; None for other files."""
        return next((pipe.label for pipe in self.spooled if pipe.path == path), None)

    def digest(self) -> str | list[str]:
        """Hash of the bytes; a list of several."""
        if self.table is not None:
            return _table_digest(self.table)
        digests = [file_digest(path) for path in self.paths]
        return digests[0] if len(digests) == 1 else digests

    def open(
        self,
        *,
        encoding: str | None = None,
        quote: str | None = None,
        columns: Mapping[str, str] | None = None,
        candidates: Sequence[str] = (),
    ) -> list[RecordFile]:
        """Open all files.

        Parameters
        ----------
        encoding
            Encoding of text files; by default UTF-8, or that of a byte order mark.
        quote
            Quotes of delimited text: one of `dialects.QUOTES`; by default found in each file.
        columns
            Field of each role. Where one is a number that is no field name, files have no header.
        candidates
            Usual field names, which are looked for in all of a JSON file, besides those of `columns`.

        Raises
        ------
        OSError
            If a file cannot be read.
        DataError
            If a file is damaged or of an unknown kind, or has a header where `columns` has numbers.
        """
        files: list[RecordFile] = []
        if self.table is not None:
            from llmdirect.data.readers.arrow_table import ArrowTable

            files.append(ArrowTable.in_memory(self.table, self.label))
        named = [name for name in (columns or {}).values() if name]
        for path in self.paths:
            label = self.label_of(path)
            format = detect_format(path, encoding, label)
            if format in ("parquet", "feather"):
                from llmdirect.data.readers.arrow_table import ArrowTable  # its library is slow to import

                read = ArrowTable.of_parquet if format == "parquet" else ArrowTable.of_feather
                files.append(read(path, label or str(path)))
            elif format == "json":
                names = dict.fromkeys((*named, *candidates))
                files.append(JsonFile(path, label=label, encoding=encoding, candidates=list(names)))
            else:
                file = DelimitedFile(path, label=label, encoding=encoding, quote=quote)
                if any(name.isdecimal() and name not in file.names for name in named):
                    file = DelimitedFile(path, label=label, encoding=encoding, quote=quote, header=False)
                    _check_no_header(file, columns or {}, candidates)
                files.append(file)
        return files


def _check_no_header(file: DelimitedFile, columns: Mapping[str, str], usual_names: Sequence[str]) -> None:
    """Check that the first record of a file without names is no header.

    It is one where its values are usual names of fields, or where its rating or time is none, but those of
    the next records are.
    """
    fields = {role: name for role, name in columns.items() if name in file.names}
    records = islice(file.records(list(dict.fromkeys(fields.values())), SILENT), _SAMPLED_RECORDS)
    numbered = [(number, record) for number, record in records if isinstance(record, dict)]
    if not numbered:
        return
    (number, first), rows = numbered[0], [record for _, record in numbered]
    usual = {plain_name(name) for name in usual_names}
    named = [role for role, name in fields.items() if plain_name(first[name].strip()) in usual]
    if len(named) < 2 and not {"user", "item"} & set(named) and not _has_later_numbers(rows, fields):
        return
    values = field_list([first[name] for name in fields.values()])
    raise DataError(
        f"{file.label}: line {number} looks like a header ({values}); name the columns instead of numbers"
    )


def _has_later_numbers(rows: Sequence[Mapping[str, str]], fields: Mapping[str, str]) -> bool:
    """Whether a rating, weight or time of the first row is none, but those of all other rows are."""
    for role in {"rating", "weight", "time"} & fields.keys():
        values = pl.Series([row[fields[role]] for row in rows], dtype=pl.String)
        text, parsed = parse_times(values)[:2] if role == "time" else parse_numbers(values)
        is_bad = text.is_not_null() & parsed.is_null()
        if is_bad[0] and not is_bad[1:].any() and parsed.null_count() < len(parsed):
            return True
    return False


def check_text_options(sources: Sequence[RawSource], encoding: str | None, quote: str | None) -> None:
    """Check the options of text files.

    Raises
    ------
    ValueError
        If an option is unknown, or no file of the sources needs it.
    """
    check_encoding(encoding)
    if quote is not None and quote not in QUOTES:
        raise ValueError(f"`quote`: {quote!r} is unknown; one of {', '.join(QUOTES)}")
    if encoding is None and quote is None:
        return
    formats = {
        detect_format(path, encoding, source.label_of(path)) for source in sources for path in source.paths
    }
    if quote is not None and "csv" not in formats:
        raise ValueError("`quote`: no file of delimited text is read")
    if encoding is not None and not formats & {"csv", "json"}:
        raise ValueError("`encoding`: no text file is read")


def resolve_source(source: Source) -> RawSource:
    """Find the files or the table of a source.

    Parameters
    ----------
    source
        As `Source`; one that is resolved already is returned.

    Raises
    ------
    FileNotFoundError
        If there is no such file, no file of a pattern, or an empty folder.
    DataError
        If a folder is a prepared dataset, a file is a named pipe, or the source is neither path nor table.
    """
    if isinstance(source, RawSource):
        return source
    if isinstance(source, str | Path):
        source = [source]
    if not isinstance(source, Sequence) or not all(isinstance(part, str | Path) for part in source):
        return RawSource("the table", [], table=_arrow_table(source))
    if not source:
        raise FileNotFoundError(f"no file of reviews; {_EXPECTED}")
    paths: list[Path] = []
    spooled: list[SpooledPipe] = []
    for part in source:
        if str(part) == "-":
            spooled.append(_spool(sys.stdin.buffer, "standard input"))
            paths.append(spooled[-1].path)
            continue
        for path in _expand(str(part)):
            if stat.S_ISFIFO(path.stat().st_mode):
                if not str(path).startswith(_OPEN_FILES):  # a pipe without a writer would wait for ever
                    raise DataError(f'{path}: a named pipe; read it as standard input, "-"')
                with path.open("rb") as pipe:
                    spooled.append(_spool(pipe, str(part)))
                paths.append(spooled[-1].path)
            else:
                paths.append(path)
    label = ", ".join("standard input" if str(part) == "-" else str(part) for part in source)
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"{label}: a file is named twice")
    return RawSource(label, paths, spooled=spooled)


def _expand(text: str) -> Iterable[Path]:
    if not text:  # would be the working directory
        raise FileNotFoundError(f"the name of a file is empty; {_EXPECTED}")
    path = Path(text)
    if path.is_dir():
        if (path / MANIFEST).exists():
            raise DataError(f"{path}: a folder with a {MANIFEST}, as of a prepared dataset; give raw files")
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file, path))
        data = [file for file in files if format_suffix(file) in _SUFFIXES and file.stat().st_size]
        if not data:
            raise FileNotFoundError(f"{path}: a folder without data files; {_EXPECTED}")
        if len(data) < len(files):
            others = ", ".join(file.name for file in files if file not in data)
            _log.warning("%s: left out, as empty or no data files by their names: %s", path, others)
        return data
    if path.exists():
        return [path]
    if matches := sorted(map(Path, glob.glob(text, recursive=True))):
        return [file for file in matches if file.is_file()]
    raise FileNotFoundError(f"{path}: not found; {_EXPECTED}")


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is hidden, a marker of Spark, or part of a dataset or run."""
    parts = file.relative_to(folder).parts
    inside = [folder.joinpath(*parts[:depth]) for depth in range(1, len(parts))]
    return (
        any(part.startswith(".") for part in parts)
        or file.name in _MARKER_FILES
        or any((parent / MANIFEST).exists() for parent in inside)
    )


def _spool(pipe: IO[bytes], label: str) -> SpooledPipe:
    """Write the content of a pipe to a temporary file."""
    file = tempfile.NamedTemporaryFile(prefix="llmdirect-")  # noqa: SIM115  # lives as long as the source
    while data := pipe.read(1 << 20):
        file.write(data)
    file.flush()
    return SpooledPipe(file, Path(file.name), label)


def _arrow_table(table: Any) -> Any:
    """Arrow table of a table in memory."""
    import pyarrow as pa

    if hasattr(table, "collect") and not hasattr(table, "to_arrow"):  # a lazy frame of Polars
        table = table.collect()
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "to_arrow") and hasattr(table, "columns"):  # Polars
        return table.to_arrow()
    if hasattr(table, "with_format"):  # Hugging Face, whose `data` ignores selections
        return table.with_format("arrow")[:]
    if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas
        for name, count in Counter(map(str, table.columns)).items():
            if count > 1:
                raise DataError(f"the table: column {name!r} is there {count} times")
        columns = {str(name): _pandas_column(table[name]) for name in table.columns}
        return pa.table(columns)
    if hasattr(table, "__arrow_c_stream__") and not hasattr(table, "name"):  # a series has one
        return pa.table(table)
    raise DataError(
        f"{type(table).__name__}: expected a path or a table (pandas, Polars, Arrow, Hugging Face datasets)"
    )


def _pandas_column(column: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # texts beside numbers, huge numbers
        missing = column.isna()
        return pa.array([None if gone else str(value) for value, gone in zip(column, missing, strict=True)])


def _table_digest(table: Any) -> str:
    """Hash of a table's columns and values."""
    plain = table.replace_schema_metadata(None).combine_chunks()
    state = hashlib.blake2b(plain.schema.serialize(), digest_size=16)
    for batch in plain.to_batches():
        state.update(batch.serialize())
    return state.hexdigest()
