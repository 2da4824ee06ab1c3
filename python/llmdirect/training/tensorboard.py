"""Optional TensorBoard writer of epoch figures."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmdirect.common.errors import MissingError
from llmdirect.common.types import Json


def flat(entry: Json, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a nested record by their path."""
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


class _NoScalars:
    def add_scalar(self, name: str, value: float, step: int) -> None:
        pass


@contextmanager
def scalars(folder: Path | None) -> Iterator[Any]:
    """TensorBoard writer to a folder, or a substitute that writes nothing (None)."""
    if folder is None:
        yield _NoScalars()
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingError("tensorboard is not installed: `pip install llmdirect[tensorboard]`")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        yield writer
