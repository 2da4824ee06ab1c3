"""Which field of a raw review file plays which role."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from llmdirect.common.errors import DataError

ROLES: Final = ("user", "item", "text", "rating", "time", "summary")
REQUIRED: Final = ("user", "item", "text")


@dataclass(frozen=True)
class ReviewFormat:
    """A known layout: for each role the names it may have, best first."""

    name: str
    fields: Mapping[str, tuple[str, ...]]
    marks: frozenset[str] = field(default=frozenset())  # at least one of these must be there too
    text_may_be_absent: bool = False  # this layout leaves the field out where nothing was written

    def marked(self, found: Sequence[str]) -> bool:
        """Whether a mark of the layout is among the fields found, or it needs none."""
        return not self.marks or bool(self.marks & set(found))

    def present(self, found: Sequence[str]) -> dict[str, str]:
        """The field of each role that is among those found."""
        named = {
            role: next((name for name in names if name in found), None) for role, names in self.fields.items()
        }
        return {role: name for role, name in named.items() if name is not None}


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
    """What was decided for one file: role -> field name."""

    name: str
    fields: dict[str, str]
    text_may_be_absent: bool


def choose_layout(
    path: Path, found: Sequence[str], columns: Mapping[str, str] | None, with_summary: bool
) -> Layout:
    """Picks the first known layout that fits the fields found; `columns` (role -> field) goes before it.

    Raises ValueError for an unknown role, DataError where a named field is not in the file or the roles
    user, item and text are not all known: the message lists the fields found and the flag to type.
    """
    columns = dict(columns or {})
    if unknown := [role for role in columns if role not in ROLES]:
        raise ValueError(f"--columns: unknown role {unknown[0]!r}; the roles are {', '.join(ROLES)}")
    for role, name in columns.items():
        if name not in found:
            raise DataError(f"{path}: no field {name!r} (--columns {role}={name}); found: {_listed(found)}")
    chosen, may_be_absent = "columns", False
    fields = columns
    if not set(REQUIRED) <= set(columns):
        known, fields = max(
            ((known, known.present(found) | columns) for known in FORMATS if known.marked(found)),
            key=lambda candidate: sum(role in candidate[1] for role in REQUIRED),  # the first of the best
        )
        chosen, may_be_absent = known.name, known.text_may_be_absent
    if missing := [role for role in REQUIRED if role not in fields]:
        raise DataError(
            f"{path}: not a known review format, cannot tell the {', '.join(missing)} field; "
            f"found: {_listed(found)}. Say which is which: llmdirect prepare {path} "
            "--columns user=FIELD,item=FIELD,text=FIELD[,rating=FIELD][,time=FIELD][,summary=FIELD]"
        )
    if with_summary and "summary" not in fields:
        raise DataError(
            f"{path}: --with-summary, but no summary field is known; found: {_listed(found)}. "
            "Name it: --columns summary=FIELD"
        )
    if not with_summary:
        fields.pop("summary", None)
    return Layout(chosen, fields, may_be_absent)


def parse_columns(text: str) -> dict[str, str]:
    """`user=user_id,item=book_id` as a mapping, `"user=last, first"` with a comma in the field's name.

    Raises ValueError where it is not of that form.
    """
    columns: dict[str, str] = {}
    for part in next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True)):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not (role and equals and name):
            raise ValueError(
                f"--columns: {part!r} is not ROLE=FIELD; example: user=user_id,item=book_id,text=review"
            )
        if role in columns:
            raise ValueError(f"--columns: {role} is given twice")
        columns[role] = name
    return columns


def _listed(names: Sequence[str]) -> str:
    readable = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) for name in names[:40]]
    shown = [name if len(name) <= 60 else name[:57] + "..." for name in readable]
    return ", ".join(shown) + (f" and {len(names) - 40} more" if len(names) > 40 else "") or "nothing"
