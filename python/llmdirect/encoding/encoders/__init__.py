"""Language models that turn passages into token embeddings, and where they come from."""

from llmdirect.encoding.encoders.cache import cache_model
from llmdirect.encoding.encoders.encoder import Embedding, Encoder, Tokens, load_encoder
from llmdirect.encoding.encoders.sources import Source, resolve

__all__ = ["Embedding", "Encoder", "Source", "Tokens", "cache_model", "load_encoder", "resolve"]
