"""Hyperparameter search with Optuna; every trial is a run folder.

RUNS/journal.log      Optuna's journal of all trials
RUNS/search.json      dataset, store, shared settings and params of the search
RUNS/<settings>/      run folder of a trial
RUNS/best.json        the best trial
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from llmdirect.choices import Preset
from llmdirect.common.conditions import check_conditions
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import digest, disk_full_hint, write_atomic
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, Result, canonical_json
from llmdirect.config import configure
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.store.no_text import open_or_write_store
from llmdirect.training.requirements import check_setup
from llmdirect.training.settings import Value
from llmdirect.training.train import train_on

SEARCHED: Mapping[Preset, Mapping[str, Sequence[Any]]] = {
    "default": {"lr": (3e-4, 1e-3, 3e-3), "history_dropout": (0.4, 0.7, 0.85)},
    "paper": {"lr": (1e-2, 1e-3, 1e-4), "rate": (1e-7, 1e-6, 1e-5), "aspects": (3, 5, 8)},
}
"""Settings searched by default: those whose best value differs most between datasets; for the paper's preset,
those of the published scripts around the published values."""
DEFAULT_TRIALS = 20
Sampler = Literal["grid", "tpe"]


@dataclass(frozen=True)
class Trial(Result):
    """A finished trial."""

    params: dict[str, Value]
    """Values of the searched settings."""
    value: float
    """Best validation value of its run."""
    epoch: int
    """Epoch of that value, from 1."""
    run: Path
    """Run folder."""
    seconds: float


@dataclass(frozen=True)
class GridResult(Result):
    """Result of `grid`."""

    trials: list[Trial]
    """Best first."""
    best: Trial
    failed: list[dict[str, Value]]
    """Settings of trials that failed, as by a loss that diverges."""


def grid(
    dataset: Path | str,
    out: Path | str,
    *,
    params: Mapping[str, Sequence[Value]] | None = None,
    preset: Preset = "default",
    settings: Mapping[str, Any] | None = None,
    sampler: Sampler = "grid",
    trials: int | None = None,
    seed: int | None = None,
    store: Path | str | None = None,
    progress: Progress = SILENT,
) -> GridResult:
    """Search over settings on the validation split; an interrupted search is resumed.

    Parameters
    ----------
    dataset
        Folder that `prepare` wrote, or a raw file.
    out
        Folder of all runs.
    params
        Values of each searched setting; `SEARCHED` of the preset if not given.
    settings
        Settings that all runs share.
    sampler
        "grid": every combination. "tpe": `trials` of them, proposed by Optuna's TPE sampler.
    trials
        Number of trials in all, for "tpe" alone; by default `DEFAULT_TRIALS`.
    seed
        Seed of the sampler "tpe"; by default 0.
    store
        Name or folder of a store, as for `train`.

    Raises
    ------
    ValueError
        For an unknown setting, one that is given twice or has no effect, and for runs whose values do not
        compare.
    MismatchError
        If `out` holds the search of another dataset, other shared settings or other params.
    DataError
        If every trial failed.
    """
    params = {name: list(values) for name, values in (params or SEARCHED[preset]).items()}
    if sampler not in get_args(Sampler):
        raise ValueError(f"`sampler`: {sampler!r}, expected one of {', '.join(get_args(Sampler))}")
    check_conditions("grid", {"sampler": sampler, "trials": trials, "seed": seed})
    if trials is not None and trials < 1:
        raise ValueError(f"`trials`: {trials}, expected at least 1")
    common = {"preset": preset, **{k: v for k, v in (settings or {}).items() if v is not None}}
    if twice := [name for name in params if name in common]:
        raise ValueError(f"`{twice[0]}`: is searched too; fix it, or search it with `param`, not both")
    opened, out = open_or_prepare(dataset, progress), Path(out)
    embeddings = open_or_write_store(opened, store)
    identity = {"dataset": opened.hash, "store": embeddings.hash, "common": common, "params": params}
    combinations = [dict(zip(params, values, strict=True)) for values in itertools.product(*params.values())]
    lower_is_better = _check_combinations(opened, common, combinations)
    with disk_full_hint(out, "make room and run again"), single_writer(out):
        _claim(out / "search.json", identity)
        study = _open_study(out / "journal.log", "minimize" if lower_is_better else "maximize")
        total = len(combinations) if sampler == "grid" else trials or DEFAULT_TRIALS
        with progress.task("Trials", total, "trials") as task:
            task.advance(len(_complete(study)))

            def objective(trial: optuna.Trial) -> float:
                chosen: dict[str, Any] = {
                    name: trial.suggest_categorical(name, values) for name, values in params.items()
                }
                model, training = configure(**{**common, **chosen})
                folder = out / run_name(chosen)
                result = train_on(
                    opened, embeddings, folder, model=model, training=training, progress=progress
                )
                trial.set_user_attr("run", folder.name)
                trial.set_user_attr("epoch", result.best_epoch)
                trial.set_user_attr("seconds", result.seconds)
                task.advance()
                return result.best_value

            for combination in _remaining(study, combinations if sampler == "grid" else None, total):
                if combination is not None:
                    study.enqueue_trial(combination)
                # A sampler of its own for each trial: a resumed search must not repeat its first draws.
                study.sampler = optuna.samplers.TPESampler(seed=(seed or 0) + len(study.get_trials()))
                study.optimize(objective, n_trials=1, catch=(DataError,))
        return _result(study, out)


def _remaining(
    study: optuna.Study, combinations: Sequence[dict[str, Value]] | None, total: int
) -> list[dict[str, Value] | None]:
    """Combinations that are not complete; without combinations, None for each trial to propose."""
    if combinations is None:
        return [None] * (total - len(_complete(study)))
    ended = {canonical_json(trial.params) for trial in _complete(study)}
    return [each for each in combinations if canonical_json(each) not in ended]


def _check_combinations(
    dataset: Dataset, common: Mapping[str, Any], combinations: Sequence[Mapping[str, Value]]
) -> bool:
    """Check every combination before the first trial, and that their values compare.

    Returns
    -------
    bool
        Whether a lower value is better.
    """
    watched = set()
    for combination in combinations:
        model, training = configure(**{**common, **combination})
        try:
            check_setup(dataset, model, training)
        except DataError:  # of the dataset, whatever the settings
            raise
        except ValueError as error:
            values = ", ".join(f"{name}={value}" for name, value in combination.items())
            raise ValueError(f"`param` {values}: {error}") from None
        watched.add(training.watched)
    if len(watched) > 1:
        raise ValueError(f"`param`: runs that watch {' and '.join(sorted(watched))} do not compare")
    return watched == {"mse"}


def run_name(chosen: Mapping[str, Value]) -> str:
    """Folder name of a trial: its settings; a long one is cut and ends in a hash."""
    name = ",".join(f"{key}={value}" for key, value in sorted(chosen.items())) or "run"
    return name if len(name) <= 120 else f"{name[:100]}-{digest(name)[:12]}"


def _claim(path: Path, identity: Json) -> None:
    """Write the identity of the search; MismatchError if the folder holds another one."""
    if path.exists():
        existing = json.loads(path.read_bytes())
        different = [name for name in identity if existing.get(name) != identity[name]]
        if different:
            raise MismatchError(
                f"{path.parent}: holds a search of another {', '.join(different)}; choose another `out`"
            )
        return
    write_atomic(path, lambda file: file.write(canonical_json(identity).encode() + b"\n"))


def _open_study(journal: Path, direction: Literal["minimize", "maximize"]) -> optuna.Study:
    """Open the study; trials that an interrupted search left running or waiting count as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="llmdirect",
        storage=JournalStorage(JournalFileBackend(str(journal))),
        direction=direction,
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    for trial in study.get_trials(states=(TrialState.WAITING,)):
        study.ask()  # takes the waiting trials in their order
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def _result(study: optuna.Study, out: Path) -> GridResult:
    """Trials by value; writes the best one to `best.json`."""
    trials = [
        Trial(
            params=trial.params,
            value=float(trial.values[0]),
            epoch=trial.user_attrs["epoch"],
            run=out / trial.user_attrs["run"],
            seconds=trial.user_attrs["seconds"],
        )
        for trial in _complete(study)
    ]
    if not trials:
        raise DataError(f"{out}: every trial failed; see the messages above")
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    trials.sort(key=lambda trial: sign * trial.value)
    best = canonical_json(trials[0].to_json()).encode() + b"\n"
    write_atomic(out / "best.json", lambda file: file.write(best))
    failed = [trial.params for trial in study.get_trials() if trial.state == TrialState.FAIL]
    return GridResult(trials, trials[0], failed)
