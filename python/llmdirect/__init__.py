"""Recommendation from reviews with a large language model: full ranking, and word-by-word reasons."""

from llmdirect._core import __version__

__all__ = ["__version__"]
