"""Canonical eigenvectors: invariance to the solver's basis and to rounding of the input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmdirect.common.canonical import ROUNDING
from llmdirect.common.decompositions import (
    canonical_eigenvectors,
    eigenvectors,
    first_largest,
    leading_eigenvectors,
)

# Gaps are 0 or at least 0.1 of the largest: noise mixes vectors of closer eigenvalues.
SPECTRA = st.lists(st.integers(0, 5), min_size=1, max_size=12).map(
    lambda values: sorted(values, reverse=True)
)
SEEDS = st.integers(0, 2**16)


def random_orthogonal(size: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.linalg.qr(torch.from_numpy(rng.standard_normal((size, size))))[0]


def turned(values: Tensor, vectors: Tensor, seed: int) -> Tensor:
    """Another basis of each eigenspace: rotations within it, and signs."""
    vectors = vectors.clone()
    for value in values.unique():
        same = values == value
        vectors[:, same] = vectors[:, same] @ random_orthogonal(int(same.sum()), seed)
    return vectors


@given(SPECTRA, SEEDS)
@settings(max_examples=100, deadline=None)
def test_basis_independent_of_solver(spectrum: list[int], seed: int) -> None:
    values = torch.tensor(spectrum, dtype=torch.float64)
    vectors = random_orthogonal(len(values), seed)
    canonical = canonical_eigenvectors(values, vectors)
    again = canonical_eigenvectors(values, turned(values, vectors, seed + 1))
    torch.testing.assert_close(again, canonical, rtol=0, atol=1e-9)
    torch.testing.assert_close(canonical.T @ canonical, torch.eye(len(values)).double(), rtol=0, atol=1e-12)
    matrix = vectors @ torch.diag(values) @ vectors.T
    torch.testing.assert_close(matrix @ canonical, canonical * values, rtol=0, atol=1e-12)


@given(SPECTRA, SEEDS, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_basis_stable_under_rounding(spectrum: list[int], seed: int, count: int) -> None:
    """Row order and last bits do not change leading directions, including repeated ones."""
    rng = np.random.default_rng(seed)
    values = torch.tensor(spectrum, dtype=torch.float64)
    rows = torch.diag(values.sqrt()) @ random_orthogonal(len(values), seed).T
    other = rows[torch.from_numpy(rng.permutation(len(rows)))]
    other = other * (1 + 1e-15 * torch.from_numpy(rng.standard_normal(other.shape)))
    for result, other_result in (
        (eigenvectors(rows.T @ rows), eigenvectors(other.T @ other)),
        (leading_eigenvectors(rows.T @ rows, 12), leading_eigenvectors(other.T @ other, 12)),
    ):
        torch.testing.assert_close(result[0], values, rtol=0, atol=1e-12)
        torch.testing.assert_close(other_result[0], values, rtol=0, atol=1e-12)
        torch.testing.assert_close(result[1][:, :count], other_result[1][:, :count], rtol=0, atol=1e-9)


def test_leading_eigenvectors_match_full_decomposition() -> None:
    vectors = random_orthogonal(200, 0)
    values = 0.6 ** torch.arange(200).double()
    matrix = vectors @ torch.diag(values) @ vectors.T
    result, leading = leading_eigenvectors(matrix, 12)
    torch.testing.assert_close(result[:8], values[:8], rtol=1e-4, atol=0)
    first = (vectors[:, :4] * leading[:, :4]).sum(0)
    torch.testing.assert_close(first.abs(), torch.ones(4).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(leading[:, :4], eigenvectors(matrix)[1][:, :4], rtol=0, atol=1e-6)


def test_cancelled_values_form_one_eigenspace() -> None:
    """After cancellation only rounding remains, so that all directions are equivalent."""
    noise = torch.diag(torch.tensor([3e-17, 1e-17, -2e-17], dtype=torch.float64))
    size = torch.tensor(1.0).double()
    nothing = eigenvectors(torch.zeros(3, 3, dtype=torch.float64), size)[1]
    torch.testing.assert_close(eigenvectors(noise, size)[1], nothing, rtol=0, atol=1e-12)
    assert eigenvectors(noise)[1].abs().amax(0).tolist() == pytest.approx([1, 1, 1])


def test_zero_eigenvectors() -> None:
    values, vectors = eigenvectors(torch.zeros(0, 0, dtype=torch.float64))
    assert values.shape == (0,)
    assert vectors.shape == (0, 0)


def test_eigenvalues_split_by_rounding() -> None:
    rows = [[0.5, 0.7, 0.7 + 1e-15], [0.9, 0.9 + 10 * ROUNDING, 0.1], [-1.0, -1.0, -1.0]]
    assert first_largest(torch.tensor(rows, dtype=torch.float64)).tolist() == [1, 1, 0]
