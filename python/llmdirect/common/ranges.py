"""Ranges of settings, declared once where a setting is declared."""

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

UNBOUNDED: Final = math.inf


@dataclass(frozen=True)
class Range:
    """Range of a number, in the annotation of a setting: `aspects: Annotated[int, Range(1, 4096)]`."""

    low: float
    high: float
    above: bool = False
    """`low` itself is outside."""
    below: bool = False
    """`high` itself is outside."""

    def __contains__(self, value: float) -> bool:
        """Whether a number is inside; NaN never is."""
        is_high_enough = value > self.low if self.above else value >= self.low
        return is_high_enough and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.above:
            return f"above {_number(self.low)}, at most {_number(self.high)}"
        return f"{_number(self.low)} to {'below ' if self.below else ''}{_number(self.high)}"


def check_range(name: str, value: Any, allowed: Range, kind: type = int) -> None:
    """Check a number that a user chose.

    Parameters
    ----------
    name
        Name of the setting, for the message.
    value
        The number.
    allowed
        Range that it must be in.
    kind
        `int` for a whole number, `float` for any.

    Raises
    ------
    ValueError
        If it is no number of this kind, or outside the range: "`aspects`: 0, expected 1 to 4096".
    """
    is_number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if not is_number or value not in allowed:
        whole = "a whole number, " if kind is int and not is_number else ""
        raise ValueError(f"`{name}`: {_shown(value)}, expected {whole}{allowed}")


def check_settings(settings: Any) -> None:
    """Check the fields of a dataclass against their annotations: types, choices and ranges.

    Raises
    ------
    ValueError
        For the first field that is not as declared; the message has its name, its value and what is expected.
    """
    config: Any = type(settings)
    for name, (kind, allowed, is_optional) in _declarations(config).items():
        value = getattr(settings, name)
        if value is None and is_optional:
            continue
        origin: Any = get_origin(kind)
        if origin is Literal:
            if not isinstance(value, str) or value not in get_args(kind):
                raise ValueError(
                    f"`{name}`: {_shown(value)}, expected one of {', '.join(map(str, get_args(kind)))}"
                )
        elif kind in (int, float):
            check_range(name, value, allowed, kind)
        elif not isinstance(value, kind):
            raise ValueError(f"`{name}`: {_shown(value)}, expected {_KINDS.get(kind, kind.__name__)}")


def check_names(settings: Mapping[str, Any], config: type) -> None:
    """Check that settings by name are fields of a dataclass.

    Raises
    ------
    ValueError
        For the first one that is not.
    """
    known = {field.name for field in fields(config)}
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(f"`{unknown[0]}`: no such setting, there are {', '.join(sorted(known))}")


_KINDS: Final = {bool: "true or false", str: "text"}
_Declaration = tuple[Any, Range, bool]


@cache
def _declarations(config: Any) -> Mapping[str, _Declaration]:
    """Kind, range and optionality of each field."""
    hints = get_type_hints(config, include_extras=True)
    return {field.name: _declaration(hints[field.name]) for field in fields(config)}


def _declaration(hint: Any) -> _Declaration:
    origin: Any = get_origin(hint)
    is_optional = origin is Union or origin is types.UnionType
    if is_optional:
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    ranges = [part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range)]
    kind = get_args(hint)[0] if ranges else hint
    return kind, ranges[0] if ranges else Range(-UNBOUNDED, UNBOUNDED), is_optional


def _number(value: float) -> str:
    """A bound, without the notation of floats where it is a whole number of few digits."""
    is_short = float(value).is_integer() and abs(value) < 1e7
    return str(int(value)) if is_short or isinstance(value, int) else f"{value:g}"


def _shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4300 digits
        return "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
