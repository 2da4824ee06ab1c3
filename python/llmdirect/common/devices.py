"""Devices of PyTorch."""

import torch

from llmdirect.common.errors import MissingError


def has_own_memory(device: torch.device) -> bool:
    """Whether the device has its own memory, so that too large an allocation raises an error.

    On a CPU the operating system may end the process instead.
    """
    return device.type != "cpu"


def find_device(device: str) -> torch.device:
    """Device of this name.

    Parameters
    ----------
    device
        "cpu", "cuda", "cuda:1", "mps", …, or "auto": CUDA where it is available, else the CPU.

    Raises
    ------
    MissingError
        If PyTorch does not see the device.
    ValueError
        If there is no such name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise ValueError(f"`device={device!r}` is unknown; one of auto, cpu, cuda, cuda:1, mps, …") from None
    if parsed.type == "cuda" and (parsed.index or 0) >= torch.cuda.device_count():
        raise MissingError(
            f"device {device} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices here; "
            'install a CUDA build of PyTorch and its driver, or choose `device="cpu"`'
        )
    if parsed.type == "mps" and not torch.backends.mps.is_available():
        raise MissingError('device mps was asked for, but PyTorch has no Metal here; choose `device="cpu"`')
    return parsed
