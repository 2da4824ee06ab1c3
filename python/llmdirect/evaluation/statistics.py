"""Bootstrap intervals and paired tests of metrics over users."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_NUM_RESAMPLES = 2000
_NUM_FLIPS = 10_000
_NORMAL_QUANTILES = 1.96 + 0.84
"""Of a two-sided test at 5 % (97.5 %) and of a power of 80 %."""


def bootstrap_mean(values: NDArray[np.float64]) -> dict[str, float]:
    """Mean with its 95 % percentile bootstrap interval over users.

    Parameters
    ----------
    values
        float64 [n], one a user.

    Returns
    -------
    "mean", "low" and "high".

    References
    ----------
    Efron, B. (1979). Bootstrap Methods: Another Look at the Jackknife.
    """
    (means,) = _bootstrap_means(values)
    return _with_interval(float(values.mean()), means)


def bootstrap_ratio(
    numerator: NDArray[np.float64], denominator: NDArray[np.float64]
) -> dict[str, float] | None:
    """Ratio of two means over the same users, with its 95 % percentile bootstrap interval.

    Parameters
    ----------
    numerator, denominator
        float64 [n], aligned by user.

    Returns
    -------
    "mean", "low" and "high"; None where the mean of the denominator may be 0.
    """
    numerators, denominators = _bootstrap_means(numerator, denominator)
    if not (denominators > 0).all():
        return None
    return _with_interval(float(numerator.mean() / denominator.mean()), numerators / denominators)


def sign_flip_p_value(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Two-sided p-value of a paired randomisation test: signs of the differences are flipped at random.

    Parameters
    ----------
    first, second
        float64 [n], aligned by user.
    """
    differences = first - second
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    generator = np.random.default_rng(0)
    observed, extreme = abs(differences.sum()), 0
    for _ in range(_NUM_FLIPS // 100):
        signs = generator.integers(0, 2, (100, len(differences)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + _NUM_FLIPS)


def holm_correction(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for multiple comparisons.

    References
    ----------
    Holm, S. (1979). A Simple Sequentially Rejective Multiple Test Procedure.
    """
    corrected, largest = {}, 0.0
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * value))
        corrected[name] = largest
    return corrected


def minimum_detectable_effect(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Smallest difference of means that a paired test at 5 % detects with a power of 80 %.

    Parameters
    ----------
    first, second
        float64 [n], aligned by user.

    Returns
    -------
    The difference as a share of the mean of `second`; None for a single user, and where that mean is 0.
    """
    if len(first) < 2 or not second.mean() > 0:
        return None
    standard_error = float((first - second).std(ddof=1)) / len(first) ** 0.5
    return float(_NORMAL_QUANTILES * standard_error / second.mean())


def _bootstrap_means(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Means [resamples] of each column over the same resampled users."""
    generator = np.random.default_rng(0)
    num_users = len(columns[0])
    means = np.empty((_NUM_RESAMPLES, len(columns)))
    table = np.stack(columns, 1)
    for row in means:
        row[:] = table[generator.integers(0, num_users, num_users)].mean(0)
    return list(means.T)


def _with_interval(mean: float, resampled: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"mean": mean, "low": float(low), "high": float(high)}
