"""Default settings of `prepare`; the command line reads them without heavy imports."""

from typing import Final

DEFAULT_FRACTIONS: Final = (0.7, 0.1, 0.2)
"""Shares of train, valid and test."""
DEFAULT_SEED: Final = 242
"""Seed of the random split."""
