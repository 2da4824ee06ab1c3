"""Examples of docs/core.md, run without torch."""

import subprocess
import sys
from pathlib import Path

from repository import DOCS

PAGE = DOCS / "core.md"
PROGRAM = """
import doctest, sys
from pathlib import Path
failed, attempted = doctest.testfile(sys.argv[1], module_relative=False, globs={"folder": Path(sys.argv[2])})
assert attempted > 25 and not failed, (failed, attempted)
assert "torch" not in sys.modules
"""


def test_examples_produce_documented_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, PAGE, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
