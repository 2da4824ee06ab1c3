"""What somebody has decided about a run's aspects: their names, which ones are one, which do not count.

Kept beside the checkpoint, in RUN/aspects.json, which may be edited by hand:

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
from llmdirect.common.files import write_atomic
from llmdirect.common.types import Json

FORMAT, VERSION = "llmdirect-aspects", 1
FILE = "aspects.json"


@dataclass(frozen=True)
class AspectEdits:
    """Names, groups and switches of A aspects. Whatever is decided of one of a group holds for all of it."""

    names: Mapping[int, str] = field(default_factory=dict)
    merged: tuple[tuple[int, ...], ...] = ()
    """Groups of two and more, each ascending; no aspect is in two of them."""
    off: frozenset[int] = frozenset()

    @classmethod
    def read(cls, run: Path, model: str, aspects: int) -> "AspectEdits":
        """What RUN/aspects.json says; nothing where there is none.

        model: hash of the parameters whose aspects they are, `aspects` of them. Raises DataError for a
        damaged file, MismatchError for one about other parameters.
        """
        path = run / FILE
        if not path.exists():
            return cls()
        cure = f"mend it, or forget it with `llmdirect aspects {run} --reset`"
        try:
            content = json.loads(path.read_bytes())
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
            made_for = str(content["model"])
            edits = cls().rename({int(aspect): str(name) for aspect, name in content["names"].items()})
            for group in content["merged"]:
                edits = edits.merge([int(aspect) for aspect in group])
            edits = edits.switch(off=[int(aspect) for aspect in content["off"]])
            edits.check(aspects)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); {cure}") from None
        if made_for != model:
            raise MismatchError(
                f"{path}: is about the aspects of other parameters, the run was trained again since; forget "
                f"it with `llmdirect aspects {run} --reset`"
            )
        return edits

    def write(self, run: Path, model: str) -> None:
        """Replaces RUN/aspects.json."""
        content: Json = {
            "format": FORMAT,
            "version": VERSION,
            "model": model,
            "names": {str(aspect): name for aspect, name in sorted(self.names.items())},
            "merged": [list(group) for group in self.merged],
            "off": sorted(self.off),
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_atomic(run / FILE, lambda file: file.write(text.encode()))

    def check(self, aspects: int) -> None:
        """ValueError naming an aspect that is not one of the `aspects`."""
        for aspect in sorted({*self.names, *self.off, *(one for group in self.merged for one in group)}):
            _check_number(aspect, aspects)

    def group(self, aspect: int) -> tuple[int, ...]:
        """The aspects that are one with this one, itself among them; the first stands for all."""
        return next((group for group in self.merged if aspect in group), (aspect,))

    def rename(self, names: Mapping[int, str]) -> "AspectEdits":
        """With these names; an empty one gives an aspect its words back."""
        kept = {**self.names, **{aspect: name.strip() for aspect, name in names.items()}}
        return replace(self, names={aspect: name for aspect, name in kept.items() if name})

    def merge(self, aspects: Sequence[int]) -> "AspectEdits":
        """With these, and what each was one with, as one. ValueError for fewer than two."""
        if len(set(aspects)) < 2:
            raise ValueError(f"{list(aspects)}: two aspects or more make one")
        whole = {one for aspect in aspects for one in self.group(aspect)}
        others = [group for group in self.merged if not whole & set(group)]
        return replace(self, merged=tuple(sorted([*others, tuple(sorted(whole))])))

    def split(self, aspects: Sequence[int]) -> "AspectEdits":
        """With each of the groups that hold one of these taken apart."""
        return replace(self, merged=tuple(group for group in self.merged if not set(aspects) & set(group)))

    def switch(self, *, off: Sequence[int] = (), on: Sequence[int] = ()) -> "AspectEdits":
        """With these switched off, and those on again."""
        return replace(self, off=(self.off | set(off)) - set(on))

    def factors(self, aspects: int, interests: Mapping[int, float] | None = None) -> NDArray[np.float64]:
        """float64 [A]: what each interest is multiplied by: 0 where it is off, as `interests` asks elsewhere.

        ValueError for an aspect that is none, and a factor that is negative or not finite.
        """
        factors = np.ones(aspects)
        for aspect, factor in (interests or {}).items():
            _check_number(aspect, aspects)
            if not (np.isfinite(factor) and factor >= 0):
                raise ValueError(f"interest {aspect} times {factor}: a factor is 0 or above")
            factors[list(self.group(aspect))] = factor
        factors[[one for aspect in self.off for one in self.group(aspect)]] = 0.0
        return factors

    def named(self, words: Sequence[str]) -> list[str]:
        """A name for each aspect: the one that it, or the first of its group that has one, was given.

        words: what each is called otherwise.
        """
        named = []
        for aspect in range(len(words)):
            group = self.group(aspect)
            given = next((self.names[one] for one in group if one in self.names), None)
            named.append(given or words[group[0]])
        return named

    def combined(self, values: Sequence[Any]) -> dict[int, Any]:
        """Values of A aspects added up by group: first of the group -> sum."""
        sums: dict[int, Any] = {}
        for aspect, value in enumerate(values):
            first = self.group(aspect)[0]
            sums[first] = sums[first] + value if first in sums else value
        return sums


def _check_number(aspect: int, aspects: int) -> None:
    if not 0 <= aspect < aspects:
        raise ValueError(f"there is no aspect {aspect}, they go from 0 to {aspects - 1}")
