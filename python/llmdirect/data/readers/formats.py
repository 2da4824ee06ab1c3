"""Known formats of review files: the field of each role."""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from llmdirect.common.errors import DataError

ROLES: Final = ("user", "item", "text", "rating", "time", "summary")
"""Roles of the fields of reviews."""
INTERACTION_ROLES: Final = ("user", "item", "rating", "time", "weight")
"""Roles of the fields of interactions without text."""
WEIGHT_NAMES: Final = ("weight", "quantity", "qty", "count")
"""Usual names of the weight of an interaction."""
_REQUIRED: Final = ("user", "item", "text")
_IGNORED: Final = str.maketrans("", "", " -_")


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

    @property
    def names(self) -> set[str]:
        """Possible field names of all roles."""
        return {name for names in self.fields.values() for name in names}

    def matches(self, names: Sequence[str]) -> bool:
        """Whether the field names of a file contain a marker; True for a format without markers."""
        return not self.markers or bool(self.markers & set(names))

    def select(self, names: Sequence[str]) -> dict[str, str]:
        """Field of each role, of the field names of a file; case, blanks, "-" and "_" do not matter."""
        plain = {plain_name(name): name for name in reversed(names)}
        selected = {
            role: next(
                (
                    name if name in names else plain[plain_name(name)]
                    for name in options
                    if plain_name(name) in plain
                ),
                None,
            )
            for role, options in self.fields.items()
        }
        return {role: name for role, name in selected.items() if name is not None}

    def is_evident(self, names: Sequence[str]) -> bool:
        """Whether the field names of a file contain a marker, or a name that no other format has."""
        others = (other for other in FORMATS if other.fields != self.fields)
        own = self.names.difference(*(other.names for other in others))
        return bool((self.markers | own) & set(names))


def plain_name(name: str) -> str:
    """Field name in small letters, without blanks, "-" and "_"."""
    return name.casefold().translate(_IGNORED)


def _format(name: str, /, **fields: str) -> ReviewFormat:
    """Format whose field names are separated by blanks."""
    return ReviewFormat(name, {role: tuple(names.split()) for role, names in fields.items()})


_AMAZON: Final = {
    "user": "reviewerID",
    "item": "asin",
    "text": "reviewText",
    "rating": "overall",
    "time": "unixReviewTime",
    "summary": "summary",
}
FORMATS: Final = (
    replace(
        _format("amazon-2018", **_AMAZON),
        markers=frozenset({"verified", "vote", "style", "image"}),
        text_optional=True,
    ),
    _format("amazon-2014", **_AMAZON),
    _format(
        "amazon-2023",
        user="user_id",
        item="parent_asin asin",
        text="text",
        rating="rating",
        time="timestamp",
        summary="title",
    ),
    _format("yelp", user="user_id", item="business_id", text="text", rating="stars", time="date"),
    replace(  # ratings without a text have `"text": null`
        _format("google-local", user="user_id", item="gmap_id", text="text", rating="rating", time="time"),
        markers=frozenset({"gmap_id"}),
        text_optional=True,
    ),
    _format(
        "goodreads", user="user_id", item="book_id", text="review_text", rating="rating", time="date_added"
    ),
    _format(
        "steam",
        user="username user_id",
        item="product_id app_id item_id",
        text="text review",
        rating="recommend recommended",
        time="date posted",
    ),
    _format("movielens", user="userId", item="movieId", text="tag review", rating="rating", time="timestamp"),
    _format("book-crossing", user="User-ID", item="ISBN", text="text review", rating="Book-Rating"),
    _format(
        "plain",
        user="user user_id reviewer reviewer_id customer customer_id",
        item="item item_id product product_id",
        text="text review review_text review_body comment",
        rating="rating stars score star_rating",
        time="time timestamp date review_date",
        summary="summary review_headline title",
    ),
)
KNOWN_NAMES: Final = tuple(
    dict.fromkeys(name for known in FORMATS for names in known.fields.values() for name in names)
)
"""Field names of all known formats."""


@dataclass(frozen=True)
class Layout:
    """Layout of a review file."""

    name: str
    """Name of the format; "plain" if only usual names were seen, "columns" if the user named user, item
    and text."""
    fields: dict[str, str]
    """Field of each role."""
    text_optional: bool
    """Whether reviews may lack the text field."""


def choose_interaction_layout(label: str, names: Sequence[str], columns: Mapping[str, str] | None) -> Layout:
    """Choose the fields of interactions without text, as `choose_layout` does for reviews."""
    columns = check_columns(label, names, columns, "interaction_columns", INTERACTION_ROLES)
    _check_distinct(columns, "interaction_columns")
    free = [name for name in names if name not in columns.values()]
    weight = ReviewFormat("", {"weight": WEIGHT_NAMES}).select(free)
    known = ({**weight, **known.select(free), **columns} for known in FORMATS if known.matches(names))
    candidates = [{role: fields[role] for role in INTERACTION_ROLES if fields.get(role)} for fields in known]
    fields = max(candidates, key=lambda fields: ("user" in fields and "item" in fields, len(fields)))
    if missing := [role for role in ("user", "item") if role not in fields]:
        raise DataError(
            f"{label}: cannot tell the {', '.join(missing)} field; found: {field_list(names)}. Name it: "
            '`interaction_columns={"user": "FIELD", "item": "FIELD"}`; more roles: rating, time, weight'
        )
    return Layout("interactions", fields, text_optional=True)


def choose_layout(
    label: str,
    names: Sequence[str],
    columns: Mapping[str, str] | None,
    with_summary: bool,
    split_column: str | None = None,
) -> Layout:
    """Choose the known format that fills the most roles from the field names of a file.

    Parameters
    ----------
    label
        The file, for errors.
    names
        Its field names.
    columns
        Field of each role, which takes precedence over known formats; "" for a role that is not used.
    with_summary
        Whether the summary is needed.
    split_column
        Field of the role "split", if there is one.

    Raises
    ------
    ValueError
        If a role is unknown, or two roles have one field.
    DataError
        If a named field is missing, or the field of a required role is not known.
    """
    columns = check_columns(label, names, columns, "columns", ROLES)
    _check_distinct(columns, "columns")

    def num_filled(candidate: tuple[ReviewFormat, dict[str, str]]) -> tuple[int, int]:
        filled = candidate[1]
        return sum(role in filled for role in _REQUIRED), len(filled)

    free = [name for name in names if name not in columns.values()]
    best, fields = max(
        ((known, known.select(free) | columns) for known in FORMATS if known.matches(names)),
        key=num_filled,  # the first of the best
    )
    fields = {role: name for role, name in fields.items() if name}
    format_name = best.name if best.is_evident(names) else "plain"
    if set(_REQUIRED) <= set(columns):
        format_name = "columns"
    if missing := [role for role in _REQUIRED if role not in fields]:
        raise DataError(
            f"{label}: not a known review format, cannot tell the {', '.join(missing)} field; "
            f"found: {field_list(names)}. Run `llmdirect prepare` with "
            '`columns={"user": "FIELD", "item": "FIELD", "text": "FIELD"}`; more roles: rating, time, '
            "summary. Give a file without texts as `interactions`"
        )
    if with_summary and "summary" not in fields:
        raise DataError(
            f"{label}: `with_summary`, but no summary field is known; found: {field_list(names)}. "
            'Name it: `columns={"summary": "FIELD"}`'
        )
    if not with_summary:
        fields.pop("summary", None)
    if split_column is not None:
        if split_column not in names:
            raise DataError(
                f"{label}: no field {split_column!r} (`split_column`); found: {field_list(names)}"
            )
        fields["split"] = split_column
    return Layout(format_name, fields, best.text_optional and "text" not in columns)


def named_fields(columns: Mapping[str, object] | None) -> dict[str, str]:
    """Field names as texts: numbers are columns without a name, None and "" a role that is left out."""
    return {role: "" if name is None else str(name) for role, name in (columns or {}).items()}


def check_columns(
    label: str,
    names: Sequence[str],
    columns: Mapping[str, str] | None,
    setting: str,
    roles: Collection[str],
) -> dict[str, str]:
    """The named columns, after a check that their roles are known and the file has their fields.

    Raises
    ------
    ValueError
        If a role is unknown.
    DataError
        If the file lacks a field.
    """
    for role, name in (columns or {}).items():
        if role not in roles:
            raise ValueError(f"`{setting}`: unknown role {role!r}; the roles are {', '.join(roles)}")
        if name and name not in names:
            raise DataError(
                f"{label}: no field {name!r} (`{setting}={{{role!r}: {name!r}}}`); found: {field_list(names)}"
            )
    return dict(columns or {})


def _check_distinct(columns: Mapping[str, str], setting: str) -> None:
    role_of: dict[str, str] = {}
    for role, name in columns.items():
        if name and (other := role_of.setdefault(name, role)) != role:
            raise ValueError(
                f"`{setting}`: {other} and {role} are both {name!r}; give each role a field of its own"
            )


def parse_columns(text: str | None, setting: str = "columns") -> dict[str, str] | None:
    """Parse "user=user_id,item=book_id"; "time=" leaves a role out.

    A pair with a comma in the field name is quoted.

    Returns
    -------
    Field of each role; None for None.

    Raises
    ------
    ValueError
        If the text is not of that form, or a role is repeated.

    Examples
    --------
    >>> parse_columns('user=user_id,"item=last, first"')
    {'user': 'user_id', 'item': 'last, first'}
    """
    if text is None:
        return None
    columns: dict[str, str] = {}
    for part in next(csv.reader([" ".join(text.splitlines())], skipinitialspace=True)):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if not (role and equals):
            raise ValueError(
                f"`{setting}`: {part!r} is not ROLE=FIELD; example: user=user_id,item=book_id,text=review"
            )
        if role in columns:
            raise ValueError(f"`{setting}`: {role} is given twice")
        columns[role] = name
    return columns


def field_list(names: Sequence[str]) -> str:
    """The first field names, for messages."""
    readable = ["".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) for name in names[:40]]
    shown = [(name if len(name) <= 60 else name[:57] + "...") or "(no name)" for name in readable]
    return ", ".join(shown) + (f" and {len(names) - 40} more" if len(names) > 40 else "") or "nothing"
