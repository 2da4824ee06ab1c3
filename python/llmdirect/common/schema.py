"""Schemas of manifests: types and bounds of what a file states, checked before anything relies on it.

Schemas are classes of msgspec, which `llmdirect --help` and `import llmdirect` do not import.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from llmdirect.common.errors import DataError

Count = Annotated[int, Meta(ge=0, le=1 << 53)]
"""A number of things, or of bytes."""
_HASH: Final = r"\A[0-9a-f]{32}\Z"
_FILE_NAME: Final = r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}\Z"
Hash = Annotated[str, Meta(pattern=_HASH)]
"""A content hash."""
FileName = Annotated[str, Meta(pattern=_FILE_NAME)]
"""Name of a file in the folder of the manifest."""

_AT: Final = re.compile(r"^(?P<expected>.*?)(?: - at `(?P<at>[^`]*)`)?$", re.DOTALL)


_PATTERNS: Final = {_HASH: "a hash of 32 hex digits", _FILE_NAME: "the plain name of a file in this folder"}


class FileEntry(Struct, forbid_unknown_fields=True):
    """A data file."""

    name: FileName
    bytes: Count
    hash: Hash


def check_schema(path: Path, content: Any, schema: type, cure: str) -> None:
    """Check the content of a file against a schema.

    Parameters
    ----------
    path
        The file.
    content
        What JSON holds.
    schema
        Class of msgspec.
    cure
        What to do, such as "run `llmdirect prepare` again".

    Raises
    ------
    DataError
        For the first value that is not as the schema has it; the message has the file, the key, what is
        expected, and the cure.
    """
    try:
        msgspec.convert(content, schema)
    except msgspec.ValidationError as error:
        match = _AT.match(str(error))
        assert match is not None
        expected, at = match["expected"], (match["at"] or "$").removeprefix("$").removeprefix(".")
        for pattern, words in _PATTERNS.items():
            expected = expected.replace(f"`str` matching regex {pattern!r}", words)
        key = f"`{at}`: " if at else ""
        raise DataError(f"{path}: {key}{expected[:1].lower()}{expected[1:]}; {cure}") from None
