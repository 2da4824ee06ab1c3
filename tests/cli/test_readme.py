"""Python examples of the README and of the page about data, each run in a separate process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT


def examples(page: str) -> list[str]:
    """Blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


EXAMPLES = examples("README.md")
ALL = [*EXAMPLES, *examples("docs/data.md")]


@pytest.mark.slow
@pytest.mark.parametrize("example", ALL, ids=lambda text: text.splitlines()[0])
def test_example_runs(example: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def test_examples_use_public_functions() -> None:
    session = "".join(EXAMPLES)
    stages = ("prepare", "precompute", "consolidate", "train", "evaluate", "recommend", "explain")
    assert all(f"llmdirect.{stage}(" in session for stage in stages)
