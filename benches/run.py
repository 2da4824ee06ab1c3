"""python benches/run.py [FILE] [--only WORD]    all jobs, or those with the word in their name, printed only.

FILE: a line a user, user id then item ids (.gz); random data if not given.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import interactions
import ranking_jobs
import sampling_jobs
import store_jobs
from harness import Job, measure, run


def main() -> None:
    """Measures, and writes docs/benchmarks.* where nothing was left out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    positives, num_items, data = interactions.read(asked.file) if asked.file else interactions.drawn()
    root = Path(__file__).parent.parent

    def jobs(folder: Path) -> Iterator[Job]:
        yield from sampling_jobs.jobs(positives, num_items)
        yield from store_jobs.jobs(folder)
        yield from ranking_jobs.jobs(positives, num_items)

    # Beside the repository's files: a temporary folder of the system may lie in memory.
    with TemporaryDirectory(dir=root, prefix=".bench-") as folder:
        if not asked.only:
            run(jobs(Path(folder)), data, root / "docs")
        for job in jobs(Path(folder)) if asked.only else ():
            if asked.only in job.job:
                json.dump(measure(job), sys.stdout)
                print(flush=True)


if __name__ == "__main__":
    main()
