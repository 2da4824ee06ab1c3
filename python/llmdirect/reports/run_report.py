"""Report of a run as one HTML file, with the shell commands that reproduce it."""

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

from llmdirect.choices import DEFAULT_FRACTIONS, DEFAULT_SEED
from llmdirect.common.errors import DataError
from llmdirect.common.files import check_writable, write_atomic
from llmdirect.common.progress import SILENT, Progress
from llmdirect.common.types import Json
from llmdirect.config import ModelConfig, TrainConfig, configure
from llmdirect.encoding.lexical import DIMENSIONS
from llmdirect.explanation.explainer import Explainer
from llmdirect.reports.report_page import render
from llmdirect.store.lexical import is_lexical
from llmdirect.store.token_format import TokenFormat

_PACKAGES: Final = ("llmdirect", "numpy", "polars", "torch", "transformers")
_TRAIN_OPTIONS: Final = {
    "aspects": "--aspc-num",
    "contrastive": "--g1",
    "rate": "--g2",
    "orthogonality": "--g3",
    "score_form": "--score-form",
    "user": "--user",
    "history_term": "--history-term",
    "objective": "--objective",
    "liked": "--liked",
    "lr": "--lr",
    "num_epochs": "--num-epochs",
    "token_epochs": "--token-epochs",
    "batch_size": "--batch-size",
    "negatives": "--negatives",
    "patience": "--patience",
    "anchor": "--anchor",
    "metric": "--metric",
    "seed": "--seed",
    "device": "--device",
}
"""Setting -> option of `llmdirect train`, in the order of the report's commands.

_SWITCHES are given as `--name` or `--no-name`, all other settings as `--param name=value`.
"""
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
    """Write the report of a run as one self-contained HTML file, atomically.

    Parameters
    ----------
    run
        Run folder.
    out
        HTML file to write.
    dataset
        Present location of the run's dataset, if it was moved.
    scoreboard, faithfulness
        Files with the JSON output of these commands.
    recommendations
        Number of users, evenly spread over the data, whose best item is explained.

    Returns
    -------
    dict
        "report": path of the file, "explained": number of explanations.

    Raises
    ------
    DataError
        If a file is not the output of its command; also what `Explainer.open` raises.
    """
    check_writable(Path(out))
    results = {
        "scoreboard": _read(scoreboard, "protocols", "scoreboard DATASET"),
        "faithfulness": _read(faithfulness, "deletion", "faithfulness DATASET --parameters RUN"),
    }
    explainer = Explainer.open(run, dataset)
    trained = explainer.trained
    users = np.unique(np.linspace(0, len(trained.users.ids) - 1, recommendations).astype(int)).tolist()
    explanations = []
    with progress.task("Explaining", len(users), "users") as task:
        for user in users:
            candidates = explainer.candidates(user)
            if len(candidates):
                explanations.append(explainer.explain(user, int(candidates[0]), candidates))
            task.advance()
    lines = (trained.run.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    page = render(
        explainer,
        history=[json.loads(line) for line in lines],
        explanations=explanations,
        **results,
        commands=commands(explainer),
        environment=_environment(explainer),
    ).encode()
    write_atomic(Path(out), lambda file: file.write(page))
    return {"report": str(Path(out).resolve()), "explained": len(explanations)}


def _read(path: Path | None, key: str, command: str) -> Json | None:
    """Output of a command with --json; `key` is one of its keys."""
    if path is None:
        return None
    cure = f"write it with `llmdirect {command} --json > {path}`"
    try:
        result = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found; {cure}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}); {cure}") from None
    if not isinstance(result, dict) or key not in result:
        raise DataError(f"{path}: has no {key!r}; {cure}")
    return result


def commands(explainer: Explainer) -> list[str]:
    """Shell commands that reproduce the run from the reviews; settings of the preset are omitted."""
    options, dataset = explainer.texts.dataset.manifest["options"], str(explainer.texts.dataset.path)
    prepare: list[str] = ["prepare", "REVIEWS", "--out", dataset]
    if options["columns"]:
        prepare += ["--columns", ",".join(f"{role}={field}" for role, field in options["columns"].items())]
    if options["items"]:
        prepare += ["--items", "ITEMS"]
    for key, option, default in (
        ("k_core", "--k-core", 0),
        ("split", "--split", "random"),
        ("unit", "--passage-unit", "review"),
    ):
        if options[key] != default:
            prepare += [option, str(options[key])]
    if options["split"] == "random" and options["seed"] != DEFAULT_SEED:
        prepare += ["--seed", str(options["seed"])]
    if options["fractions"] and tuple(options["fractions"]) != DEFAULT_FRACTIONS:
        prepare += ["--fractions", ",".join(f"{share:g}" for share in options["fractions"])]
    if options["positive"]:
        prepare += ["--positive", str(options["positive"])]
    prepare += [f"--{flag.replace('_', '-')}" for flag in ("with_summary", "skip_bad_lines") if options[flag]]
    run = explainer.trained.run
    train = ["train", dataset, "--out", str(run.path), *_settings(run.model_config, run.train_config)]
    encoder = _encoder(run.manifest["store"]["encoder"])
    precompute = ["precompute", dataset, *encoder, *_token_format(explainer.texts.store.token_format)]
    stages = [prepare, precompute, ["consolidate", dataset], train]
    return [shlex.join(["llmdirect", *stage]) for stage in stages]


def _encoder(manifest: Json) -> list[str]:
    """Options of `precompute` for the encoder of a store's manifest."""
    if "vectors" in manifest:
        return ["--embeddings", "FILE"]
    flags = ["--encoder", manifest.get("id", "ENCODER")]
    if _COMMIT.fullmatch(manifest.get("revision") or ""):  # a package or a folder has no revision
        flags += ["--revision", manifest["revision"]]
    if is_lexical(manifest) and manifest["dimensions"] != DIMENSIONS:
        flags += ["--dimensions", str(manifest["dimensions"])]
    if manifest.get("max_length") != manifest.get("model_limit"):
        flags += ["--max-length", str(manifest["max_length"])]
    return flags


def _token_format(token_format: TokenFormat) -> list[str]:
    """Options of `precompute` for a token format."""
    defaults, flags = asdict(TokenFormat()), []
    for name, value in asdict(token_format).items():
        if value != defaults[name]:
            flags += [f"--{name}", str(value)]
    return flags


def _settings(model: ModelConfig, training: TrainConfig) -> list[str]:
    """Options of `train` for the settings that differ from the preset."""
    flags = ["--preset", model.preset] if model.preset != "default" else []
    default_model, default_training = configure(model.preset, objective=training.objective)
    defaults = asdict(default_model) | asdict(default_training)
    defaults["objective"] = TrainConfig.for_preset(model.preset).objective
    different = {
        name: value
        for name, value in (asdict(model) | asdict(training)).items()
        if value != defaults[name] and name != "preset"
    }
    with_option = [name for name in _TRAIN_OPTIONS if name in different]
    others = [name for name in different if name not in _TRAIN_OPTIONS]
    return flags + [part for name in with_option + others for part in _setting(name, different[name])]


def _setting(name: str, value: object) -> list[str]:
    if name in _TRAIN_OPTIONS:
        return [_TRAIN_OPTIONS[name], str(value)]
    if name in _SWITCHES:
        return [f"--no-{name}" if value is False else f"--{name}"]
    return ["--param", f"{name}={str(value).lower()}"]


def _environment(explainer: Explainer) -> dict[str, str]:
    """Versions on this machine, and those that encoded the texts."""
    installed = {name: version(name) for name in _PACKAGES}
    encoded_with = explainer.trained.run.manifest["store"]["encoder"].get("versions", {})
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        **installed,
        **{f"embeddings made with {name}": str(value) for name, value in encoded_with.items()},
    }
