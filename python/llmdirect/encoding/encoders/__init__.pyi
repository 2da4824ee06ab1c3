# The names of this package and where they are defined; lazy_loader reads the imports at run time.

from .cache import cache_model
from .encoder import Encoder
from .loading import load_encoder
from .sources import Source, resolve
from .tokens import Embedding, PassageEncoder, Tokens

__all__ = [
    "Embedding",
    "Encoder",
    "PassageEncoder",
    "Source",
    "Tokens",
    "cache_model",
    "load_encoder",
    "resolve",
]
