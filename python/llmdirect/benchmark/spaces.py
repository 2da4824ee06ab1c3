"""Search spaces of hyper-parameters, which grow where the best value lies at a border."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from llmdirect.common.types import Json

_NEAR = 0.05
"""Share of a range from which on a value lies at its border."""
_STEP = 0.5
"""Share of a range by which it grows."""


@dataclass(frozen=True)
class Number:
    """Range of a number."""

    low: float
    high: float
    log: bool = False
    """Whether values are drawn on a logarithmic scale."""
    integer: bool = False
    floor: float = -math.inf
    """Value that `low` never goes below; 0 is never reached on a logarithmic scale."""
    ceiling: float = math.inf
    """Value that `high` never exceeds."""

    def suggest(self, trial: Any, name: str) -> float:
        """Value of an Optuna trial."""
        if self.integer:
            return int(trial.suggest_int(name, int(self.low), int(self.high), log=self.log))
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def grown(self, value: float) -> "Number":
        """Range that is longer at the border that a value lies at; the same range where it lies at none."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        step, near = _STEP * (high - low), _NEAR * (high - low)
        if at <= low + near and self.low > self.floor:
            low -= step
        elif at >= high - near and self.high < self.ceiling:
            high += step
        else:
            return self
        new = [math.exp(x) if self.log else x for x in (low, high)]
        if self.integer:
            new = [math.floor(new[0]), math.ceil(new[1])]
        low, high = max(new[0], self.floor), min(new[1], self.ceiling)
        if self.integer and self.log:
            low = max(low, 1)
        return self if (low, high) == (self.low, self.high) else replace(self, low=low, high=high)


Space: TypeAlias = Mapping[str, "Number | tuple[Any, ...]"]
"""Settings by name: a range, or choices."""


def suggest(space: Space, trial: Any) -> Json:
    """Settings of an Optuna trial."""
    return {
        name: options.suggest(trial, name)
        if isinstance(options, Number)
        else trial.suggest_categorical(name, options)
        for name, options in space.items()
    }


def grow(space: Space, settings: Json) -> Space:
    """Space whose ranges are longer where the settings lie at their borders."""
    return {
        name: options.grown(settings[name]) if isinstance(options, Number) else options
        for name, options in space.items()
    }


def at_border(space: Space, settings: Json) -> list[str]:
    """Names of the settings that lie at a border which could be moved."""
    grown = grow(space, settings)
    return [name for name in space if grown[name] != space[name]]


def distributions(space: Space) -> dict[str, Any]:
    """Optuna distributions of a space, for trials that are added to a study."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    result: dict[str, Any] = {}
    for name, options in space.items():
        if not isinstance(options, Number):
            result[name] = CategoricalDistribution(options)
        elif options.integer:
            result[name] = IntDistribution(int(options.low), int(options.high), log=options.log)
        else:
            result[name] = FloatDistribution(options.low, options.high, log=options.log)
    return result
