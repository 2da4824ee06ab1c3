"""From raw reviews to the Dataset artefact."""

from llmdirect.dataset import Dataset

__all__ = ["Dataset"]
