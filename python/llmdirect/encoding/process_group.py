"""The processes that torchrun starts for one command: who is who, and how they wait for each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from llmdirect.common.errors import BusyError

_PATIENCE = timedelta(days=7)  # others wait while the first counts tokens, and for the slowest at the end


@dataclass(frozen=True)
class ProcessGroup:
    """Number of this process, how many there are, and its number on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        """As torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; alone without it."""
        rank, size, local = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(int(rank), int(size), int(local or 0)) if rank and size else cls()

    @property
    def first(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """Each process of a machine takes a GPU of its own, where there are any and none is named."""
        if self.size > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return wanted

    def share(self, work: list[int]) -> list[int]:
        """This process's part of the work."""
        return work[self.rank :: self.size]

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Connects the processes for the block; `meet` works inside."""
        if self.size == 1:
            yield
            return
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def meet(self) -> None:
        """Waits until all are here. BusyError where one of them has ended."""
        if self.size == 1:
            return
        try:
            distributed.barrier()
        except RuntimeError as error:
            raise BusyError(
                f"another of the {self.size} processes has ended ({str(error).splitlines()[0]}); its message "
                "says why; run the command again, what is complete stays"
            ) from None
