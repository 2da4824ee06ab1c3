"""python benches/help_speed.py    Time of `llmdirect --help` relative to the import of its libraries.

Runs `python -m llmdirect --help` and `python -c "import typer, rich.table"` in turns, nine times each, and
prints the medians in seconds and their ratio. The target is a ratio of at most 1.3. Exit code 1 above it.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

ROUNDS = 9
TARGET = 1.3
COMMANDS = {
    "help": ("-m", "llmdirect", "--help"),
    "libraries": ("-c", "import typer, rich.table"),
}


def main() -> int:
    """Measure, print a JSON line, and return the exit code."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        run(arguments)  # writes byte code, and reads files into the page cache
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            seconds[name].append(run(arguments))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["help"] / medians["libraries"]
    line = {**{name: round(value, 3) for name, value in medians.items()}, "ratio": round(ratio, 2)}
    print(json.dumps({**line, "target": f"a ratio of at most {TARGET}"}))
    return 0 if ratio <= TARGET else 1


def run(arguments: Sequence[str]) -> float:
    """Seconds of a Python process by the clock."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
