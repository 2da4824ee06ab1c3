"""Encoders of the user's own, registered from Python by a name."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
import torch

from llmdirect.common.arrays import as_numpy
from llmdirect.common.errors import DataError, MissingError
from llmdirect.common.files import digest
from llmdirect.common.types import Json
from llmdirect.encoding.encoders.sources import MINILM
from llmdirect.encoding.encoders.tokens import Embedding
from llmdirect.store.lexical import LEXICAL

EXAMPLES: Final = (
    "warm",
    "A warm sound, bright strings and little noise.",
    "It isn't the well-made one… 5 €! 😀 Thé ﬁne strings",
    "音が温かい。",
    "good " * 700,
    " \n blank ends \t",
)
"""Texts that `check_encoder` encodes by default."""


class TextEncoder(Protocol):
    """What turns texts into token embeddings."""

    def encode(self, texts: Sequence[str]) -> Sequence[Any]:
        """Encode texts.

        Returns
        -------
        sequence
            For each text a pair (vectors, spans), or an object with `tokens` and `spans`. Vectors are [T, D]
            numbers (NumPy or torch), D the same for all texts; spans are whole numbers [T, 2], the half-open
            range of characters of each token, in the order of the text. A token without characters, such as
            a special one, has an empty span; the model leaves it out.
        """


class RegisteredEncoder:
    """A registered encoder whose output is checked.

    Parameters
    ----------
    name
        Its name.
    encoder
        Object with `encode`; its attribute `version`, where it has one, tells its states apart.
    """

    def __init__(self, name: str, encoder: TextEncoder) -> None:
        self.id, self._encoder = name, encoder
        self._version = str(getattr(encoder, "version", ""))

    def encode(self, texts: Sequence[str], *, token_budget: int | None = None) -> list[Embedding]:
        """Embeddings of texts; a blank text has no tokens.

        Raises
        ------
        DataError
            If the encoder returns something else than `TextEncoder` describes.
        """
        written = [text for text in texts if text.strip()]
        results = list(self._encoder.encode(written)) if written else []
        if len(results) != len(written):
            raise DataError(f"encoder {self.id}: {len(results)} results for {len(written)} texts")
        encoded = {}
        for text, result in zip(written, results, strict=True):
            encoded[text] = _checked(self.id, text, result)
            if (width := encoded[text].tokens.shape[1]) != self.dim:
                raise DataError(
                    f"encoder {self.id}: text {text[:40]!r} has vectors of {width} numbers, not {self.dim}"
                )
        empty = Embedding(torch.zeros(0, self.dim), np.zeros((0, 2), np.uint32))
        return [encoded.get(text, empty) for text in texts]

    @cached_property
    def dim(self) -> int:
        """Length of a token embedding, of a text that is encoded for it."""
        [result] = self._encoder.encode([EXAMPLES[0]])
        return int(_checked(self.id, EXAMPLES[0], result).tokens.shape[1])

    def describe(self) -> Json:
        """Entry "encoder" of manifests."""
        return {
            "id": self.id,
            "revision": None,
            "weights": digest("registered", self._version),
            "tokenizer": None,
            "max_length": None,
            "registered": True,
        }


_LOADERS: Final[dict[str, Callable[[], TextEncoder]]] = {}
_LOADED: Final[dict[str, RegisteredEncoder]] = {}


def register_encoder(name: str, load: Callable[[], TextEncoder]) -> None:
    """Register an encoder, so that `precompute(dataset, encoder=name)` uses it.

    A run that was trained on its embeddings reads new texts with the encoder that is registered under this
    name in the same process. Registering a name again replaces its encoder.

    Parameters
    ----------
    name
        Name of the encoder, which manifests keep.
    load
        Function that returns the encoder: an object with `encode(texts)`, which returns token vectors and
        spans for each text (`check_encoder` checks them). It is called when the encoder is first used. If
        the object has an attribute `version`, stores of another version are refused.

    Raises
    ------
    ValueError
        If the name is empty, a path, "minilm" or "lexical".

    Examples
    --------
    >>> register_encoder("letters", LetterEncoder)  # doctest: +SKIP
    >>> precompute("instruments", encoder="letters").tokens  # doctest: +SKIP
    91423
    """
    if not name.strip() or "/" in name or name in (MINILM, LEXICAL):
        raise ValueError(
            f"name of an encoder: {name!r}, expected one without slashes, and not {MINILM!r} or {LEXICAL!r}"
        )
    if not callable(load):
        raise ValueError(f"load: {load!r} is no function; give one that returns the encoder")
    _LOADERS[name] = load
    _LOADED.pop(name, None)


def registered_encoder(name: str) -> RegisteredEncoder | None:
    """The encoder that is registered under a name, loaded; None where there is none.

    Raises
    ------
    MissingError
        If what the function returned has no `encode`.
    """
    if name not in _LOADERS:
        return None
    if name not in _LOADED:
        loaded = _LOADERS[name]()
        if not callable(getattr(loaded, "encode", None)):
            raise MissingError(f"encoder {name}: {type(loaded).__name__} has no method `encode`")
        _LOADED[name] = RegisteredEncoder(name, loaded)
    return _LOADED[name]


def check_encoder(encoder: TextEncoder, texts: Sequence[str] | None = None) -> int:
    """Check that an encoder returns what `register_encoder` expects, and return its dimension.

    The texts are encoded together and one by one: vectors may depend on the text alone.

    Parameters
    ----------
    encoder
        Object with `encode(texts)`.
    texts
        Texts to encode; by default short, long and multilingual ones.

    Raises
    ------
    DataError
        For the first text with spans outside of it or out of order, vectors that are not finite, or of
        another shape, or that depend on the other texts.

    Examples
    --------
    >>> check_encoder(LetterEncoder())  # doctest: +SKIP
    26
    """
    checked = RegisteredEncoder(type(encoder).__name__, encoder)
    chosen = list(EXAMPLES if texts is None else texts)
    together = checked.encode(chosen)
    for text, embedding in zip(chosen, together, strict=True):
        [alone] = checked.encode([text])
        same = alone.tokens.shape == embedding.tokens.shape and torch.allclose(
            alone.tokens.float(), embedding.tokens.float(), rtol=1e-2, atol=1e-3
        )
        if not same:
            raise DataError(
                f"encoder {checked.id}: text {text[:40]!r} has other vectors alone than together with other "
                "texts; padding must be masked, and nothing random"
            )
    return checked.dim


def _checked(name: str, text: str, result: Any) -> Embedding:
    """Embedding of what an encoder returned for a text. DataError names the text."""
    where = f"encoder {name}: text {text[:40]!r}"
    if hasattr(result, "tokens") and hasattr(result, "spans"):
        result = result.tokens, result.spans
    try:
        vectors, spans = result
        is_tensor = isinstance(vectors, torch.Tensor)
        array = vectors.detach().cpu() if is_tensor else torch.as_tensor(np.asarray(vectors))
        characters = as_numpy(spans) if isinstance(spans, torch.Tensor) else np.asarray(spans)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: expected a pair of vectors and spans ({error})") from None
    if array.ndim != 2 or not array.shape[1] or not (array.is_floating_point()):
        raise DataError(f"{where}: vectors are {array.dtype} {list(array.shape)}, expected floats [T, D]")
    characters = characters.reshape(-1, 2) if not characters.size else characters
    if characters.shape != (len(array), 2) or (characters.size and characters.dtype.kind not in "iu"):
        raise DataError(
            f"{where}: spans are {characters.dtype} {list(characters.shape)}, expected whole numbers "
            f"[{len(array)}, 2]"
        )
    starts, ends = characters[:, 0].astype(np.int64), characters[:, 1].astype(np.int64)
    outside = (starts < 0) | (ends < starts) | (ends > len(text))
    if outside.any():
        token = int(np.argmax(outside))
        raise DataError(
            f"{where}: token {token} has the span {starts[token]} to {ends[token]}, outside of the text of "
            f"{len(text)} characters"
        )
    visible = np.flatnonzero(ends > starts)
    if (np.diff(starts[visible]) < 0).any() or (np.diff(ends[visible]) < 0).any():
        raise DataError(f"{where}: spans do not ascend; return tokens in the order of the text")
    if not bool(torch.isfinite(array.float()).all()):
        raise DataError(f"{where}: a vector holds NaN or an infinity")
    return Embedding(array, np.stack([starts, ends], 1).astype(np.uint32))
