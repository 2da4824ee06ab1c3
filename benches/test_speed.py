"""The same jobs as `run.py`, ours alone, through Python: `make bench-core`."""

from collections.abc import Iterator

import interactions
import pytest
import ranking_jobs
import sampling_jobs
from harness import Job
from pytest_benchmark.fixture import BenchmarkFixture

from llmdirect import set_num_threads


def jobs() -> Iterator[Job]:
    """Those that need no files."""
    positives, num_items, _ = interactions.drawn()
    yield from sampling_jobs.jobs(positives, num_items)
    yield from ranking_jobs.jobs(positives, num_items)


@pytest.mark.parametrize("job", jobs(), ids=lambda job: f"{job.job}, {job.threads} threads, {job.peer}")
def test_speed(job: Job, benchmark: BenchmarkFixture) -> None:
    set_num_threads(job.threads)
    benchmark.extra_info["peer"] = job.peer
    benchmark(job.ours)
