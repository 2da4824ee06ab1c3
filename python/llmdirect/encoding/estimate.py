"""Estimated duration of an encoding job."""

import logging
import time

import numpy as np

from llmdirect.common.devices import has_own_memory
from llmdirect.encoding.job import Job
from llmdirect.encoding.throughput import format_duration

_TRIAL_TOKENS = 1024  # of the trial batch on a CPU

logger = logging.getLogger(__name__)


def estimate_seconds(job: Job, pending: list[int], processes: int = 1) -> float | None:
    """Estimated duration of the pending shards, from one trial batch of texts of median length.

    Parameters
    ----------
    job
    pending
        Shards to encode.
    processes
        Number of processes that share the shards, each as fast as this one.

    Returns
    -------
    float or None
        Seconds; None where nothing is pending.
    """
    if not pending:
        return None
    plan, encoder = job.plan, job.encoder
    rows = np.concatenate([np.arange(*plan.shard_range(shard)) for shard in pending])
    rows = rows[plan.num_tokens[rows] > 0]
    if not len(rows):
        return 0.0
    rows = rows[len(rows) // 2 :]
    # A GPU reaches the speed of the run only with batches of the same size.
    trial_tokens = plan.token_budget if has_own_memory(encoder.device) else _TRIAL_TOKENS
    ends = np.cumsum(plan.num_tokens[rows])
    trial = rows[: int(np.searchsorted(ends, min(trial_tokens, plan.token_budget))) + 1]
    tokens = encoder.tokenize(job.texts.select(plan.text_idx[trial]))
    for _ in range(2):  # the first time, code is loaded and memory allocated
        started = time.perf_counter()
        encoder.embed_in_parts(tokens, token_budget=plan.token_budget)[0].cpu()
        seconds = time.perf_counter() - started
    ratio = job.operations(pending) / encoder.operations(plan.num_tokens[trial])
    estimated = seconds * ratio / processes
    logger.info(
        "about %s, by %s tokens in %.2f s",
        *(format_duration(estimated), f"{sum(map(len, tokens)):,}", seconds),
    )
    return estimated
