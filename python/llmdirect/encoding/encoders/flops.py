"""Floating-point operations of an encoder and peak rate of a device."""

import ctypes
import statistics
import sys
import time
from functools import cache

import torch
from torch import nn
from transformers import PreTrainedModel

# Dense matrix products in bfloat16 by data sheet, in operations per second; the longer name first.
_PEAK_RATES = {
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
_MATRIX_SIZE = 768

# Options of mallopt in glibc: freed memory that is kept, and size above which memory is mapped.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keep up to 1 GB of freed memory in this process, on Linux with glibc.

    A batch on the CPU frees its buffers and allocates the same ones again. If they were returned to the
    system, each page would be zeroed again: a tenth of the time of MiniLM.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(option, 1 << 30)


def operations_per_token(model: PreTrainedModel) -> tuple[float, float]:
    """Floating-point operations of the matrix products per token and per pair of tokens of a sequence.

    Each weight of a linear layer takes two per token; attention takes 4 · width per layer and pair. A sliding
    window is not subtracted: it is longer than most reviews.
    """
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    config = getattr(model.config, "encoder", model.config)
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2.0 * weights, 4.0 * config.num_hidden_layers * width


@cache
def peak_rate(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Peak floating-point operations per second of a device.

    Returns
    -------
    float
        Operations per second.
    str
        "data sheet", or "measured": the rate of a square matrix product, within a few tenths of a second.
    """
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for device_name, rate in _PEAK_RATES.items():
            if device_name in name:
                return rate, "data sheet"
    size = _MATRIX_SIZE if device.type == "cpu" else 10 * _MATRIX_SIZE
    left, right = torch.ones(2, size, size, dtype=dtype, device=device)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        # Reading one number waits for the device.
        float(torch.mm(left, right)[0, 0])
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds[1:]), "measured"
