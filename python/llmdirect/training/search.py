"""Search over settings: Optuna proposes, every trial is a run folder, the table grows as trials end.

RUNS/journal.log      Optuna's journal: what was tried, whatever happened to the process
RUNS/<settings>/      a run, as `train` makes it
RUNS/best.json        the best run so far, by name
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from llmdirect.choices import Preset
from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import digest, write_atomic
from llmdirect.common.locks import single_writer
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json, canonical_json
from llmdirect.config import configure
from llmdirect.data.dataset import Dataset
from llmdirect.data.prepare import open_or_prepare
from llmdirect.store.store import open_store
from llmdirect.training.settings import Value
from llmdirect.training.train import check_setup, train_on

SEARCHED: Mapping[Preset, Mapping[str, Sequence[Any]]] = {
    "default": {"lr": (3e-4, 1e-3, 3e-3), "history_dropout": (0.4, 0.7, 0.85)},
    "paper": {"lr": (1e-2, 1e-3, 1e-4), "rate": (1e-7, 1e-6, 1e-5), "aspects": (3, 5, 8)},
}
"""What varies where nothing is said: what data disagree on most; for the paper's preset, what the published
scripts search around the published values (learning rate, gamma 2, aspects)."""


def grid(
    dataset: Path | str,
    out: Path | str,
    *,
    params: Mapping[str, Sequence[Value]] | None = None,
    preset: Preset = "default",
    settings: Mapping[str, Any] | None = None,
    sampler: str = "grid",
    trials: int | None = None,
    seed: int = 0,
    store: Path | str | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Trains a run for each combination of `params` (sampler "grid"), or for `trials` of them ("tpe").

    settings: what all runs have in common. Without params: `SEARCHED` of the preset. A trial that
    was cut off is run again; finished ones are not. Only the validation split is looked at.

    Returns {"trials": [{"params", "value", "epoch", "run", "seconds"}], "best": …, "failed": [params]}, best
    first. A run that fails (its loss diverges, say) is listed and does not end the search.
    Raises ValueError for unknown settings and for runs whose values do not compare, MismatchError where
    `out` holds the search of another data set, other common settings or other params.
    """
    params = {name: list(values) for name, values in (params or SEARCHED[preset]).items()}
    if sampler not in ("grid", "tpe"):
        raise ValueError(f"sampler {sampler!r}; one of grid, tpe")
    found, out = open_or_prepare(dataset, progress), Path(out)
    embeddings = open_store(found.path, store)
    common = {"preset": preset, **{k: v for k, v in (settings or {}).items() if v is not None}}
    wanted = {"dataset": found.hash, "store": embeddings.hash, "common": common, "params": params}
    combinations = [dict(zip(params, values, strict=True)) for values in itertools.product(*params.values())]
    lower_is_better = _check_combinations(found, common, combinations)
    with single_writer(out):
        _claim(out / "search.json", wanted)
        study = _study(out / "journal.log", "minimize" if lower_is_better else "maximize")
        total = len(combinations) if sampler == "grid" else trials or 20
        with progress.task("Trials", total, "trials") as task:
            task.advance(len(_complete(study)))

            def objective(trial: optuna.Trial) -> float:
                chosen: dict[str, Any] = {
                    name: trial.suggest_categorical(name, values) for name, values in params.items()
                }
                model, training = configure(**{**common, **chosen})
                folder = out / run_name(chosen)
                result = train_on(
                    found, embeddings, folder, model=model, training=training, progress=progress
                )
                trial.set_user_attr("run", folder.name)
                trial.set_user_attr("epoch", result["best_epoch"])
                trial.set_user_attr("seconds", result["seconds"])
                task.advance()
                return float(result["best_value"])

            def run_one(combination: Mapping[str, Value] | None) -> None:
                if combination is not None:
                    study.enqueue_trial(dict(combination))
                # A sampler of its own for each trial: a search that goes on must not repeat its first draws.
                study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials()))
                study.optimize(objective, n_trials=1, catch=(DataError,))

            if sampler == "grid":
                ended = {canonical_json(trial.params) for trial in _complete(study)}
                for combination in combinations:
                    if canonical_json(combination) not in ended:
                        run_one(combination)
            else:
                for _ in range(total - len(_complete(study))):
                    run_one(None)
        table = _table(study, out)
        if not table:
            raise DataError(f"{out}: every trial failed; see the messages above")
        write_atomic(out / "best.json", lambda file: file.write(canonical_json(table[0]).encode() + b"\n"))
        failed = [trial.params for trial in study.get_trials() if trial.state == TrialState.FAIL]
        return {"trials": table, "best": table[0], "failed": failed}


def _check_combinations(
    dataset: Dataset, common: Mapping[str, Any], combinations: Sequence[Mapping[str, Value]]
) -> bool:
    """Refuses settings that cannot be, and values that do not compare, before the first trial.

    Returns whether the smaller value is the better one (the error of predicted ratings).
    """
    watched = set()
    for combination in combinations:
        model, training = configure(**{**common, **combination})
        try:
            check_setup(dataset, model, training)
        except DataError:  # no setting helps
            raise
        except ValueError as error:
            told = ", ".join(f"{name}={value}" for name, value in combination.items())
            raise ValueError(f"`param` {told}: {error}") from None
        watched.add("mse" if training.objective == "rating" else training.metric)
    if len(watched) > 1:
        raise ValueError(f"`param`: runs that watch {' and '.join(sorted(watched))} do not compare")
    return watched == {"mse"}


def run_name(chosen: Mapping[str, Value]) -> str:
    """A folder name that says the settings; a long one is cut and ends in a hash."""
    name = ",".join(f"{key}={value}" for key, value in sorted(chosen.items())) or "run"
    return name if len(name) <= 120 else f"{name[:100]}-{digest(name)[:12]}"


def _claim(path: Path, wanted: Json) -> None:
    """Writes what the search is of; MismatchError where the folder holds another one."""
    if path.exists():
        there = json.loads(path.read_bytes())
        different = [name for name in wanted if there.get(name) != wanted[name]]
        if different:
            raise MismatchError(
                f"{path.parent}: holds a search of another {', '.join(different)}; choose another --out"
            )
        return
    write_atomic(path, lambda file: file.write(canonical_json(wanted).encode() + b"\n"))


def _study(journal: Path, direction: Literal["minimize", "maximize"]) -> optuna.Study:
    """The search so far; what a killed run left running or waiting is given up."""
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
        study.ask()  # takes the waiting ones in their order
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def _table(study: optuna.Study, out: Path) -> list[Json]:
    rows = [
        {
            "params": trial.params,
            "value": trial.value,
            "epoch": trial.user_attrs["epoch"],
            "run": str(out / trial.user_attrs["run"]),
            "seconds": trial.user_attrs["seconds"],
        }
        for trial in _complete(study)
    ]
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    return sorted(rows, key=lambda row: sign * row["value"])
