"""Conversion of NumPy arrays and CPU tensors to the dtypes of the Rust extension."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ArrayOrTensor: TypeAlias = Any
"""A NumPy array, a torch tensor on the CPU, or a sequence of numbers."""


def index_array(name: str, value: ArrayOrTensor, ndim: int = 1) -> NDArray[np.int32]:
    """C-contiguous int32 array of indices.

    Parameters
    ----------
    name
        Name of the argument in error messages.
    value
        Integers of any dtype.
    ndim
        Number of axes.

    Raises
    ------
    ValueError
        If `value` has other axes, is not of integers, or holds one outside int32.
    """
    array = _to_array(name, value, ndim)
    if array.size == 0:
        return np.zeros(array.shape, np.int32)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, not {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.dtype != np.int32 and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(f"{name} holds a number that does not fit into int32")
    return np.ascontiguousarray(array, dtype=np.int32)


def offset_array(name: str, value: ArrayOrTensor) -> NDArray[np.int64]:
    """C-contiguous int64 array of offsets, with one axis.

    Raises
    ------
    ValueError
        If `value` has other axes or is not of integers.
    """
    array = _to_array(name, value, 1)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.int64)


def float_array(name: str, value: ArrayOrTensor, ndim: int) -> NDArray[np.float32]:
    """C-contiguous float32 array, without a copy where `value` is one.

    Raises
    ------
    ValueError
        If `value` has other axes or is not of numbers.
    """
    array = _to_array(name, value, ndim)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _to_array(name: str, value: ArrayOrTensor, ndim: int) -> NDArray[Any]:
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
