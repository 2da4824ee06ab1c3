"""Recorded losses of three epochs, from the seed and from stored tensors, on any processor."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_start import SHAPES, Start, losses, recorded, started_from, stored_start
from run_helpers import make_dataset

GOLDEN = {
    "default": [3.080454, 3.032107, 2.757581],
    "embeddings": [3.780835, 3.557324, 3.290770],
    "paper": [0.722938, 0.707703, 0.700459],
}
"""A change here changes what the model is."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "reviews")


@pytest.fixture(scope="module")
def from_seed(
    dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Start, list[float]]]:
    folder, runs = tmp_path_factory.mktemp("runs"), {}
    for shape in SHAPES:
        with recorded() as start:
            runs[shape] = start, losses(dataset, folder / shape, shape)
    return runs


@pytest.mark.parametrize("shape", SHAPES)
def test_golden_initial_tensors(from_seed: dict[str, tuple[Start, list[float]]], shape: str) -> None:
    """Initial tensors of the seed; processors differ by less than 1e-5."""
    start, stored = from_seed[shape][0], stored_start(shape)
    assert start.keys() == stored.keys()
    for name, value in stored.items():
        torch.testing.assert_close(
            start[name], value, rtol=0, atol=5e-6, msg=lambda text, at=name: f"{at}: {text}"
        )


def test_random_initial_tensors_are_bit_equal(from_seed: dict[str, tuple[Start, list[float]]]) -> None:
    """Random tensors are bit-equal where initialisation from texts does not replace them."""
    start, stored = from_seed["paper"][0], stored_start("paper")
    drawn = "aspect", "mention.weight", *(name for name in stored if name.startswith("sentiment."))
    assert len(drawn) == 6
    assert all(torch.equal(start[name], stored[name]) for name in drawn)


@pytest.mark.parametrize("shape", SHAPES)
def test_golden_losses(from_seed: dict[str, tuple[Start, list[float]]], shape: str) -> None:
    np.testing.assert_allclose(from_seed[shape][1], GOLDEN[shape], rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_golden_losses_from_a_stored_start(dataset: Path, tmp_path: Path, shape: str) -> None:
    with started_from(stored_start(shape)):
        np.testing.assert_allclose(losses(dataset, tmp_path / "run", shape), GOLDEN[shape], rtol=1e-5)


FROM_SEED = "test_golden_initial_tensors", "test_random_initial_tensors_are_bit_equal", "test_golden_losses"
PROCESSORS = {
    "without vectors": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Sandybridge",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}
"""What has PyTorch, MKL and NumPy's OpenBLAS compute as an older processor does; processors of other makers
than Intel ignore MKL_ENABLE_INSTRUCTIONS, not MKL_CBWR."""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the settings are those of x86")
@pytest.mark.parametrize("name", list(PROCESSORS))
def test_golden_on_another_processor(name: str) -> None:
    if name == "avx2" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no AVX2")
    tests_folder = Path(__file__).parents[1]
    tests = [
        *(f"{tests_folder / 'training' / 'test_golden_losses.py'}::{test}" for test in FROM_SEED),
        f"{tests_folder / 'collaborative' / 'test_ease.py'}::test_ridge_below_rounding_error",
    ]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, env=os.environ | PROCESSORS[name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout
