"""Recommendation from reviews with a large language model: full ranking, and word-by-word reasons."""

from llmdirect._core import __version__, num_threads, set_num_threads

__all__ = ["__version__", "num_threads", "set_num_threads"]
