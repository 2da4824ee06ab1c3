"""Location of the stores of a dataset."""

import os
from pathlib import Path

from llmdirect.common.errors import MissingError


def store_folder(dataset: Path, store: str | None) -> Path:
    """Folder of a store of a dataset.

    Parameters
    ----------
    dataset
        Folder of the dataset.
    store
        Name of the store, path of a store elsewhere, or None for the only store of the dataset.

    Raises
    ------
    FileNotFoundError
        If the dataset has no store, or there is no such path.
    MissingError
        If the name is unknown, or there are several stores and no name.
    """
    if store is not None and os.sep in store:
        if not Path(store).is_dir():
            raise FileNotFoundError(f"{store}: no such folder")
        return Path(store)
    stores = dataset / "stores"
    if not stores.is_dir():
        raise FileNotFoundError(f"{stores}: not found; `llmdirect precompute {dataset}` makes it")
    names = sorted(path.name for path in stores.iterdir() if path.is_dir())
    if not names:
        raise FileNotFoundError(f"{stores}: holds no store; `llmdirect precompute {dataset}` makes one")
    listed = ", ".join(names)
    if store is not None and store not in names:
        raise MissingError(f"{stores}: no store named {store!r}; there is {listed}")
    if store is None and len(names) > 1:
        raise MissingError(f"{stores}: holds several stores; choose with `store` one of {listed}")
    return stores / (store or names[0])
