"""Manual edits of a run's aspects: names, merged groups, switches.

They are kept next to the checkpoint in RUN/aspects.json, which may be edited by hand:

    {"format": "llmdirect-aspects", "version": 1, "model": HASH of the parameters,
     "names": {"3": "strings"}, "merged": [[4, 7]], "off": [2]}
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import read_json, write_atomic
from llmdirect.common.types import Json

FORMAT, VERSION = "llmdirect-aspects", 1
FILE = "aspects.json"
MAX_FACTOR = 1000
"""Largest factor of an interest; far larger ones are no numbers in float32."""


@dataclass(frozen=True)
class AspectEdits:
    """Names, groups and switches of A aspects; an edit of one aspect of a group holds for the whole group."""

    names: Mapping[int, str] = field(default_factory=dict)
    merged: tuple[tuple[int, ...], ...] = ()
    """Disjoint groups of two and more, each ascending."""
    off: frozenset[int] = frozenset()
    """Aspects that are switched off."""

    @classmethod
    def read(cls, run: Path, weights_hash: str, aspects: int) -> "AspectEdits":
        """Read RUN/aspects.json; no edits where there is none.

        Parameters
        ----------
        weights_hash
            Hash of the run's parameters.
        aspects
            Number A of aspects.

        Raises
        ------
        DataError
            If the file is damaged.
        MismatchError
            If it is about the aspects of other parameters.
        """
        path = run / FILE
        if not path.exists():
            return cls()
        reset = f"run `llmdirect aspects {run}` with `reset=True`"
        try:
            content = read_json(path)
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
            edited_hash = str(content["model"])
            edits = cls().rename({int(aspect): str(name) for aspect, name in content["names"].items()})
            for group in content["merged"]:
                edits = edits.merge([int(aspect) for aspect in group])
            edits = edits.switch(off=[int(aspect) for aspect in content["off"]])
            edits.check(aspects)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); correct it, or to discard it {reset}") from None
        if edited_hash != weights_hash:
            raise MismatchError(
                f"{path}: is about the aspects of other parameters, the run was trained again since; "
                f"to discard it {reset}"
            )
        return edits

    def write(self, run: Path, weights_hash: str) -> None:
        """Replace RUN/aspects.json."""
        content: Json = {
            "format": FORMAT,
            "version": VERSION,
            "model": weights_hash,
            "names": {str(aspect): name for aspect, name in sorted(self.names.items())},
            "merged": [list(group) for group in self.merged],
            "off": sorted(self.off),
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_atomic(run / FILE, lambda file: file.write(text.encode()))

    def check(self, aspects: int) -> None:
        """Raise ValueError for an aspect that is not below `aspects`."""
        members = (member for group in self.merged for member in group)
        for aspect in sorted({*self.names, *self.off, *members}):
            _check_number(aspect, aspects)

    def group(self, aspect: int) -> tuple[int, ...]:
        """Aspects merged with this one, itself included, in ascending order."""
        return next((group for group in self.merged if aspect in group), (aspect,))

    def rename(self, names: Mapping[int, str]) -> "AspectEdits":
        """Edits with other names; an empty name restores the top words."""
        merged = {**self.names, **{aspect: name.strip() for aspect, name in names.items()}}
        return replace(self, names={aspect: name for aspect, name in merged.items() if name})

    def merge(self, aspects: Sequence[int]) -> "AspectEdits":
        """Edits with these aspects, and their groups, as one group; ValueError for fewer than two."""
        if len(set(aspects)) < 2:
            raise ValueError(f"{list(aspects)}: two aspects or more make one")
        union = {member for aspect in aspects for member in self.group(aspect)}
        others = [group for group in self.merged if not union & set(group)]
        return replace(self, merged=tuple(sorted([*others, tuple(sorted(union))])))

    def split(self, aspects: Sequence[int]) -> "AspectEdits":
        """Edits without the groups that hold one of these aspects; ValueError for one in no group."""
        for aspect in aspects:
            if len(self.group(aspect)) == 1:
                raise ValueError(f"aspect {aspect} is not merged with another one, so it cannot be split off")
        return replace(self, merged=tuple(group for group in self.merged if not set(aspects) & set(group)))

    def switch(self, *, off: Sequence[int] = (), on: Sequence[int] = ()) -> "AspectEdits":
        """Edits with aspects switched off, and others on again; ValueError for one that was not off."""
        for aspect in on:
            if aspect not in self.off:
                raise ValueError(f"aspect {aspect} is not switched off, so it cannot be switched on")
        return replace(self, off=(self.off | set(off)) - set(on))

    def factors(self, aspects: int, interests: Mapping[int, float] | None = None) -> NDArray[np.float64]:
        """Factor float64 [A] of each interest: 0 where the aspect is off, else that of its group, or 1.

        Parameters
        ----------
        interests
            Aspect -> factor.

        Raises
        ------
        ValueError
            For an aspect that does not exist, a factor that is not from 0 to `MAX_FACTOR`, and different
            factors of one merged group.
        """
        factors, changed = np.ones(aspects), dict[int, int]()
        for aspect, factor in (interests or {}).items():
            _check_number(aspect, aspects)
            if not 0 <= factor <= MAX_FACTOR:
                raise ValueError(
                    f"interest {aspect} times {factor}: a factor is 0 or above, {MAX_FACTOR} at most"
                )
            first = changed.setdefault(self.group(aspect)[0], aspect)
            if factors[first] != factor and first != aspect:
                raise ValueError(
                    f"interests {first} and {aspect}: the aspects are merged; change one of them"
                )
            factors[list(self.group(aspect))] = factor
        factors[[member for aspect in self.off for member in self.group(aspect)]] = 0.0
        return factors

    def named(self, words: Sequence[str]) -> list[str]:
        """Name of each aspect: the first given to its group, else the words of the group's first aspect.

        words: names of the aspects without edits.
        """
        names = []
        for aspect in range(len(words)):
            group = self.group(aspect)
            name = next((self.names[member] for member in group if member in self.names), None)
            names.append(name or words[group[0]])
        return names

    def combined(self, values: Sequence[Any]) -> dict[int, Any]:
        """Sums of the values [A] by group: first aspect of the group -> sum."""
        sums: dict[int, Any] = {}
        for aspect, value in enumerate(values):
            first = self.group(aspect)[0]
            sums[first] = sums[first] + value if first in sums else value
        return sums


def _check_number(aspect: int, aspects: int) -> None:
    if not 0 <= aspect < aspects:
        raise ValueError(f"there is no aspect {aspect}, they go from 0 to {aspects - 1}")
