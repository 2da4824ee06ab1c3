"""python benches/run.py [FILE] [--only WORD]    All jobs; or those with WORD in their name, only printed.

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
    """Measure all jobs and write docs/benchmarks.*, or print some of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    positives, num_items, data = interactions.read(args.file) if args.file else interactions.random()
    root = Path(__file__).parent.parent

    def jobs(folder: Path) -> Iterator[Job]:
        yield from sampling_jobs.jobs(positives, num_items)
        yield from store_jobs.jobs(folder)
        yield from ranking_jobs.jobs(positives, num_items)

    # In the repository: the system's temporary folder may be in memory.
    with TemporaryDirectory(dir=root, prefix=".bench-") as folder:
        if not args.only:
            run(jobs(Path(folder)), data, root / "docs")
        for job in jobs(Path(folder)) if args.only else ():
            if args.only in job.job:
                json.dump(measure(job), sys.stdout)
                print(flush=True)


if __name__ == "__main__":
    main()
