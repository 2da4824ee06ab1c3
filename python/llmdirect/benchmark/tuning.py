"""Hyper-parameter search of the rows on the validation of several splits."""

import json
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

import llmdirect
from llmdirect.benchmark.benchmark import METRIC, Benchmark, Row, write_json
from llmdirect.benchmark.spaces import Space, at_border, distributions, grow, suggest
from llmdirect.common.files import digest
from llmdirect.common.types import Json, canonical_json

NUM_TRIALS: Final = 30
"""Trials of a row with settings, unless its time ends before."""
MORE_TRIALS: Final = 10
"""Further trials, each time that the best setting lies at a border of its range, which is then moved."""
_MAX_GROWTHS: Final = 3
_TUNING_SPLITS: Final = 3
"""Splits whose mean validation ranks the settings."""
_LIBRARIES: Final = ("numpy", "scipy", "torch", "implicit", "scikit-learn", "optuna")


def tune(benchmark: Benchmark, name: str) -> Json:
    """Hyper-parameter search of a row; every trial is kept, so that a killed search goes on.

    Settings are ranked by the mean of the metric over the validation of up to three splits.

    Returns
    -------
    "trials" (each with "settings", "values" by split, and "mean"; best first), "seconds", "complete"
    (whether all trials were made) and "at_border" (settings whose range should be wider).
    """
    if name not in benchmark.tuning:
        benchmark.tuning[name] = _tune(benchmark, name)
    return benchmark.tuning[name]


def finalists(benchmark: Benchmark, name: str) -> list[Json]:
    """Best settings of a row, among which the validation of each split chooses."""
    return [trial["settings"] for trial in tune(benchmark, name)["trials"][: benchmark.rows[name].finalists]]


def _tune(benchmark: Benchmark, name: str) -> Json:
    row = benchmark.rows[name]
    for part in row.parts:
        tune(benchmark, part)
    if not row.space:
        return {"trials": [{"settings": {}}], "seconds": 0.0, "complete": True, "at_border": []}
    splits = range(min(_TUNING_SPLITS, len(benchmark.splits)))
    hashes = (benchmark.splits[split].hash for split in splits)
    key = digest(row_identity(benchmark, name), benchmark.store.hash, METRIC, *hashes)[:12]
    path = benchmark.out / f"{name}-{benchmark.protocol}-tuned-{key}.json"
    state: Json = json.loads(path.read_bytes()) if path.exists() else {"trials": [], "seconds": 0.0}
    space, growths = row.space, 0
    with benchmark.progress.task(f"Tuning {name}", NUM_TRIALS, "trials") as task:
        task.advance(min(len(state["trials"]), NUM_TRIALS))
        while True:
            best = max(state["trials"], key=lambda trial: float(trial["mean"]), default=None)
            if len(state["trials"]) >= NUM_TRIALS + growths * MORE_TRIALS:
                assert best is not None
                grown = grow(space, best["settings"])
                if grown == space or growths == _MAX_GROWTHS:
                    break
                space, growths = grown, growths + 1
            if state["trials"] and state["seconds"] >= benchmark.tuning_seconds:
                break
            started = time.monotonic()
            settings = _next_settings(row, space, state["trials"])
            values = [
                benchmark.validation(row.fit(benchmark, split, settings).model, split) for split in splits
            ]
            state["trials"].append({"settings": settings, "values": values, "mean": float(np.mean(values))})
            state["seconds"] = round(state["seconds"] + time.monotonic() - started, 2)
            write_json(path, state)
            task.advance()
    trials = sorted(state["trials"], key=lambda trial: -float(trial["mean"]))
    return {
        "trials": trials,
        "seconds": state["seconds"],
        "complete": len(trials) >= NUM_TRIALS,
        "at_border": at_border(space, trials[0]["settings"]),
    }


def _next_settings(row: Row, space: Space, trials: list[Json]) -> Json:
    """Settings of the next trial: a function of those before it, so that a resumed search is the same."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not trials and row.first_trial is not None:
        return row.first_trial
    sampler = optuna.samplers.TPESampler(seed=len(trials), n_startup_trials=8)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in trials:
        study.add_trial(_as_optuna(space, trial))
    return suggest(space, study.ask())


def _as_optuna(space: Space, trial: Json) -> Any:
    """Finished trial; values outside the present range, from a search that grew elsewhere, are kept."""
    import optuna

    inside = {
        name: (trial["settings"][name], distribution)
        for name, distribution in distributions(space).items()
        if distribution._contains(distribution.to_internal_repr(trial["settings"][name]))
    }
    return optuna.trial.create_trial(
        params={name: value for name, (value, _) in inside.items()},
        distributions={name: distribution for name, (_, distribution) in inside.items()},
        value=trial["mean"],
    )


def row_identity(benchmark: Benchmark, name: str) -> str:
    """All that a row's results rest on, but data and drawn settings: code, versions, space, parts."""
    row = benchmark.rows[name]
    parts = {part: [trial["settings"] for trial in tune(benchmark, part)["trials"][:1]] for part in row.parts}
    return canonical_json(
        {
            "code": code_digest(),
            "versions": _versions(),
            "space": repr(sorted(row.space.items())),
            "fixed": row.fixed_settings,
            "parts": parts,
            "query_time": benchmark.query_time,
        }
    )


@cache
def code_digest() -> str:
    """Digest of the package's code, so that a changed row is measured again."""
    folder = Path(llmdirect.__file__).parent
    skipped = ("cli", "explore", "reports", "explanation", "aspects", "synthetic", "encoding")
    files = sorted(
        path
        for pattern in ("*.py", "_core*")
        for path in folder.rglob(pattern)
        if path.relative_to(folder).parts[0] not in skipped and path.suffix != ".pyi"
    )
    return digest(*(digest(path.name, path.read_bytes().hex()) for path in files))


@cache
def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = ""
    return found
