"""Settings of `precompute`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmdirect.common.ranges import Range, check_range
from llmdirect.encoding.encoders.sources import resolve, slug
from llmdirect.store.token_format import TokenFormat

DEFAULT_ENCODER: Final = "google/t5gemma-2b-2b-ul2"
SIZES: Final = Range(1, 2**31 - 1)
"""Range of numbers of tokens."""


@dataclass(frozen=True)
class Options:
    """Settings of `precompute`, under the names of its parameters.

    Raises
    ------
    ValueError
        For a number of tokens outside `SIZES`.
    """

    dataset: Path
    encoder: str
    """Name on the Hub, folder of a checkpoint, or "minilm"."""
    token_format: TokenFormat
    device: str
    token_budget: int | None
    shard_tokens: int
    max_length: int | None
    revision: str | None
    store: str | None
    """Name of the store in the dataset, or path of its folder; None names it by encoder and format."""

    def __post_init__(self) -> None:
        for setting in ("token_budget", "shard_tokens", "max_length"):
            if (value := getattr(self, setting)) is not None:
                check_range(setting, value, SIZES)

    @property
    def folder(self) -> Path:
        """Folder of the store: DATASET/stores/NAME, or the path given as `store`."""
        name = self.store or f"{slug(resolve(self.encoder, self.revision).id)}-{self.token_format.name}"
        return named_folder(self.dataset, name)


def named_folder(dataset: Path, store: str) -> Path:
    """Folder of a store to write: DATASET/stores/NAME for a name, or a path."""
    return Path(store) if os.sep in store else dataset / "stores" / slug(store)
