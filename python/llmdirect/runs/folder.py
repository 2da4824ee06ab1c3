"""A run folder: the best model with its ranking tables, and the last state, from which training goes on.

manifest.json                      the only commit: names the files, holds config, progress and hashes
best/model-<hash>.safetensors      parameters of the best epoch
best/lexicon-<hash>.safetensors    numbers of each word, beside the embeddings of its tokens
best/tables-<hash>.safetensors     what ranking needs, once training has ended; and what users, items and
best/catalogue-<hash>.json         aspects are called, with the figures of the collaborative term
last/model-, mean-, optimiser-<hash>.safetensors, last/state-<hash>.json
history.jsonl                      one line an epoch, a copy of what the state holds
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import (
    MANIFEST,
    file_digest,
    read_manifest,
    write_atomic,
    write_hashed,
    write_manifest,
)
from llmdirect.common.types import Json, canonical_json
from llmdirect.config import ModelConfig, TrainConfig, current_settings

FORMAT, VERSION = "llmdirect-run", 4
_OLDEST = 3
"""Version 3 has some settings under other names and is read as well."""

_MADE_BY = "llmdirect train DATASET --out RUN"

_FOLDERS = ("best", "last")

_DATA_FILE = re.compile(
    r"(model|lexicon|mean|tables|catalogue|optimiser|state)-[0-9a-f]{32}\.(safetensors|json)"
)


@dataclass(eq=False)
class RunFolder:
    """Reads and commits the files of a run. `manifest` is what the last commit said."""

    path: Path
    manifest: Json

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """The run in this folder. FileNotFoundError where there is none, DataError where it is damaged."""
        manifest = read_manifest(Path(path), FORMAT, VERSION, _MADE_BY, oldest=_OLDEST)
        if manifest["version"] < VERSION:
            config = {name: current_settings(settings) for name, settings in manifest["config"].items()}
            manifest = {**manifest, "version": VERSION, "config": config}
        return cls(Path(path), manifest)

    @classmethod
    def read(
        cls, path: Path | str, tensors: Sequence[str], values: str
    ) -> tuple["RunFolder", list[dict[str, Tensor]], Json]:
        """The run with these of its files, all of one commit, though training may go on. Raises as `open`."""
        while True:
            run = cls.open(path)
            try:
                return run, [run.tensors(name) for name in tensors], run.values(values)
            except (DataError, FileNotFoundError):
                # The files of a commit go when the next one is made.
                if cls.open(path).manifest == run.manifest:
                    raise

    @classmethod
    def open_or_create(cls, path: Path, identity: Json, overwrite: bool = False) -> "RunFolder":
        """The run of this identity in the folder: what is already there of it, or a new one.

        identity: config, dataset and store. More epochs than before are the same run, continued.
        Raises MismatchError where the folder holds a run of another identity, unless `overwrite`.
        """
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path}: is a file; --out names a folder")
        fresh = {"format": FORMAT, "version": VERSION, **identity, "files": {}, "finished": False}
        if (path / MANIFEST).exists() and not overwrite:
            run = cls.open(path)
            different = list(_differences(_comparable(run.manifest), _comparable(fresh)))
            if different:
                raise MismatchError(
                    f"{path}: holds another run ({'; '.join(different)}); choose another --out, or replace "
                    "it with --overwrite"
                )
            run.manifest["config"] = identity["config"]
            return run
        for folder in _FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
        run = cls(path, fresh)
        if (path / MANIFEST).exists():
            write_manifest(path, fresh)  # before the files that the old manifest names are removed
        return run

    @property
    def finished(self) -> bool:
        """Whether training has ended and the tables are there."""
        return bool(self.manifest["finished"])

    @property
    def weights_hash(self) -> str:
        """Hash of the best parameters."""
        return str(self.manifest["files"]["best/model"]["hash"])

    @property
    def model_config(self) -> ModelConfig:
        """Shape of the model."""
        return ModelConfig(**self.manifest["config"]["model"])

    @property
    def train_config(self) -> TrainConfig:
        """How it was trained."""
        return TrainConfig(**self.manifest["config"]["training"])

    def write(self, name: str, content: Mapping[str, Tensor] | Json) -> Json:
        """Writes tensors (safetensors) or plain values (JSON); `name` such as "best/model". Not a commit.

        Returns the file's manifest entry.
        """
        folder, stem = name.split("/")
        values = dict(content)
        if all(isinstance(value, Tensor) for value in values.values()):
            tensors = {key: value.detach().cpu().contiguous() for key, value in values.items()}
            data, suffix = save(tensors), ".safetensors"
        else:
            data, suffix = (canonical_json(values) + "\n").encode(), ".json"
        return write_hashed(self.path / folder, stem, suffix, lambda file: file.write(data))

    def commit(self, files: Mapping[str, Json], *, history: list[Json], finished: bool = False) -> None:
        """Makes `files` (by name) part of the run, then removes what they replaced."""
        self.manifest = {**self.manifest, "files": {**self.manifest["files"], **files}, "finished": finished}
        write_manifest(self.path, self.manifest)
        lines = "".join(canonical_json(entry) + "\n" for entry in history).encode()
        write_atomic(self.path / "history.jsonl", lambda file: file.write(lines))
        self.clean()

    def drop(self, *names: str) -> None:
        """Leaves these files out of the next commit."""
        files = {name: entry for name, entry in self.manifest["files"].items() if name not in names}
        self.manifest = {**self.manifest, "files": files}

    def clean(self) -> None:
        """Removes data files that the manifest does not name: replaced, or a killed run's."""
        named = {(name.split("/")[0], entry["name"]) for name, entry in self.manifest["files"].items()}
        for folder in _FOLDERS:
            for path in (self.path / folder).glob("*"):
                if _DATA_FILE.fullmatch(path.name) and (folder, path.name) not in named:
                    path.unlink()
            for path in (self.path / folder).glob(".*.tmp*"):
                path.unlink()

    def is_whole(self, *names: str) -> bool:
        """Whether these files are there, byte for byte."""
        try:
            for name in names:
                self._checked(name)
        except DataError:
            return False
        return True

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of a file, on the CPU. DataError where it is missing or damaged."""
        path = self._checked(name)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise DataError(f"{path}: damaged ({error}); {self._cure(name)}") from None

    def values(self, name: str) -> Json:
        """Plain values of a file. DataError where it is missing or damaged."""
        result: Json = json.loads(self._checked(name).read_bytes())
        return result

    def _checked(self, name: str) -> Path:
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise DataError(
                f"{self.path}: has no {name}, training has not ended; {self._cure('best/tables')}"
            )
        path = self.path / name.split("/")[0] / str(entry["name"])
        if not path.exists():
            raise DataError(f"{path}: missing, though {self.path / MANIFEST} names it; {self._cure(name)}")
        if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["hash"]:
            raise DataError(f"{path}: damaged, its bytes are not those that were written; {self._cure(name)}")
        return path

    def _cure(self, name: str) -> str:
        command = f"llmdirect train {self.manifest['dataset']['path']} --out {self.path}"
        again = f"run `{command}`, with the options it had, again"
        # Tables are made again from the best parameters; nothing else can be.
        return again if name in ("best/tables", "best/catalogue") else f"{again}, and --overwrite"


def _comparable(manifest: Json) -> Json:
    """What makes a run the same run: not where its inputs lie, nor how many epochs it may take."""
    config = manifest["config"]
    training = {
        key: value for key, value in config["training"].items() if key not in ("num_epochs", "device")
    }
    return {
        **config["model"],
        **training,
        "dataset": manifest["dataset"]["hash"],
        "store": manifest["store"]["hash"],
    }


def _differences(found: Json, wanted: Json) -> list[str]:
    return [
        f"{key} is {found.get(key)!r} there, {value!r} here"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
