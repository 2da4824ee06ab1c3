"""Loading of encoders by name."""

import errno

import torch

from llmdirect.common.devices import find_device
from llmdirect.encoding.encoders.checkpoint import (
    bare_tokenizer,
    check_vocabulary,
    load_model,
    load_tokenizer,
    position_limit,
)
from llmdirect.encoding.encoders.encoder import Encoder
from llmdirect.encoding.encoders.sources import resolve


def load_encoder(
    encoder: str,
    *,
    device: str = "auto",
    dtype: str | None = None,
    max_length: int | None = None,
    revision: str | None = None,
) -> Encoder:
    """Load the encoder of a language model.

    Parameters
    ----------
    encoder
        Name on the Hub, folder of a checkpoint, or "minilm".
    device
        "auto" (CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
    dtype
        Type of the computation: "float32", "bfloat16" or "float16". By default float32 on the CPU and the
        type of the checkpoint elsewhere.
    max_length
        Tokens read at once, special ones included; at most the limit of the model, the default.
    revision
        Branch, tag or commit on the Hub.

    Raises
    ------
    MissingError
        If there is no such model, no access to it, or no such device.
    DataError
        If the checkpoint lacks weights or tokenizer files, its tokenizer gives no positions, or belongs to
        another model.
    OSError
        If a file cannot be read, or the memory of the device is too small.
    ValueError
        If a setting has no valid value.

    Examples
    --------
    >>> encoder = load_encoder("minilm")  # doctest: +SKIP
    >>> [embedding] = encoder.encode(["Bright strings."])  # doctest: +SKIP
    >>> embedding.tokens.shape  # doctest: +SKIP
    torch.Size([5, 384])
    """
    torch_device = find_device(device)
    source = resolve(encoder, revision)
    if dtype is None:
        compute_dtype = torch.float32 if torch_device.type == "cpu" else None
    elif dtype in ("float32", "bfloat16", "float16"):
        compute_dtype = getattr(torch, dtype)
    else:
        raise ValueError(f"`dtype`: {dtype!r}, expected one of float32, bfloat16, float16")
    tokenizer = load_tokenizer(source)
    model = load_model(source, compute_dtype)
    check_vocabulary(source, tokenizer, model)
    model_limit = position_limit(model, tokenizer)
    check_max_length(source.id, max_length, model_limit)
    limit = model_limit if max_length is None else max_length
    if limit is None:
        raise ValueError(f"{source.id} states no limit of its own; give `max_length`")
    try:
        return Encoder(
            source,
            model,
            bare_tokenizer(tokenizer),
            max_length=limit,
            model_limit=model_limit,
            pad_id=tokenizer.pad_token_id or 0,
            device=torch_device,
        )
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
    # Outside of the handler, whose traceback would keep the memory of the failed attempt.
    raise OSError(
        errno.ENOMEM,
        f"{source.id} does not fit the memory of {torch_device} ({reason}); take another `device`",
    )


def check_max_length(encoder: str, max_length: int | None, model_limit: int | None) -> None:
    """ValueError where `max_length` is above what the model reads at once; None is no limit."""
    if max_length is not None and model_limit is not None and max_length > model_limit:
        raise ValueError(
            f"`max_length`: {max_length}, but {encoder} reads at most {model_limit} tokens at once; choose "
            f"{model_limit} or less, or leave it out"
        )
