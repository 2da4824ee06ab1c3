"""Speed of our side of the jobs of `run.py`, with pytest-benchmark: `make bench-core`."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import interactions
import pytest
import ranking_jobs
import sampling_jobs
import store_jobs
from harness import Job
from pytest_benchmark.fixture import BenchmarkFixture

from llmdirect import set_num_threads

FOLDER = TemporaryDirectory(dir=Path(__file__).parent.parent, prefix=".bench-")
"""Folder of the store that is read, removed at the end of the process."""


def jobs() -> Iterator[Job]:
    """All jobs but those that wait for the disk."""
    positives, num_items, _ = interactions.random()
    yield from sampling_jobs.jobs(positives, num_items)
    yield from ranking_jobs.jobs(positives, num_items)
    yield from store_jobs.opened(Path(FOLDER.name) / "store", 384, 8000)


@pytest.mark.parametrize("job", jobs(), ids=lambda job: f"{job.job}, {job.threads} threads, {job.peer}")
def test_speed(job: Job, benchmark: BenchmarkFixture) -> None:
    set_num_threads(job.threads)
    benchmark.extra_info["peer"] = job.peer
    benchmark(job.ours)
