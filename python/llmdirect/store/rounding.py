"""Rounding of float32 vectors to the types of a store, in NumPy; `store.calibration` does it in torch."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

INT8_MAX: Final = 127.0  # -128 is not used, so that the range is symmetric


def quantize_int8(
    vectors: NDArray[np.float32], channels: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Quantize vectors as `llmdirect.store.calibration.quantize_int8`, to the same bits.

    Parameters
    ----------
    vectors
        [n, D], finite.
    channels
        [D] scale of each dimension.

    Returns
    -------
    quantized
        [n, D]
    scales
        [n]
    """
    scaled = vectors / channels
    largest = np.abs(scaled).max(1, initial=0.0)
    scales = (largest / np.float32(INT8_MAX)).astype(np.float16)
    nonzero = largest > 0
    quotient = np.divide(largest, scales.astype(np.float32), out=np.zeros_like(largest), where=nonzero)
    scales = (scales.view(np.int16) + (quotient >= INT8_MAX + 0.5).astype(np.int16)).view(np.float16)
    divisor = np.where(nonzero, scales.astype(np.float32), np.float32(1))
    return np.rint(scaled / divisor[:, None]).astype(np.int8), scales


def to_bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits of finite vectors in bfloat16, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
