"""Rounding in NumPy and in torch gives the same bits."""

import numpy as np
import torch

from llmdirect.store import calibration, rounding


def test_rounding_is_that_of_torch() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((500, 24)).astype(np.float32)
    vectors[3], vectors[7, 5], vectors[9] = 0, 1e4, vectors[9] * 1e-6
    channels = np.abs(generator.standard_normal(24)).astype(np.float32) + 0.01
    tokens, scales = rounding.quantize_int8(vectors, channels)
    expected = calibration.quantize_int8(torch.from_numpy(vectors), torch.from_numpy(channels))
    np.testing.assert_array_equal(tokens, expected[0].numpy())
    np.testing.assert_array_equal(scales.view(np.int16), expected[1].numpy().view(np.int16))
    bits = torch.from_numpy(vectors).bfloat16().view(torch.int16).numpy()
    np.testing.assert_array_equal(rounding.to_bfloat16(vectors).view(np.int16), bits)
