"""Recommendation from reviews with a large language model: full ranking, and word-by-word reasons.

The names of the package are imported on first use, from the modules that `__init__.pyi` lists:
`import llmdirect` loads neither torch nor Polars.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
