"""Canonical eigenvectors: whatever basis the solver returned, and whatever rounding did to its input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llmdirect.common.decompositions import (
    ROUNDING,
    canonical_eigenvectors,
    eigenvectors,
    first_largest,
    leading_eigenvectors,
)

# Gaps of 0 or at least 0.1 of the largest: between eigenvalues nearer than that noise has more leverage.
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
def test_one_basis_whatever_the_solver_returns(spectrum: list[int], seed: int) -> None:
    values = torch.tensor(spectrum, dtype=torch.float64)
    vectors = random_orthogonal(len(values), seed)
    found = canonical_eigenvectors(values, vectors)
    again = canonical_eigenvectors(values, turned(values, vectors, seed + 1))
    torch.testing.assert_close(again, found, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.T @ found, torch.eye(len(values)).double(), rtol=0, atol=1e-12)
    matrix = vectors @ torch.diag(values) @ vectors.T
    torch.testing.assert_close(matrix @ found, found * values, rtol=0, atol=1e-12)


@given(SPECTRA, SEEDS, st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_rounding_moves_nothing(spectrum: list[int], seed: int, count: int) -> None:
    """Rows in another order and a last bit here or there: the same leading directions, repeated ones too."""
    rng = np.random.default_rng(seed)
    values = torch.tensor(spectrum, dtype=torch.float64)
    rows = torch.diag(values.sqrt()) @ random_orthogonal(len(values), seed).T
    other = rows[torch.from_numpy(rng.permutation(len(rows)))]
    other = other * (1 + 1e-15 * torch.from_numpy(rng.standard_normal(other.shape)))
    for one, two in (
        (eigenvectors(rows.T @ rows), eigenvectors(other.T @ other)),
        (leading_eigenvectors(rows.T @ rows, 12), leading_eigenvectors(other.T @ other, 12)),
    ):
        torch.testing.assert_close(one[0], values, rtol=0, atol=1e-12)
        torch.testing.assert_close(two[0], values, rtol=0, atol=1e-12)
        torch.testing.assert_close(one[1][:, :count], two[1][:, :count], rtol=0, atol=1e-9)


def test_leading_eigenvectors_are_those_of_the_whole() -> None:
    vectors = random_orthogonal(200, 0)
    values = 0.6 ** torch.arange(200).double()
    matrix = vectors @ torch.diag(values) @ vectors.T
    found, leading = leading_eigenvectors(matrix, 12)
    torch.testing.assert_close(found[:8], values[:8], rtol=1e-4, atol=0)
    first = (vectors[:, :4] * leading[:, :4]).sum(0)
    torch.testing.assert_close(first.abs(), torch.ones(4).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(leading[:, :4], eigenvectors(matrix)[1][:, :4], rtol=0, atol=1e-6)


def test_what_has_cancelled_is_one_eigenspace() -> None:
    """Of numbers of size 1 nothing but rounding is left: no direction of it is better than another."""
    noise = torch.diag(torch.tensor([3e-17, 1e-17, -2e-17], dtype=torch.float64))
    size = torch.tensor(1.0).double()
    nothing = eigenvectors(torch.zeros(3, 3, dtype=torch.float64), size)[1]
    torch.testing.assert_close(eigenvectors(noise, size)[1], nothing, rtol=0, atol=1e-12)
    assert eigenvectors(noise)[1].abs().amax(0).tolist() == pytest.approx([1, 1, 1])


def test_no_eigenvectors_at_all() -> None:
    values, vectors = eigenvectors(torch.zeros(0, 0, dtype=torch.float64))
    assert values.shape == (0,)
    assert vectors.shape == (0, 0)


def test_the_first_of_those_that_rounding_parts() -> None:
    rows = [[0.5, 0.7, 0.7 + 1e-15], [0.9, 0.9 + 10 * ROUNDING, 0.1], [-1.0, -1.0, -1.0]]
    assert first_largest(torch.tensor(rows, dtype=torch.float64)).tolist() == [1, 1, 0]
