"""What a difference between two rows is worth: intervals, tests and the smallest difference that shows."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_FLIPS = 10_000


def interval(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean with its 95 % interval, by bootstrap over users."""
    (means,) = _resampled(values)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def ratio(over: NDArray[np.float64], under: NDArray[np.float64]) -> dict[str, float] | None:
    """Ratio of two means over the same users, with its interval; None where the second may be 0."""
    tops, bottoms = _resampled(over, under)
    if not (bottoms > 0).all():
        return None
    low, high = np.percentile(tops / bottoms, [2.5, 97.5])
    return {"mean": float(over.mean() / under.mean()), "low": float(low), "high": float(high)}


def p_value(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Two-sided, that the means over the same users differ: signs of the differences flipped at random."""
    differences = first - second
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    generator = np.random.default_rng(0)
    observed, extreme = abs(differences.sum()), 0
    for _ in range(_FLIPS // 100):
        signs = generator.integers(0, 2, (100, len(differences)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + _FLIPS)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """The p-values corrected for their number (Holm 1979)."""
    corrected, least = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        least = max(least, min(1.0, (len(p_values) - rank) * value))
        corrected[name] = least
    return corrected


def detectable(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Smallest difference of means that a test at 5 % finds in four of five cases, over that of `second`.

    None for a single user, and where the mean of `second` is 0.
    """
    if len(first) < 2 or not second.mean() > 0:
        return None
    error = float((first - second).std(ddof=1)) / len(first) ** 0.5
    return float((1.96 + 0.84) * error / second.mean())


def _resampled(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Means [resamples] of each column over the same resampled users."""
    generator = np.random.default_rng(0)
    users = len(columns[0])
    means = np.empty((_RESAMPLES, len(columns)))
    table = np.stack(columns, 1)
    for row in means:
        row[:] = table[generator.integers(0, users, users)].mean(0)
    return list(means.T)
