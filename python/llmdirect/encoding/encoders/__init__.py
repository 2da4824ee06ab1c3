"""Encoders: language models that turn texts into token embeddings."""

from llmdirect.encoding.encoders.cache import cache_model
from llmdirect.encoding.encoders.encoder import Encoder
from llmdirect.encoding.encoders.loading import load_encoder
from llmdirect.encoding.encoders.sources import Source, resolve
from llmdirect.encoding.encoders.tokens import Embedding, PassageEncoder, Tokens

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
