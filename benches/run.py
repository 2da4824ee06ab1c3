"""python benches/run.py [FILE]    all jobs; FILE: a line a user, user id then item ids (.gz); else random data."""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import interactions
import ranking_jobs
import sampling_jobs
import store_jobs
from harness import Job, run


def main() -> None:
    """Measures all and writes docs/benchmarks.*."""
    positives, num_items, data = (
        interactions.read(Path(sys.argv[1])) if len(sys.argv) > 1 else interactions.drawn()
    )
    root = Path(__file__).parent.parent

    def jobs(folder: Path) -> Iterator[Job]:
        yield from sampling_jobs.jobs(positives, num_items)
        yield from ranking_jobs.jobs(positives, num_items)
        yield from store_jobs.jobs(folder)

    # Beside the repository's files: a temporary folder of the system may lie in memory.
    with TemporaryDirectory(dir=root, prefix=".bench-") as folder:
        run(jobs(Path(folder)), data, root / "docs")


if __name__ == "__main__":
    main()
