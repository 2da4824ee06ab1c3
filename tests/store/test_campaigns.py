"""One hundredth of the campaigns of damaged files (`benches/mutations.py`) and of kills (`kills.py`)."""

import subprocess
import sys

import pytest

from repository import BENCHES


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["mutations.py", "--workers", "1"], ["kills.py"]], ids=["files", "kills"]
)
def test_campaign_finds_no_fault(arguments: list[str]) -> None:
    script, *options = arguments
    command = [sys.executable, str(BENCHES / script), "--scale", "0.01", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
