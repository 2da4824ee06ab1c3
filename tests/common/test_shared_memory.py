"""Processes share one copy of a memory-mapped store."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from store_helpers import random_content, write_content

PROGRAM = """
import re, sys
from llmdirect.store.store import EmbeddingStore
store = EmbeddingStore.open(sys.argv[1])
assert store.tokens_numpy.view("u1").sum() > 0
print("read", flush=True)
sys.stdin.readline()
total = 0
for part in re.split(r"\\n(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read()):
    if "tokens-" in part.splitlines()[0]:
        total += int(re.search(r"\\nPss: +(\\d+) kB", part)[1])
print(total, flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="proportional set sizes are Linux's")
def test_processes_share_one_copy(tmp_path: Path) -> None:
    content = random_content(np.random.default_rng(0), [50] * 400, 256)
    write_content(tmp_path / "store", content)
    size = content.tokens.nbytes / 1024
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store")]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    try:
        shares = []
        for say in ("read", "share"):
            for reader in readers:
                assert reader.stdin is not None
                assert reader.stdout is not None
                if say == "read":
                    assert reader.stdout.readline() == "read\n"
                    continue
                reader.stdin.write("\n")
                reader.stdin.flush()
                shares.append(int(reader.stdout.readline()))
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    # Each process accounts for a quarter of the pages; this process does not map the file.
    assert 0.95 * size < sum(shares) < 1.05 * size
    assert max(shares) < 0.3 * size
