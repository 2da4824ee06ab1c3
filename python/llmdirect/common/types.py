"""JSON values, their canonical form, and results that convert to them."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

Json = dict[str, Any]
"""A JSON object."""


def canonical_json(value: Any) -> str:
    """Canonical JSON text of a value, for hashing: sorted keys, no spaces.

    Raises
    ------
    ValueError
        If the value holds NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


@dataclass(frozen=True)
class Result:
    """Base class of results: frozen dataclasses that convert to JSON."""

    def to_json(self) -> Json:
        """Field names and values; nested results are converted, paths become text."""
        return {field.name: _to_json(getattr(self, field.name)) for field in fields(self)}


def _to_json(value: Any) -> Any:
    if isinstance(value, Result):
        return value.to_json()
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value
