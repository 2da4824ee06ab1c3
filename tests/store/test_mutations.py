"""One hundredth of the campaign of damaged and forged files (`benches/mutations.py`)."""

import subprocess
import sys

import pytest

from repository import BENCHES


@pytest.mark.slow
def test_damaged_files_are_refused() -> None:
    command = [sys.executable, str(BENCHES / "mutations.py"), "--scale", "0.01", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
