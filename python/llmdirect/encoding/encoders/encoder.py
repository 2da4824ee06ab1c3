"""One encoder: text in, one vector a token out, with the characters that each token covers."""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from llmdirect.common.devices import find_device
from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.encoding.encoders.flops import arithmetic, keep_freed_memory
from llmdirect.encoding.encoders.loading import (
    bare_tokenizer,
    load_model,
    load_tokenizer,
    position_limit,
    weights_digest,
)
from llmdirect.encoding.encoders.packing import Packing, first_position, pack_attention, soft_capped
from llmdirect.encoding.encoders.sources import Source, resolve
from llmdirect.encoding.encoders.windows import windows

# A lone surrogate is no character and has no UTF-8; one replacement character keeps all positions.
_SURROGATES = re.compile("[\ud800-\udfff]")
# More tokens at once leave a core's cache; fewer leave a GPU waiting.
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}


@dataclass(frozen=True, eq=False)
class Tokens:
    """A tokenised passage: `ids` int32 [n] with the model's special tokens, `spans` uint32 [n, 2]."""

    ids: NDArray[np.int32]
    spans: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded passage: `tokens` [n, dim] in the encoder's type on the CPU, `spans` uint32 [n, 2]."""

    tokens: torch.Tensor
    spans: NDArray[np.uint32]


@dataclass(frozen=True)
class _Sequence:
    """What the model reads at once, and the rows [low, high) of its output that are kept."""

    ids: NDArray[np.int32]
    low: int
    high: int


class Encoder:
    """A language model's encoder with its tokenizer; made by `load_encoder`.

    Attributes: `id`, `dim`, `max_length` (tokens, special ones included), `device`, `dtype`, `tokens_at_once`
    (at which the device is fast), and the ids of the special tokens that every text gets: `before`, `after`.
    """

    def __init__(
        self,
        source: Source,
        model: PreTrainedModel,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        model_limit: int | None,
        pad_id: int,
        device: torch.device,
    ) -> None:
        self.id, self.revision = source.id, source.revision
        self.device, self.dtype = device, model.dtype
        self._on_cuda = device.type == "cuda"
        self.tokens_at_once = _TOKENS_AT_ONCE.get(device.type, _TOKENS_AT_ONCE["cuda"])
        self.max_length, self._model_limit = max_length, model_limit
        self._tokenizer, self._pad_id = tokenizer, pad_id
        self.before, self.after = _special_tokens(tokenizer, source)
        self.room = max_length - len(self.before) - len(self.after)
        if self.room < 1:
            raise ValueError(
                f"max_length={max_length} leaves no room: {source.id} adds "
                f"{max_length - self.room} special tokens"
            )
        self._weights = weights_digest(model)
        self._model = model.to(device)  # type: ignore[arg-type]  # transformers narrows `to`
        if device.type == "cpu":
            keep_freed_memory()
        self._arithmetic = arithmetic(model)
        self._packs, self._first_position = pack_attention(model), first_position(model)
        self.dim = self._forward([np.zeros(1, np.int32)]).shape[-1]

    def describe(self) -> dict[str, Any]:
        """All that decides what the vectors are, fit for JSON: equal descriptions, equal vectors.

        `weights` is a digest over the encoder's values, so it does not matter which way they came here.
        """
        return {
            "id": self.id,
            "revision": self.revision,
            "weights": self._weights,
            "tokenizer": digest(self._tokenizer.to_str()),
            "special_before": [self._tokenizer.id_to_token(token) for token in self.before],
            "special_after": [self._tokenizer.id_to_token(token) for token in self.after],
            "architecture": type(self._model).__name__,
            "dim": self.dim,
            "max_length": self.max_length,
            "model_limit": self._model_limit,
            "compute_dtype": str(self.dtype).removeprefix("torch."),
            "attention": self._model.config._attn_implementation,
            "versions": {
                "tokenizers": tokenizers.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }

    def operations(self, lengths: Sequence[int] | NDArray[np.int32]) -> float:
        """Floating-point operations of the matrix products that read passages of these lengths."""
        a_token, a_pair = self._arithmetic
        total = 0.0
        for length, count in zip(
            *map(np.ndarray.tolist, np.unique(lengths, return_counts=True)), strict=True
        ):
            for read in self._lengths_read(length):
                total += count * (a_token * read + a_pair * read * read)
        return total

    @property
    def soft_capped(self) -> bool:
        """Whether its attention has a soft-cap."""
        return bool(soft_capped(self._model))

    @contextmanager
    def uncapped(self) -> Iterator[None]:
        """Within it, attention has no soft-cap: to see what dropping it would do, and for nothing else."""
        layers = [(layer, layer.attn_logit_softcapping) for layer in soft_capped(self._model)]
        for layer, _ in layers:
            layer.attn_logit_softcapping = None  # type: ignore[assignment]  # not a parameter
        try:
            yield
        finally:
            for layer, cap in layers:
                layer.attn_logit_softcapping = cap

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids and character spans of each text, whole, whatever its length.

        Spans are half-open, in characters of the text as given, without the white space at their ends;
        special tokens have (0, 0). The parts of one character split into bytes all cover that character.
        A text without any token but the special ones (empty, white space) has no tokens at all.
        """
        clean = [_SURROGATES.sub("�", text) for text in texts]
        encodings = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        return [self._tokens(text, encoding) for text, encoding in zip(clean, encodings, strict=True)]

    def _tokens(self, text: str, encoding: tokenizers.Encoding) -> Tokens:
        if not encoding.ids or not text.strip():
            return Tokens(np.zeros(0, np.int32), np.zeros((0, 2), np.uint32))
        ids = np.array([*self.before, *encoding.ids, *self.after], np.int32)
        spans = np.zeros((len(ids), 2), np.uint32)
        first = len(self.before)
        spans[first : first + len(encoding.ids)] = [_trim(text, *span) for span in encoding.offsets]
        return Tokens(ids, spans)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many rows each text will have: the lengths of `tokenize`, without its positions."""
        clean = [_SURROGATES.sub("�", text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        special = len(self.before) + len(self.after)
        return [
            len(encoding.ids) + special if encoding.ids and text.strip() else 0
            for text, encoding in zip(clean, encodings, strict=True)
        ]

    def _lengths_read(self, num_tokens: int) -> list[int]:
        """Lengths of the sequences that a passage of so many tokens is read in, special tokens in each."""
        special = self.max_length - self.room
        spans = windows(num_tokens - special, self.room) if num_tokens else []
        return [each.stop - each.start + special for each in spans]

    def cost(self, num_tokens: int, longest: int) -> int:
        """The tokens of the budget that a passage of so many tokens takes in a batch.

        Those that are read, windows and their overlap included; where the model is not packed, one row of
        `longest` tokens for each sequence, padding included.
        """
        read = self._lengths_read(num_tokens)
        return sum(read) if self._packs else len(read) * longest

    def encode(self, texts: Sequence[str], *, token_budget: int | None = None) -> list[Embedding]:
        """Embeddings of the texts, in their order; `token_budget` (`tokens_at_once`) tokens at most at once,
        fewer where they do not fit the device.

        Texts are batched by length, so a text's last bits may depend on the others.
        """
        tokens = self.tokenize(texts)
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        budget = token_budget or self.tokens_at_once
        rows, _ = self.embed_in_parts([tokens[index] for index in order], token_budget=budget)
        rows = rows.cpu()
        parts = torch.split(rows, [len(tokens[index]) for index in order])
        by_index = dict(zip(order, parts, strict=True))
        return [Embedding(by_index[index], each.spans) for index, each in enumerate(tokens)]

    def embed(self, passages: Sequence[Tokens], *, token_budget: int) -> torch.Tensor:
        """The vectors of all tokens, passage after passage: [sum of lengths, dim] on the encoder's device.

        Sequences are batched in the given order; a batch costs at most `token_budget` tokens, or holds one
        sequence. A passage beyond `max_length` is read in overlapping windows and keeps each token once.
        """
        sequences = [sequence for passage in passages for sequence in self._sequences(passage)]
        rows = [torch.zeros(0, self.dim, dtype=self.dtype, device=self.device)]
        start = total = longest = 0
        for index, sequence in enumerate(sequences):
            total, longest = total + len(sequence.ids), max(longest, len(sequence.ids))
            if index > start and (total if self._packs else longest * (index - start + 1)) > token_budget:
                rows.append(self._kept_rows(sequences[start:index]))
                start, total, longest = index, len(sequence.ids), len(sequence.ids)
        if sequences:
            rows.append(self._kept_rows(sequences[start:]))
        return torch.cat(rows)

    def embed_in_parts(self, passages: Sequence[Tokens], *, token_budget: int) -> tuple[torch.Tensor, int]:
        """As `embed`, at half the budget, a quarter, … until it fits the device; with the budget that did.

        Raises OSError where a single sequence does not fit.
        """
        longest = min(max(map(len, passages), default=0), self.max_length)
        while True:
            try:
                return self.embed(passages, token_budget=token_budget), token_budget
            except torch.OutOfMemoryError as error:
                refusal = str(error).splitlines()[0]
            # Out of the handler, whose traceback would keep the failed attempt's memory.
            if token_budget <= longest:
                raise OSError(
                    errno.ENOMEM,
                    f"a sequence of {longest} tokens does not fit the memory of {self.device} "
                    f"({refusal}); lower --max-length",
                )
            token_budget = max(token_budget // 2, longest)
            if self._on_cuda:
                torch.cuda.empty_cache()

    def _sequences(self, passage: Tokens) -> list[_Sequence]:
        if len(passage) <= self.max_length:
            return [_Sequence(passage.ids, 0, len(passage))] if len(passage) else []
        before, after = np.array(self.before, np.int32), np.array(self.after, np.int32)
        content = passage.ids[len(before) : len(passage) - len(after)]
        sequences = []
        for window in windows(len(content), self.room):
            ids = np.concatenate([before, content[window.start : window.stop], after])
            # Special tokens are kept once as well: those before with the first window, after with the last.
            low = len(before) + window.keep_start - window.start if window.start > 0 else 0
            last = window.stop == len(content)
            high = len(ids) if last else len(before) + window.keep_stop - window.start
            sequences.append(_Sequence(ids, low, high))
        return sequences

    def _kept_rows(self, batch: Sequence[_Sequence]) -> torch.Tensor:
        # Equal lengths side by side: their attention is computed at once.
        order = sorted(range(len(batch)), key=lambda index: -len(batch[index].ids))
        rows = self._forward([batch[index].ids for index in order])
        starts = np.cumsum([0, *(len(batch[index].ids) for index in order)])
        start_of = dict(zip(order, starts.tolist(), strict=False))
        # Numbers made on the CPU: a boolean mask would make the device wait for its own count.
        kept = [
            np.arange(start_of[index] + each.low, start_of[index] + each.high)
            for index, each in enumerate(batch)
        ]
        return rows.index_select(0, self._send(np.concatenate(kept)))

    def _forward(self, batch: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """Output of the model, sequence after sequence: [sum of lengths, dim]."""
        with torch.inference_mode():
            if not self._packs:
                return self._forward_padded(batch)
            lengths = [len(sequence) for sequence in batch]
            places = np.concatenate([np.arange(length) for length in lengths]) + self._first_position
            ids = np.concatenate(batch).astype(np.int64)
            output = self._model(
                input_ids=self._send(ids)[None],
                # Given, so that no model makes one of its own out of the ids that mean padding.
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=self.device),
                position_ids=self._send(places)[None],
                packing=Packing.from_lengths(lengths),
            )
            return output.last_hidden_state[0]  # type: ignore[no-any-return]  # transformers: no types

    def _forward_padded(self, batch: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """For models that cannot be packed: padding stands right, masked, and its rows are left out."""
        ids = np.full((len(batch), max(map(len, batch))), self._pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        output = self._model(input_ids=self._send(ids), attention_mask=self._send(mask))
        hidden = output.last_hidden_state.reshape(mask.size, -1)
        rows: torch.Tensor = hidden.index_select(0, self._send(np.flatnonzero(mask)))
        return rows

    def _send(self, numbers: NDArray[np.int64]) -> torch.Tensor:
        """The array on the device; from pinned memory, so that nobody waits for it."""
        tensor = torch.from_numpy(numbers)
        return (
            tensor.pin_memory().to(self.device, non_blocking=True)
            if self._on_cuda
            else tensor.to(self.device)
        )


def load_encoder(
    model: str,
    *,
    device: str = "auto",
    dtype: str | None = None,
    max_length: int | None = None,
    revision: str | None = None,
) -> Encoder:
    """Loads the encoder of `model`: an id of the Hub, a folder, or "minilm".

    `device`: "auto" is CUDA where there is one, else the CPU. `dtype` ("float32", "bfloat16", "float16") is
    what the model computes in; by default float32 on the CPU and the checkpoint's own elsewhere.
    `max_length` in tokens, special ones included, can only lower the model's own limit.

    Raises MissingError (no such model, no access, no such device), DataError (a checkpoint without some
    weight, a tokenizer without positions), ValueError (arguments), OSError (a file that cannot be read, too
    little memory on the device).
    """
    place = find_device(device)
    source = resolve(model, revision)
    if dtype is None:
        compute = torch.float32 if place.type == "cpu" else None
    elif dtype in ("float32", "bfloat16", "float16"):
        compute = getattr(torch, dtype)
    else:
        raise ValueError(f"dtype={dtype!r}; one of float32, bfloat16, float16")
    tokenizer = load_tokenizer(source)
    network = load_model(source, compute)
    model_limit = position_limit(network, tokenizer)
    limits = [limit for limit in (model_limit, max_length) if limit is not None]
    if not limits:
        raise ValueError(f"{source.id} states no limit of its own; give max_length (--max-length)")
    try:
        return Encoder(
            source,
            network,
            bare_tokenizer(tokenizer),
            max_length=min(limits),
            model_limit=model_limit,
            pad_id=tokenizer.pad_token_id or 0,
            device=place,
        )
    except torch.OutOfMemoryError as error:
        refusal = str(error).splitlines()[0]
    raise OSError(
        errno.ENOMEM, f"{source.id} does not fit the memory of {place} ({refusal}); take another --device"
    )


def _special_tokens(tokenizer: Tokenizer, source: Source) -> tuple[list[int], list[int]]:
    """The ids that the checkpoint's own convention puts before and after a text: <bos>, [CLS] … [SEP].

    They are read off the tokenizer, not assumed: Gemma's adds <bos> only where its configuration says so.
    """
    encoding = tokenizer.encode("a")
    content = [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
    if (
        not content
        or encoding.ids[content[0] : content[-1] + 1] != tokenizer.encode("a", add_special_tokens=False).ids
    ):
        raise DataError(f"{source.id}: its tokenizer changes a text when it adds special tokens")
    return encoding.ids[: content[0]], encoding.ids[content[-1] + 1 :]


def _trim(text: str, start: int, stop: int) -> tuple[int, int]:
    """The span without the white space at its ends, unless it is nothing else."""
    low, high = start, stop
    while low < high and text[low].isspace():
        low += 1
    while high > low and text[high - 1].isspace():
        high -= 1
    return (low, high) if low < high else (start, stop)
