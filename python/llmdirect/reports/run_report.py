"""A run as one HTML file: what went in, its training, what it is worth, and explained recommendations."""

import json
import platform
import re
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from llmdirect.common.errors import DataError
from llmdirect.common.files import check_writable, write_atomic
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig, configure
from llmdirect.data.defaults import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.report_page import render
from llmdirect.store.token_format import TokenFormat

_PACKAGES: Final = ("llmdirect", "numpy", "polars", "torch", "transformers")
_FLAGS: Final = {
    "aspects": "aspc-num",
    "contrastive": "g1",
    "rate": "g2",
    "orthogonality": "g3",
    **{
        name: name.replace("_", "-")
        for name in (
            "score_form",
            "user",
            "history_term",
            "objective",
            "lr",
            "num_epochs",
            "token_epochs",
            "batch_size",
            "negatives",
        )
    },
    **{name: name for name in ("patience", "anchor", "metric", "seed", "device")},
}
"""Settings that have a flag of `train`; all others are given with --param."""
_SWITCHES: Final = ("collaborative", "amp")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


def report(
    run: Path | str,
    out: Path | str,
    *,
    dataset: Path | str | None = None,
    scoreboard: Path | None = None,
    faithfulness: Path | None = None,
    recommendations: int = 12,
    progress: Progress = SILENT,
) -> Json:
    """Writes the file `out`, which needs no other, at once or not at all.

    dataset: where the run's dataset lies now, if it was moved. scoreboard, faithfulness: files of what
    these commands print with --json. recommendations: users, evenly spread, whose best item is explained.

    Returns {"report": path, "explained": number}. Raises DataError for a file that is not such a result, and
    what `Explainer.open` raises.
    """
    check_writable(Path(out))
    results = {
        "scoreboard": _read(scoreboard, "rows", "scoreboard DATASET"),
        "faithfulness": _read(faithfulness, "deletion", "faithfulness DATASET --parameters RUN"),
    }
    explainer = Explainer.open(run, dataset)
    trained = explainer.trained
    users = np.unique(np.linspace(0, len(trained.user_ids) - 1, recommendations).astype(int)).tolist()
    told = []
    with progress.task("Explaining", len(users), "users") as task:
        for user in users:
            candidates = explainer.candidates(user)
            if len(candidates):
                told.append(explainer.explain(user, int(candidates[0]), candidates))
            task.advance()
    lines = (trained.run.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    page = render(
        explainer,
        history=[json.loads(line) for line in lines],
        explanations=told,
        **results,
        commands=commands(explainer),
        environment=_environment(explainer),
    ).encode()
    write_atomic(Path(out), lambda file: file.write(page))
    return {"report": str(Path(out).resolve()), "explained": len(told)}


def _read(path: Path | None, key: str, command: str) -> Json | None:
    """A result that a command printed with --json."""
    if path is None:
        return None
    cure = f"make it with `llmdirect {command} --json > {path}`"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found; {cure}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}); {cure}") from None
    if not isinstance(found, dict) or key not in found:
        raise DataError(f"{path}: has no {key!r}; {cure}")
    return found


def commands(explainer: Explainer) -> list[str]:
    """What makes the run again, from the reviews on; only settings that are not the preset's are named."""
    options, place = explainer.dataset.manifest["options"], str(explainer.dataset.path)
    prepare: list[str] = ["prepare", "REVIEWS", "--out", place]
    if options["columns"]:
        prepare += ["--columns", ",".join(f"{role}={field}" for role, field in options["columns"].items())]
    if options["items"]:
        prepare += ["--items", "ITEMS"]
    for name, usual in (("k_core", 0), ("split", "random"), ("seed", DEFAULT_SEED), ("unit", "review")):
        if options[name] != usual:
            prepare += [f"--{name.replace('_', '-')}", str(options[name])]
    if options["fractions"] and tuple(options["fractions"]) != DEFAULT_FRACTIONS:
        prepare += ["--fractions", ",".join(f"{share:g}" for share in options["fractions"])]
    if options["positive"]:
        prepare += ["--positive", str(options["positive"])]
    prepare += [f"--{flag.replace('_', '-')}" for flag in ("with_summary", "skip_bad_lines") if options[flag]]
    run = explainer.trained.run
    train = ["train", place, "--out", str(run.path), *_settings(run.model_config, run.train_config)]
    encoder = _encoder(run.manifest["store"]["encoder"])
    precompute = ["precompute", place, *encoder, *_form(explainer.store.token_format)]
    stages = [prepare, precompute, ["consolidate", place], train]
    return [shlex.join(["llmdirect", *stage]) for stage in stages]


def _encoder(made_by: Json) -> list[str]:
    """Flags of `precompute` that read texts so."""
    flags = ["--model", made_by.get("id", "MODEL")]
    if _COMMIT.fullmatch(made_by.get("revision") or ""):  # what a package or a folder holds has no name
        flags += ["--revision", made_by["revision"]]
    if made_by.get("max_length") != made_by.get("model_limit"):
        flags += ["--max-length", str(made_by["max_length"])]
    return flags


def _form(form: TokenFormat) -> list[str]:
    """Flags of `precompute` that keep tokens so."""
    usual, flags = asdict(TokenFormat()), []
    for name, value in asdict(form).items():
        if value != usual[name]:
            flags += [f"--{name}", str(value)]
    return flags


def _settings(model: ModelConfig, training: TrainConfig) -> list[str]:
    flags = ["--preset", model.preset] if model.preset != "default" else []
    usual_model, usual_training = configure(model.preset, objective=training.objective)
    usual = asdict(usual_model) | asdict(usual_training)
    usual["objective"] = TrainConfig.for_preset(model.preset).objective
    different = {
        name: value
        for name, value in (asdict(model) | asdict(training)).items()
        if value != usual[name] and name != "preset"
    }
    with_flags = [name for name in _FLAGS if name in different]
    others = [name for name in different if name not in _FLAGS]
    return flags + [part for name in with_flags + others for part in _setting(name, different[name])]


def _setting(name: str, value: object) -> list[str]:
    if name in _FLAGS:
        return [f"--{_FLAGS[name]}", str(value)]
    if name in _SWITCHES:
        return [f"--no-{name}" if value is False else f"--{name}"]
    return ["--param", f"{name}={str(value).lower()}"]


def _environment(explainer: Explainer) -> dict[str, str]:
    """This machine, and what the embeddings were made with."""
    here = {name: version(name) for name in _PACKAGES}
    made = explainer.trained.run.manifest["store"]["encoder"].get("versions", {})
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        **here,
        **{f"embeddings made with {name}": str(value) for name, value in made.items()},
    }
