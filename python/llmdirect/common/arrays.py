"""Conversion of NumPy arrays and CPU tensors to the dtypes of the Rust extension."""

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Integer = TypeVar("Integer", np.int32, np.int64, np.uint32)
ArrayOrTensor: TypeAlias = Any
"""A NumPy array, a torch tensor on the CPU, or a sequence of numbers."""


def integer_array(name: str, value: ArrayOrTensor, dtype: type[Integer], ndim: int = 1) -> NDArray[Integer]:
    """C-contiguous array of integers, without a copy where `value` is one.

    Parameters
    ----------
    name
        Name of the argument in error messages.
    value
        Integers of any dtype.
    dtype
        `np.int32` for indices, `np.int64` for offsets, or another type of integers.
    ndim
        Number of axes.

    Raises
    ------
    ValueError
        If `value` has other axes, is not of integers, or holds one outside `dtype`.
    """
    array = _to_array(name, value, ndim)
    if array.size == 0:
        return np.zeros(array.shape, dtype)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers, not {array.dtype}")
    limits = np.iinfo(dtype)
    if array.dtype != dtype and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(f"{name} holds a number that does not fit into {limits.dtype}")
    return np.ascontiguousarray(array, dtype=dtype)


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


def as_numpy(buffer: "NDArray[Any] | torch.Tensor") -> NDArray[Any]:
    """NumPy view of a buffer, without a copy; bfloat16 as uint16. ValueError where it is on a GPU."""
    if isinstance(buffer, np.ndarray):
        return buffer
    import torch

    if buffer.device.type != "cpu":
        raise ValueError(f"a buffer is on {buffer.device}; move it with .cpu()")
    bits = buffer.view(torch.uint16) if buffer.dtype == torch.bfloat16 else buffer
    array: NDArray[Any] = bits.detach().numpy()
    return array
