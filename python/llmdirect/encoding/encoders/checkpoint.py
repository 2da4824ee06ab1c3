"""Encoder and tokenizer of a checkpoint, without the decoder and never with missing weights."""

import hashlib
import inspect
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING
from transformers.models.t5gemma2.modeling_t5gemma2 import T5Gemma2TextEncoder

from llmdirect.common.errors import DataError
from llmdirect.common.files import digest
from llmdirect.encoding.encoders.sources import Source

# T5Gemma 2 has its text encoder next to a vision tower; both layouts of the checkpoint are in use.
_T5GEMMA2_TEXT = {r"^model\.encoder\.(?:text_model\.)?(?=embed_tokens|layers|norm)": ""}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context without progress bars and load reports of transformers; errors are raised instead."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers: no types
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers: no types
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers: no types


def load_model(source: Source, dtype: torch.dtype | None) -> PreTrainedModel:
    """Load the encoder in evaluation mode, on the CPU.

    Parameters
    ----------
    source
        Location of the checkpoint.
    dtype
        Type of the weights; None is that of the checkpoint.

    Raises
    ------
    DataError
        If the folder holds no text encoder, a weight is missing or of another shape, or a file is damaged.
    OSError
        If there is no file of weights.
    """
    with quiet_transformers():
        config = AutoConfig.from_pretrained(source.folder)
        model_class, arguments = _class_and_arguments(source, config)
        try:
            model, info = model_class.from_pretrained(
                source.folder,
                **arguments,
                dtype=dtype if dtype is not None else "auto",
                use_safetensors=True,
                output_loading_info=True,
            )
        except SafetensorError as error:
            raise DataError(
                f"{source.folder}: its weights are truncated or damaged ({error}); fetch the model again"
            ) from None
    wrong = sorted(info["missing_keys"]) + [str(key) for key in info["mismatched_keys"]]
    if wrong:
        shown = ", ".join(wrong[:5]) + (", …" if len(wrong) > 5 else "")
        raise DataError(
            f"{source.folder}: {len(wrong)} weights of {model_class.__name__} are missing or misshapen "
            f"({shown}); the download is incomplete, or this is a checkpoint of another kind"
        )
    model.requires_grad_(False)
    return model.eval()  # type: ignore[no-any-return]  # transformers: no types


def _class_and_arguments(source: Source, config: Any) -> tuple[type[Any], dict[str, Any]]:
    if config.model_type == "t5gemma":
        # Its attention has a soft-cap, which the fused kernel of PyTorch does not know: eager is exact.
        return transformers.T5GemmaEncoderModel, {"is_encoder_decoder": False, "attn_implementation": "eager"}
    if config.model_type == "t5gemma2":
        encoder = config.encoder
        return T5Gemma2TextEncoder, {
            "config": encoder.text_config,
            "key_mapping": _T5GEMMA2_TEXT,
            "eoi_token_index": encoder.eoi_token_index,
        }
    if config.model_type == "t5gemma2_text":
        return T5Gemma2TextEncoder, {}
    match = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    if match is None and not getattr(config, "is_encoder_decoder", False):
        match = MODEL_MAPPING.get(type(config), None)
    if match is None:
        raise DataError(
            f"{source.id} ({config.model_type}): transformers has no class for its encoder alone; take a "
            "T5Gemma, a T5, or a model of the BERT family"
        )
    model_class: Any = match[0] if isinstance(match, tuple) else match
    # The pooler gives one vector per text: unused here, and absent from checkpoints of language models.
    has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
    return model_class, {"add_pooling_layer": False} if has_pooler else {}


_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "vocab.json",
)
"""Files of which a tokenizer has one at least, whatever the architecture."""


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Fast tokenizer of a checkpoint.

    Raises
    ------
    DataError
        If its files are missing or damaged, or it is a slow one, without positions.
    """
    if not any((source.folder / name).exists() for name in _TOKENIZER_FILES):
        raise DataError(
            f"{source.folder}: no tokenizer files (tokenizer.json; or tokenizer.model, spiece.model, "
            "vocab.txt, or vocab.json with merges.txt); copy them from where the weights are from"
        )
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.folder)
        except Exception as error:  # of the Rust library, which has no class of its own
            reason = str(error).strip().partition("\n")[0]
            raise DataError(
                f"{source.folder}: its tokenizer cannot be read ({reason}); copy its tokenizer files again "
                "from where the weights are from"
            ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(f"{source.id}: its tokenizer gives no character positions (not a fast tokenizer)")
    return tokenizer


def bare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Copy of the underlying tokenizer without truncation and padding; "<eos>" in a text is plain text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def check_vocabulary(source: Source, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Check that a tokenizer knows words, and that the model has an embedding for each of them.

    Raises
    ------
    DataError
        If it is not the tokenizer of this model, or lacks its vocabulary.
    """
    backend = tokenizer.backend_tokenizer
    special = set(tokenizer.all_special_ids)
    words = {*backend.get_vocab(with_added_tokens=False).values()} - special
    if not words:
        raise DataError(
            f"{source.folder}: its tokenizer has no words; copy its tokenizer files (tokenizer.json) from "
            "where the weights are from"
        )
    used = words | {*backend.encode("a").ids}  # special tokens that no text gets need no embedding
    rows = model.get_input_embeddings().num_embeddings
    if max(used) >= rows:
        raise DataError(
            f"{source.folder}: its tokenizer numbers words up to {max(used):,}, and the model has embeddings "
            f"for {rows:,}; they do not belong together: copy the tokenizer files from where the weights are "
            "from"
        )


def weights_digest(model: PreTrainedModel) -> str:
    """Digest of names, shapes and values of all weights, in their type: 32 hex digits."""

    def tensor_digest(item: tuple[str, torch.Tensor]) -> str:
        name, tensor = item
        state = hashlib.blake2b(digest_size=16)
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest(name, f"{tensor.dtype} {tuple(tensor.shape)}", state.digest())

    with ThreadPoolExecutor() as pool:
        return digest(*pool.map(tensor_digest, sorted(model.state_dict().items())))


def position_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Largest number of tokens of a sequence; None where neither model nor tokenizer states it."""
    config = getattr(model.config, "encoder", None) or model.config
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            # RoBERTa numbers positions from padding_idx + 1: its table has rows that no token reaches.
            limits.append(int(module.num_embeddings) - int(module.padding_idx) - 1)
    # A tokenizer without a limit has 1e30; a relative encoding has -1 or nothing.
    stated = [int(limit) for limit in limits if limit is not None and 0 < limit < 1 << 30]
    return min(stated, default=None)
