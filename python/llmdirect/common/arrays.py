"""Arrays from outside: NumPy arrays and CPU tensors become what the Rust extension takes, or an error."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ArrayOrTensor: TypeAlias = Any
"""A NumPy array, a torch tensor on the CPU, or a sequence of numbers."""


def index_array(name: str, value: ArrayOrTensor, ndim: int = 1) -> NDArray[np.int32]:
    """`value` as C-contiguous int32; ValueError if it holds no integers, or one beyond int32."""
    array = _array(name, value, ndim)
    if array.size == 0:
        return np.zeros(array.shape, np.int32)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, not {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.dtype != np.int32 and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(f"{name} holds a number that does not fit into int32")
    return np.ascontiguousarray(array, dtype=np.int32)


def border_array(name: str, value: ArrayOrTensor) -> NDArray[np.int64]:
    """`value` as C-contiguous int64 with one axis; ValueError if it holds no integers."""
    array = _array(name, value, 1)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.int64)


def float_array(name: str, value: ArrayOrTensor, ndim: int) -> NDArray[np.float32]:
    """`value` as C-contiguous float32, without a copy where it is that already; ValueError otherwise."""
    array = _array(name, value, ndim)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _array(name: str, value: ArrayOrTensor, ndim: int) -> NDArray[Any]:
    if hasattr(value, "detach"):
        value = value.detach()
        if value.device.type != "cpu":
            raise ValueError(f"{name} is on {value.device}; move it with .cpu()")
        if value.is_floating_point() and value.element_size() == 2:
            value = value.float()  # NumPy has no bfloat16
    array = np.asarray(value)
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, not the shape {array.shape}")
    return array
