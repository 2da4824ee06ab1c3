"""Known formats of review files: the field of each role."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from llmdirect.common.errors import DataError

ROLES: Final = ("user", "item", "text", "rating", "time", "summary")
_REQUIRED: Final = ("user", "item", "text")


@dataclass(frozen=True)
class ReviewFormat:
    """Known format of review files."""

    name: str
    fields: Mapping[str, tuple[str, ...]]
    """Possible field names of each role, in the order of preference."""
    markers: frozenset[str] = field(default=frozenset())
    """Fields of which at least one must be present, if there are any."""
    text_optional: bool = False
    """Whether the text field is left out of reviews without text."""

    def matches(self, names: Sequence[str]) -> bool:
        """Whether the field names of a file contain a marker; True for a format without markers."""
        return not self.markers or bool(self.markers & set(names))

    def select(self, names: Sequence[str]) -> dict[str, str]:
        """Field of each role, of the field names of a file."""
        selected = {
            role: next((name for name in options if name in names), None)
            for role, options in self.fields.items()
        }
        return {role: name for role, name in selected.items() if name is not None}


_AMAZON: Final = {
    "user": ("reviewerID",),
    "item": ("asin",),
    "text": ("reviewText",),
    "rating": ("overall",),
    "time": ("unixReviewTime",),
    "summary": ("summary",),
}
FORMATS: Final = (
    ReviewFormat("amazon-2018", _AMAZON, frozenset({"verified", "vote", "style", "image"}), True),
    ReviewFormat("amazon-2014", _AMAZON),
    ReviewFormat(
        "amazon-2023",
        {
            "user": ("user_id",),
            "item": ("parent_asin", "asin"),
            "text": ("text",),
            "rating": ("rating",),
            "time": ("timestamp",),
            "summary": ("title",),
        },
    ),
    ReviewFormat(
        "yelp",
        {
            "user": ("user_id",),
            "item": ("business_id",),
            "text": ("text",),
            "rating": ("stars",),
            "time": ("date",),
        },
    ),
    ReviewFormat(
        "plain",
        {
            "user": ("user", "user_id"),
            "item": ("item", "item_id"),
            "text": ("text",),
            "rating": ("rating",),
            "time": ("time", "timestamp"),
            "summary": ("summary",),
        },
    ),
)


@dataclass(frozen=True)
class Layout:
    """Layout of a review file."""

    name: str
    """Name of the format, "columns" if the user named all fields."""
    fields: dict[str, str]
    """Field of each role."""
    text_optional: bool
    """Whether reviews may lack the text field."""


def choose_layout(
    path: Path, names: Sequence[str], columns: Mapping[str, str] | None, with_summary: bool
) -> Layout:
    """Choose the first known format that fits the field names of a file.

    Parameters
    ----------
    path
        The file, for errors.
    names
        Its field names.
    columns
        Field of each role, which takes precedence over known formats.
    with_summary
        Whether the summary is needed.

    Raises
    ------
    ValueError
        If a role is unknown.
    DataError
        If a named field is missing, or the field of a required role is not known.
    """
    columns = dict(columns or {})
    if unknown := [role for role in columns if role not in ROLES]:
        raise ValueError(f"`columns`: unknown role {unknown[0]!r}; the roles are {', '.join(ROLES)}")
    for role, name in columns.items():
        if name not in names:
            raise DataError(
                f"{path}: no field {name!r} (`columns={{{role!r}: {name!r}}}`); found: {_field_list(names)}"
            )
    format_name, text_optional = "columns", False
    fields = columns
    if not set(_REQUIRED) <= set(columns):
        best, fields = max(
            ((known, known.select(names) | columns) for known in FORMATS if known.matches(names)),
            key=lambda candidate: sum(role in candidate[1] for role in _REQUIRED),  # the first of the best
        )
        format_name, text_optional = best.name, best.text_optional
    if missing := [role for role in _REQUIRED if role not in fields]:
        raise DataError(
            f"{path}: not a known review format, cannot tell the {', '.join(missing)} field; "
            f"found: {_field_list(names)}. Run `llmdirect prepare` with "
            '`columns={"user": "FIELD", "item": "FIELD", "text": "FIELD"}`; more roles: rating, time, summary'
        )
    if with_summary and "summary" not in fields:
        raise DataError(
            f"{path}: `with_summary`, but no summary field is known; found: {_field_list(names)}. "
            'Name it: `columns={"summary": "FIELD"}`'
        )
    if not with_summary:
        fields.pop("summary", None)
    return Layout(format_name, fields, text_optional)


def parse_columns(text: str) -> dict[str, str]:
    """Parse "user=user_id,item=book_id"; a pair with a comma in the field name is quoted.

    Returns
    -------
    Field of each role.

    Raises
    ------
    ValueError
        If the text is not of that form, or a role is repeated.

    Examples
    --------
    >>> parse_columns('user=user_id,"item=last, first"')
    {'user': 'user_id', 'item': 'last, first'}
    """
    columns: dict[str, str] = {}
    for part in next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True)):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not (role and equals and name):
            raise ValueError(
                f"`columns`: {part!r} is not ROLE=FIELD; example: user=user_id,item=book_id,text=review"
            )
        if role in columns:
            raise ValueError(f"`columns`: {role} is given twice")
        columns[role] = name
    return columns


def _field_list(names: Sequence[str]) -> str:
    readable = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) for name in names[:40]]
    shown = [name if len(name) <= 60 else name[:57] + "..." for name in readable]
    return ", ".join(shown) + (f" and {len(names) - 40} more" if len(names) > 40 else "") or "nothing"
