"""Word vectors of a store of encoder "lexical", and the train texts that they were fitted on."""

from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from llmdirect.common.errors import DataError, MismatchError
from llmdirect.common.files import digest, file_digest, file_inside, read_limited, write_atomic
from llmdirect.common.types import Json
from llmdirect.data.dataset import TRAIN, Dataset
from llmdirect.text.word_vectors import WordVectors

LEXICAL: Final = "lexical"
"""Name of the encoder."""
WORD_VECTORS: Final = "lexical.safetensors"
"""File of a store's folder with vocabulary and vectors."""
_MAX_BYTES: Final = 1 << 32


def is_lexical(encoder: Json) -> bool:
    """Whether a manifest's entry "encoder" is of word vectors that were fitted on train texts."""
    return encoder.get("id") == LEXICAL and "train_texts" in encoder


def train_texts_hash(dataset: Dataset) -> str:
    """Digest of the different texts of train; the other splits have no influence on it."""
    keys = np.ascontiguousarray(dataset.passage_keys()[dataset.passages.split == TRAIN])
    return digest(np.unique(keys.view("S16").ravel()).tobytes())


def check_train_texts(store: Path, encoder: Json, dataset: Dataset) -> None:
    """Check that the vectors of a store were fitted on the train texts of a dataset, if on any.

    Parameters
    ----------
    store
        Folder of the store.
    encoder
        Entry "encoder" of its manifest.

    Raises
    ------
    MismatchError
        If they were fitted on other texts, as where the dataset was split again: texts that are held out now
        may then be among them.
    """
    if is_lexical(encoder) and (fitted := encoder["train_texts"]) != (present := train_texts_hash(dataset)):
        raise MismatchError(
            f"{store}: its word vectors were fitted on the train texts {str(fitted)[:12]}, those of "
            f"{dataset.path} are {present[:12]} (another split, or other reviews), so held-out texts may be "
            f"among them; delete the folder, or choose another `store`, and run `llmdirect precompute` with "
            f'`encoder="{LEXICAL}"` again'
        )


def write_word_vectors(folder: Path, vectors: WordVectors) -> str:
    """Write the word vectors of a store; returns their hash."""
    names = np.frombuffer("\n".join(vectors.words).encode(), np.uint8)
    data = save({"words": names, "vectors": vectors.vectors, "channels": vectors.channels})
    path = folder / WORD_VECTORS
    write_atomic(path, lambda file: file.write(data))
    return file_digest(path)


def read_word_vectors(folder: Path, expected_hash: str) -> WordVectors:
    """Read the word vectors of a store.

    Parameters
    ----------
    folder
        Folder of the store.
    expected_hash
        `weights` of the manifest's entry "encoder".

    Raises
    ------
    DataError
        If the file is missing, damaged, or another one.
    """
    path = folder / WORD_VECTORS
    cure = f"copy it back, or delete {folder} and run `llmdirect precompute` again"
    try:
        data = read_limited(file_inside(folder, WORD_VECTORS), _MAX_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; {cure}") from None
    if file_digest(path) != expected_hash:
        raise DataError(f"{path}: not the file that the store was made with; {cure}")
    try:
        arrays = load(data)
        names = arrays["words"].tobytes().decode()
        words = tuple(names.split("\n")) if names else ()
        vectors, channels = arrays["vectors"], arrays["channels"]
        if vectors.shape != (len(words), len(channels)) or vectors.dtype != np.float16:
            raise ValueError(f"{len(words)} words, vectors {vectors.dtype} {vectors.shape}")
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); {cure}") from None
    return WordVectors(words, vectors, channels)
