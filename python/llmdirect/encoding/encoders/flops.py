"""How much arithmetic an encoder does, how much a device could do, and what keeps one from the other."""

import ctypes
import statistics
import sys
import time
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedModel

# Dense matrix products in bfloat16 by the makers' data sheets, in operations a second; the longer name first.
_PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
}
_SIDE = 768

# Options of glibc's mallopt: how much freed memory stays, and what size is asked of the system each time.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """From now on what this process frees stays with it, up to 1 GB; on Linux with glibc, else nothing.

    A batch on the CPU frees its buffers and needs the same ones at once. Given back to the system, they would
    come back page by page, each page zeroed: a tenth of MiniLM's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(option, 1 << 30)


def arithmetic(model: PreTrainedModel) -> tuple[float, float]:
    """Floating-point operations of the matrix products: (a token, a pair of tokens of one sequence).

    Two a weight of each linear layer and token; attention adds 4 · width a layer and pair. A sliding window
    is not subtracted: it is longer than reviews are.
    """
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    config = getattr(model.config, "encoder", model.config)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2.0 * weights, 4.0 * config.num_hidden_layers * width


@cache
def peak_rate(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Operations a second that the device is made for, and where that is from: "data sheet" or "measured".

    Measured is the rate of a square product, for a few tenths of a second at most.
    """
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for part, rate in _PEAKS.items():
            if part in name:
                return rate, "data sheet"
    side = _SIDE if device.type == "cpu" else 10 * _SIDE
    left, right = torch.ones(2, side, side, dtype=dtype, device=device)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        # Reading one number waits for the device.
        float(torch.mm(left, right)[0, 0])
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[1:]), "measured"
