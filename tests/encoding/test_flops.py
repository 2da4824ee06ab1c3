"""Estimated operations of encoders; GPU benchmark at its smallest size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from llmdirect.encoding.encoders import load_encoder
from llmdirect.encoding.encoders.flops import peak_rate
from llmdirect.encoding.encoders.windows import windows
from repository import BENCHES


@pytest.mark.parametrize("name", ["bert", "t5gemma"])
def test_operations_match_matrix_products(name: str, tmp_path: Path) -> None:
    encoder = load_encoder(str(tiny.build(name, tmp_path)[0]), max_length=20)
    # layers x (linear layers + attention), from the sizes in tiny.py
    layers, width, linear = {
        "bert": (2, 32, 4 * 32 * 32 + 2 * 32 * 48),
        "t5gemma": (4, 4 * 32, 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 96),
    }[name]

    def of_sequence(length: int) -> int:
        return layers * (2 * linear * length + 4 * length * length * width)

    assert encoder.operations([7, 0, 20]) == of_sequence(7) + of_sequence(20)
    special = 20 - encoder.room
    cut = windows(50 - special, encoder.room)
    assert encoder.operations([50]) == sum(
        of_sequence(window.stop - window.start + special) for window in cut
    )


def test_peak_rate_is_measured_for_unknown_devices() -> None:
    rate, source = peak_rate(torch.device("cpu"), torch.float32)
    assert source == "measured"
    assert 1e8 < rate < 1e14


@pytest.mark.slow
def test_gpu_benchmark_tiny() -> None:
    command = [sys.executable, "-W", "error", BENCHES / "gpu_precompute.py", "--tiny", "--device", "cpu"]
    process = subprocess.run([*command, "--tokens", "200"], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    report = json.loads(process.stdout.splitlines()[-1])
    assert [row["way"] for row in report["rows"]] == ["packed", "padded, sorted", "padded"] * 3
    assert all(row["tokens_per_second"] > 0 and 0 < row["mfu"] < 10 for row in report["rows"])
