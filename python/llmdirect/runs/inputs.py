"""Dataset, embedding store and encoder that a run was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmdirect.common.errors import MismatchError, MissingError
from llmdirect.data.dataset import Dataset
from llmdirect.runs.folder import RunFolder
from llmdirect.store.lexical import is_lexical
from llmdirect.store.store import EmbeddingStore

if TYPE_CHECKING:  # transformers takes seconds to import, and only new texts need it
    from llmdirect.encoding.encoders import PassageEncoder


def open_run_dataset(run: RunFolder, dataset: Path | str | None = None) -> Dataset:
    """Open the dataset that a run was trained on.

    Parameters
    ----------
    dataset
        Its present location, where it was moved.

    Raises
    ------
    FileNotFoundError
        If it is not where the run says.
    MismatchError
        If the dataset there is another one.
    """
    path = Path(dataset or run.manifest["dataset"]["path"])
    if dataset is None and not path.exists():
        raise FileNotFoundError(
            f"{path}: not found, and {run.path} was trained on it; give its present location as `dataset`"
        )
    opened = Dataset.open(path)
    check_dataset(run, opened)
    return opened


def check_dataset(run: RunFolder, dataset: Dataset) -> None:
    """Raise MismatchError unless the run was trained on this very dataset."""
    expected = run.manifest["dataset"]["hash"]
    if dataset.hash != expected:
        raise MismatchError(
            f"{run.path} was trained on dataset {expected[:12]} ({run.manifest['dataset']['path']}), "
            f"{dataset.path} is {dataset.hash[:12]}: test a run on its own dataset, or train on this one"
        )


def open_run_store(run: RunFolder, dataset: Path | None = None) -> EmbeddingStore:
    """Open the store that a run was trained on; dataset: folder of the moved dataset that may hold it.

    Raises MismatchError where the store there is another one.
    """
    path = Path(run.manifest["store"]["path"])
    moved = None if dataset is None else dataset / "stores" / path.name
    store = EmbeddingStore.open(moved if moved is not None and moved.exists() else path)
    if store.hash != run.manifest["store"]["hash"]:
        raise MismatchError(
            f"{store.path}: is not the store that {run.path} was trained on; run `llmdirect train` again"
        )
    return store


def load_run_encoder(run: RunFolder, encoder: str | None = None, device: str = "auto") -> "PassageEncoder":
    """Load the encoder with which a run's embeddings were computed.

    Parameters
    ----------
    encoder
        Its location, where its id does not suffice; for "lexical", the folder of the store.

    Raises
    ------
    MissingError
        If it cannot be found.
    MismatchError
        If it is another encoder.
    ValueError
        If a device is given for a store of word vectors.
    """
    from llmdirect.encoding.encoders import load_encoder
    from llmdirect.encoding.encoders.lexical import LexicalEncoder
    from llmdirect.encoding.encoders.registered import registered_encoder

    expected = run.manifest["store"]["encoder"]
    if is_lexical(expected):
        if device not in ("auto", "cpu"):
            raise ValueError(f"`device`: {device!r} has no effect on word vectors; leave it out")
        return LexicalEncoder.from_store(Path(encoder or run.manifest["store"]["path"]), expected)
    if "weights" not in expected:
        raise MissingError(
            f"{run.path}: was trained on {expected.get('id', 'vectors')}, which is no language model, so no "
            "text can be encoded; train on a store that `llmdirect precompute` made with an encoder"
        )
    if expected.get("registered"):
        own = registered_encoder(encoder or expected["id"])
        if own is None:
            raise MissingError(
                f"{run.path}: was trained on embeddings of {expected['id']!r}, an encoder registered "
                f"from Python; call `llmdirect.register_encoder({expected['id']!r}, ...)` first"
            )
        if own.describe()["weights"] != expected["weights"]:
            raise MismatchError(
                f"{run.path}: was trained on embeddings of another version of the encoder {expected['id']!r}"
            )
        return own
    if encoder is None and expected["revision"] is None and not Path(expected["id"]).is_dir():
        raise MissingError(
            f"{run.path}: the encoder of its embeddings was in a folder {expected['id']!r}, which is not "
            "here; name its present location with `encoder`"
        )
    try:
        loaded = load_encoder(encoder or expected["id"], device=device, max_length=expected["max_length"])
    except MissingError as error:
        if encoder is not None or (device not in ("auto", "cpu") and "`device`" in str(error)):
            raise
        raise MissingError(f"{error}; or name a folder that holds it with `encoder`") from None
    description = loaded.describe()
    if (description["weights"], description["tokenizer"]) != (expected["weights"], expected["tokenizer"]):
        raise MismatchError(
            f"{encoder or expected['id']} is not the encoder of the embeddings that {run.path} was trained "
            f"on ({expected['id']}, weights {expected['weights'][:12]}); name its location with `encoder`"
        )
    return loaded
