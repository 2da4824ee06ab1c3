"""Run folder of a training: the best model with its score tables, and the last state, to resume from.

manifest.json                      the only commit: names the files, holds config, progress and hashes
best/model-<hash>.safetensors      parameters of the best epoch
best/lexicon-<hash>.safetensors    vectors of words, appended to the embeddings of their tokens
best/tables-<hash>.safetensors     score tables, once training has ended
best/catalogue-<hash>.json         external ids, titles, names of aspects, metrics with the collaborative term
last/model-, mean-, optimiser-<hash>.safetensors, last/state-<hash>.json
history.jsonl                      one line an epoch, a copy of the history in the state
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import (
    MANIFEST,
    file_digest,
    file_inside,
    read_json,
    read_manifest,
    write_atomic,
    write_hashed,
    write_manifest,
)
from llmdirect.common.ranges import check_names
from llmdirect.common.schema import check_schema
from llmdirect.common.types import Json, canonical_json
from llmdirect.config import ModelConfig, TrainConfig, current_settings
from llmdirect.runs.schema import RunManifest

FORMAT, VERSION = "llmdirect-run", 4
_OLDEST = 3
"""Version 3 has some settings under former names and is read, too."""

_MADE_BY = "llmdirect train"
_CURE = f"run `{_MADE_BY}` again with another `out`, or with `overwrite=True`"

_FOLDERS = ("best", "last")

_DATA_FILE = re.compile(
    r"(model|lexicon|mean|tables|catalogue|optimiser|state)-[0-9a-f]{32}\.(safetensors|json)"
)


@dataclass(eq=False)
class RunFolder:
    """Files of a run, read and committed."""

    path: Path
    manifest: Json
    """Content of manifest.json at the last commit, with the changes of `drop`."""

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Open the run in a folder.

        Raises
        ------
        FileNotFoundError
            If there is no run.
        DataError
            If its manifest is damaged: a part is missing, unknown, of another type or out of its bounds.
        """
        manifest = read_manifest(Path(path), FORMAT, VERSION, _MADE_BY, oldest=_OLDEST)
        check_schema(Path(path) / MANIFEST, manifest, RunManifest, _CURE)
        if manifest["version"] < VERSION:
            config = {name: current_settings(settings) for name, settings in manifest["config"].items()}
            manifest = {**manifest, "version": VERSION, "config": config}
        run = cls(Path(path), manifest)
        run._check_config()
        return run

    @classmethod
    def read(
        cls, path: Path | str, tensors: Sequence[str], values: str
    ) -> tuple["RunFolder", list[dict[str, Tensor]], Json]:
        """Read files of one commit, while training may make further commits.

        Parameters
        ----------
        tensors
            Names of tensor files, such as "best/model".
        values
            Name of a JSON file.

        Returns
        -------
        run, tensors, values
            Tensors in the order of the names.

        Raises
        ------
        FileNotFoundError, DataError
            As `open`; DataError for a file that is missing or damaged, too.
        """
        while True:
            run = cls.open(path)
            try:
                return run, [run.tensors(name) for name in tensors], run.values(values)
            except (DataError, FileNotFoundError):
                # The files of a commit are removed by the next one.
                if cls.open(path).manifest == run.manifest:
                    raise

    @classmethod
    def open_or_create(cls, path: Path, identity: Json, overwrite: bool = False) -> "RunFolder":
        """Open the run of this identity in a folder, or create it.

        Parameters
        ----------
        identity
            Config, dataset and store. A run with another number of epochs is the same run, resumed.
        overwrite
            Whether to replace a run of another identity.

        Raises
        ------
        MismatchError
            If the folder holds a run of another identity.
        NotADirectoryError
            If the path is a file.
        """
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path}: is a file; `out` names a folder")
        fresh = {"format": FORMAT, "version": VERSION, **identity, "files": {}, "finished": False}
        if (path / MANIFEST).exists() and not overwrite:
            run = cls.open(path)
            different = list(_differences(_comparable(run.manifest), _comparable(fresh)))
            if different:
                raise MismatchError(
                    f"{path}: holds another run ({'; '.join(different)}); choose another `out`, or "
                    "replace it with `overwrite=True`"
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
        """Whether training has ended and score tables exist."""
        return bool(self.manifest["finished"])

    @property
    def weights_hash(self) -> str:
        """Hash of the parameters of the best epoch."""
        return str(self.manifest["files"]["best/model"]["hash"])

    @property
    def model_config(self) -> ModelConfig:
        """Configuration of the model."""
        return ModelConfig(**self.manifest["config"]["model"])

    @property
    def train_config(self) -> TrainConfig:
        """Configuration of the training."""
        return TrainConfig(**self.manifest["config"]["training"])

    def load_parameters(self, model: nn.Module, name: str, parameters: Mapping[str, Tensor]) -> None:
        """Load the parameters of a file into a model, which may be on the device "meta" to be checked only.

        Raises
        ------
        DataError
            If they are not those of the model: of other names or shapes than the manifest's configuration
            gives.
        """
        expected = model.state_dict()
        different = [
            f"{key} {_shape(parameters.get(key))}, expected {_shape(expected.get(key))}"
            for key in sorted({*expected, *parameters})
            if _shape(parameters.get(key)) != _shape(expected.get(key))
        ]
        if different:
            raise DataError(
                f"{self.file(name)}: not of the model of `config.model` in {self.path / MANIFEST} "
                f"({'; '.join(different[:3])}); {self.cure(name)}"
            )
        if not any(tensor.is_meta for tensor in expected.values()):
            model.load_state_dict(dict(parameters))

    def _check_config(self) -> None:
        """Check the settings in the manifest: names, types, bounds; else DataError."""
        for part, config in (("model", ModelConfig), ("training", TrainConfig)):
            settings = self.manifest["config"][part]
            try:
                check_names(settings, config)
                config(**settings)
            except ValueError as error:
                raise DataError(f"{self.path / MANIFEST}: config.{part}: {error}; {_CURE}") from None

    def write(self, name: str, content: Mapping[str, Tensor] | Json) -> Json:
        """Write a file of tensors (safetensors) or plain values (JSON), without a commit.

        Parameters
        ----------
        name
            Such as "best/model".

        Returns
        -------
        entry
            Manifest entry of the file, for `commit`.
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
        """Add files to the manifest by name, then remove those that they replaced."""
        self.manifest = {**self.manifest, "files": {**self.manifest["files"], **files}, "finished": finished}
        write_manifest(self.path, self.manifest)
        lines = "".join(canonical_json(entry) + "\n" for entry in history).encode()
        write_atomic(self.path / "history.jsonl", lambda file: file.write(lines))
        self.clean()

    def drop(self, *names: str) -> None:
        """Leave files out of the next commit."""
        files = {name: entry for name, entry in self.manifest["files"].items() if name not in names}
        self.manifest = {**self.manifest, "files": files}

    def clean(self) -> None:
        """Remove data files that the manifest does not name: replaced ones, and those of a killed process."""
        named = {(name.split("/")[0], entry["name"]) for name, entry in self.manifest["files"].items()}
        for folder in _FOLDERS:
            for path in (self.path / folder).glob("*"):
                if _DATA_FILE.fullmatch(path.name) and (folder, path.name) not in named:
                    path.unlink()
            for path in (self.path / folder).glob(".*.tmp*"):
                path.unlink()

    def is_complete(self, *names: str) -> bool:
        """Whether these files exist and are undamaged."""
        try:
            for name in names:
                self._checked(name)
        except DataError:
            return False
        return True

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of a file, on the CPU; DataError where it is missing or damaged."""
        path = self._checked(name)
        try:
            return load_file(path)
        except (SafetensorError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); {self.cure(name)}") from None

    def values(self, name: str) -> Json:
        """Plain values of a file; DataError where it is missing or damaged."""
        path = self._checked(name)
        try:
            result: Json = read_json(path)
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON ({error}); {self.cure(name)}") from None
        return result

    def _checked(self, name: str) -> Path:
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise DataError(f"{self.path}: has no {name}, training has not ended; {self.cure('best/tables')}")
        path = self.file(name)
        if not path.exists():
            raise DataError(f"{path}: missing, though {self.path / MANIFEST} names it; {self.cure(name)}")
        if path.stat().st_size != entry["bytes"] or file_digest(path) != entry["hash"]:
            raise DataError(f"{path}: damaged, its bytes are not those that were written; {self.cure(name)}")
        return path

    def file(self, name: str) -> Path:
        """Path of a file, which the manifest must name."""
        return file_inside(self.path / name.split("/")[0], self.manifest["files"][name]["name"])

    def cure(self, name: str) -> str:
        """What to do about a file that is missing or damaged."""
        dataset = self.manifest["dataset"]["path"]
        cure = f"run `llmdirect train` on {dataset} again with `out={self.path}` and the same settings"
        # Tables are rebuilt from the best parameters; nothing else can be.
        return cure if name in ("best/tables", "best/catalogue") else f"{cure}, and `overwrite=True`"


def _shape(tensor: Tensor | None) -> str:
    """Shape of a tensor in a message; "missing" for none."""
    return "missing" if tensor is None else str(list(tensor.shape))


def _comparable(manifest: Json) -> Json:
    """Identity of a run: settings and hashes of inputs, without paths and the number of epochs."""
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


def _differences(stored: Json, requested: Json) -> list[str]:
    return [
        f"{key} is {stored.get(key)!r} there, {value!r} here"
        for key, value in requested.items()
        if stored.get(key) != value
    ]
