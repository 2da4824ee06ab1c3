"""Where PyTorch computes."""

import torch

from llmdirect.common.errors import MissingError


def has_own_memory(device: torch.device) -> bool:
    """Whether the device refuses what does not fit; on a CPU the system would end the process."""
    return device.type != "cpu"


def find_device(device: str) -> torch.device:
    """The device of this name; "auto" is CUDA where there is one, else the CPU.

    Raises MissingError where it is asked for and not there, ValueError for an unknown name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}; auto, cpu, cuda, cuda:1, mps, …") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise MissingError(
            f"device {device} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices here; "
            "install a CUDA build of PyTorch and its driver, or take --device cpu"
        )
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise MissingError("device mps was asked for, but PyTorch has no Metal here; take --device cpu")
    return place
