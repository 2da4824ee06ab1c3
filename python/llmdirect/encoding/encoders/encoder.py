"""Encoder: a language model that turns texts into token embeddings with character spans."""

import errno
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

from llmdirect.common.files import digest
from llmdirect.encoding.encoders.checkpoint import weights_digest
from llmdirect.encoding.encoders.flops import keep_freed_memory, operations_per_token
from llmdirect.encoding.encoders.packing import Packing, first_position, pack_attention, soft_capped
from llmdirect.encoding.encoders.sources import Source
from llmdirect.encoding.encoders.tokens import (
    Embedding,
    Tokens,
    special_tokens,
    strip_span,
)
from llmdirect.encoding.encoders.windows import windows
from llmdirect.text.words import replace_surrogates

# More tokens at once leave a core's cache; fewer leave a GPU waiting.
_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 32768}


@dataclass(frozen=True)
class _Sequence:
    """Tokens that the model reads at once, and the rows [low, high) of its output that are kept."""

    ids: NDArray[np.int32]
    low: int
    high: int


class Encoder:
    """Encoder of a language model with its tokenizer; constructed by `loading.load_encoder`.

    Attributes
    ----------
    id, revision
        Name and revision of the checkpoint.
    dim
        Length of a token embedding.
    max_length, room
        Tokens read at once, with and without the special ones.
    device, dtype
        Where and in what type the model computes.
    tokens_at_once
        Tokens of a batch at which the device is fast.
    before, after
        Ids of the special tokens that every text gets.
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
        self.before, self.after = special_tokens(tokenizer, source.id)
        self.room = max_length - len(self.before) - len(self.after)
        if self.room < 1:
            raise ValueError(
                f"`max_length`: {max_length} leaves no room: {source.id} adds "
                f"{max_length - self.room} special tokens"
            )
        self._weights = weights_digest(model)
        self._model = model.to(device)  # type: ignore[arg-type]  # transformers narrows `to`
        if device.type == "cpu":
            keep_freed_memory()
        self._operations = operations_per_token(model)
        self._packs, self._first_position = pack_attention(model), first_position(model)
        self.dim = self._forward([np.zeros(1, np.int32)]).shape[-1]

    def describe(self) -> dict[str, Any]:
        """Description of everything that determines the vectors, as JSON.

        `weights` is a digest of the values, whatever the files that they were read from.
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
        """Floating-point operations of the matrix products for passages of these numbers of tokens."""
        per_token, per_pair = self._operations
        total = 0.0
        for length, count in zip(
            *map(np.ndarray.tolist, np.unique(lengths, return_counts=True)), strict=True
        ):
            for sequence in self._sequence_lengths(length):
                total += count * (per_token * sequence + per_pair * sequence * sequence)
        return total

    @property
    def soft_capped(self) -> bool:
        """Whether the attention has a soft-cap."""
        return bool(soft_capped(self._model))

    @contextmanager
    def uncapped(self) -> Iterator[None]:
        """Context without the soft-cap of the attention, to measure its effect."""
        layers = [(layer, layer.attn_logit_softcapping) for layer in soft_capped(self._model)]
        for layer, _ in layers:
            layer.attn_logit_softcapping = None  # type: ignore[assignment]  # not a parameter
        try:
            yield
        finally:
            for layer, cap in layers:
                layer.attn_logit_softcapping = cap

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenise whole texts, of any length.

        Spans are half-open, in characters of the given text, without the white space at their ends; special
        tokens have (0, 0). The parts of one character split into bytes all cover that character. A text
        without any token but the special ones (empty, white space) has no tokens at all.
        """
        clean = list(map(replace_surrogates, texts))
        encodings = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        return [self._tokens(text, encoding) for text, encoding in zip(clean, encodings, strict=True)]

    def _tokens(self, text: str, encoding: tokenizers.Encoding) -> Tokens:
        if not encoding.ids or not text.strip():
            return Tokens(np.zeros(0, np.int32), np.zeros((0, 2), np.uint32))
        ids = np.array([*self.before, *encoding.ids, *self.after], np.int32)
        spans = np.zeros((len(ids), 2), np.uint32)
        first = len(self.before)
        spans[first : first + len(encoding.ids)] = [strip_span(text, *span) for span in encoding.offsets]
        return Tokens(ids, spans)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text: the lengths of `tokenize`, without positions."""
        clean = list(map(replace_surrogates, texts))
        encodings = self._tokenizer.encode_batch_fast(clean, add_special_tokens=False)
        special = len(self.before) + len(self.after)
        return [
            len(encoding.ids) + special if encoding.ids and text.strip() else 0
            for text, encoding in zip(clean, encodings, strict=True)
        ]

    def _sequence_lengths(self, num_tokens: int) -> list[int]:
        """Lengths of the sequences in which a passage is read, special tokens included."""
        special = self.max_length - self.room
        read = windows(num_tokens - special, self.room) if num_tokens else []
        return [window.stop - window.start + special for window in read]

    def cost(self, num_tokens: int, longest: int) -> int:
        """Tokens of the budget that a passage takes in a batch.

        Without packing, each sequence takes a row of `longest` tokens, padding included.

        Parameters
        ----------
        num_tokens
            Tokens of the passage; windows add their overlap.
        longest
            Tokens of the longest sequence of the batch.
        """
        lengths = self._sequence_lengths(num_tokens)
        return sum(lengths) if self._packs else len(lengths) * longest

    def encode(self, texts: Sequence[str], *, token_budget: int | None = None) -> list[Embedding]:
        """Encode texts.

        Texts are batched by length, so the last bits of a text may depend on the others.

        Parameters
        ----------
        texts
        token_budget
            Tokens at once, by default `tokens_at_once`; fewer where they do not fit the device.

        Returns
        -------
        list of Embedding
            In the order of the texts.
        """
        tokens = self.tokenize(texts)
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        budget = token_budget or self.tokens_at_once
        rows, _ = self.embed_in_parts([tokens[index] for index in order], token_budget=budget)
        rows = rows.cpu()
        parts = torch.split(rows, [len(tokens[index]) for index in order])
        by_index = dict(zip(order, parts, strict=True))
        return [Embedding(by_index[index], text.spans) for index, text in enumerate(tokens)]

    def embed(self, passages: Sequence[Tokens], *, token_budget: int) -> torch.Tensor:
        """Encode tokenised passages, one after another.

        A passage longer than `max_length` is read in overlapping windows and keeps each token once.

        Parameters
        ----------
        passages
            Batched in this order.
        token_budget
            Tokens of a batch; a batch has at least one sequence.

        Returns
        -------
        Tensor
            [sum of lengths, dim] on the device of the encoder.
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
        """As `embed`, with the budget halved until the batches fit the device.

        Returns
        -------
        Tensor
            [sum of lengths, dim] on the device of the encoder.
        int
            Budget that fitted.

        Raises
        ------
        OSError
            If a single sequence does not fit.
        """
        longest = min(max(map(len, passages), default=0), self.max_length)
        while True:
            try:
                return self.embed(passages, token_budget=token_budget), token_budget
            except torch.OutOfMemoryError as error:
                reason = str(error).splitlines()[0]
            # Outside of the handler, whose traceback would keep the memory of the failed attempt.
            if token_budget <= longest:
                raise OSError(
                    errno.ENOMEM,
                    f"a sequence of {longest} tokens does not fit the memory of {self.device} "
                    f"({reason}); lower `max_length`",
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
        # Neighbours of equal length: their attention is computed at once.
        order = sorted(range(len(batch)), key=lambda index: -len(batch[index].ids))
        rows = self._forward([batch[index].ids for index in order])
        starts = np.cumsum([0, *(len(batch[index].ids) for index in order)])
        start_of = dict(zip(order, starts.tolist(), strict=False))
        # Indices computed on the CPU: a boolean mask would make the device wait for its count.
        kept = [
            np.arange(start_of[index] + sequence.low, start_of[index] + sequence.high)
            for index, sequence in enumerate(batch)
        ]
        return rows.index_select(0, self._to_device(np.concatenate(kept)))

    def _forward(self, batch: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """Output of the model, one sequence after another: [sum of lengths, dim]."""
        with torch.inference_mode():
            if not self._packs:
                return self._forward_padded(batch)
            lengths = [len(sequence) for sequence in batch]
            positions = np.concatenate([np.arange(length) for length in lengths]) + self._first_position
            ids = np.concatenate(batch).astype(np.int64)
            output = self._model(
                input_ids=self._to_device(ids)[None],
                # Otherwise some models derive a mask from ids equal to that of padding.
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64, device=self.device),
                position_ids=self._to_device(positions)[None],
                packing=Packing.from_lengths(lengths),
            )
            return output.last_hidden_state[0]  # type: ignore[no-any-return]  # transformers: no types

    def _forward_padded(self, batch: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        """As `_forward` for models without packing: padding is on the right, masked, and left out."""
        ids = np.full((len(batch), max(map(len, batch))), self._pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(batch):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        output = self._model(input_ids=self._to_device(ids), attention_mask=self._to_device(mask))
        hidden = output.last_hidden_state.reshape(mask.size, -1)
        rows: torch.Tensor = hidden.index_select(0, self._to_device(np.flatnonzero(mask)))
        return rows

    def _to_device(self, array: NDArray[np.int64]) -> torch.Tensor:
        """Copy an array to the device, from pinned memory so that nothing waits for it."""
        tensor = torch.from_numpy(array)
        return (
            tensor.pin_memory().to(self.device, non_blocking=True)
            if self._on_cuda
            else tensor.to(self.device)
        )
