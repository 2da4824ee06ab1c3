"""Process group of the processes that torchrun starts for one command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from llmdirect.common.errors import BusyError

_TIMEOUT = timedelta(days=7)  # of a barrier: others wait while the main process counts tokens


@dataclass(frozen=True)
class ProcessGroup:
    """Process group of torchrun, without communication other than barriers."""

    rank: int = 0
    """Index of this process."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Index of this process on its machine."""

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        """Process group of the variables RANK, WORLD_SIZE and LOCAL_RANK; one process without them."""
        rank, size, local_rank = (os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(int(rank), int(size), int(local_rank or 0)) if rank and size else cls()

    @property
    def is_main(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """Device of this process: its own GPU for "auto" and "cuda" in a group on a machine with GPUs."""
        if self.size == 1 or device not in ("auto", "cuda"):
            return device
        import torch  # takes seconds, and not every encoder needs it

        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else device

    def partition(self, shards: list[int]) -> list[int]:
        """Shards of this process."""
        return shards[self.rank :: self.size]

    @contextmanager
    def join(self) -> Iterator[None]:
        """Connect the processes for the duration of the block, in which `barrier` works."""
        if self.size == 1:
            yield
            return
        from torch import distributed

        distributed.init_process_group("gloo", timeout=_TIMEOUT)
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def barrier(self) -> None:
        """Wait until all processes reach the barrier.

        Raises
        ------
        BusyError
            If another process has ended.
        """
        if self.size == 1:
            return
        from torch import distributed

        try:
            distributed.barrier()
        except RuntimeError as error:
            raise BusyError(
                f"another of the {self.size} processes has ended ({str(error).splitlines()[0]}); its message "
                "says why; run the command again, what is complete stays"
            ) from None
