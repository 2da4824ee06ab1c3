"""Loads the encoder alone from a checkpoint, and never with a weight that the checkpoint does not hold."""

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

# T5Gemma 2 keeps its text encoder beside a vision tower; both layouts of the checkpoint are in use.
_T5GEMMA2_TEXT = {r"^model\.encoder\.(?:text_model\.)?(?=embed_tokens|layers|norm)": ""}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and load reports of transformers on stderr: what matters in them is raised as an error."""
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
    """The encoder in evaluation mode, on the CPU, in `dtype` (None: the checkpoint's own).

    Raises DataError where the folder holds no text encoder, where a weight is missing or of another shape, or
    where the file is damaged; OSError where there is none.
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
    found = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    if found is None and not getattr(config, "is_encoder_decoder", False):
        found = MODEL_MAPPING.get(type(config), None)
    if found is None:
        raise DataError(
            f"{source.id} ({config.model_type}): transformers has no class for its encoder alone; take a "
            "T5Gemma, a T5, or a model of the BERT family"
        )
    model_class: Any = found[0] if isinstance(found, tuple) else found
    # The pooler makes one vector of a text: unused here, and absent from checkpoints of language modelling.
    pools = "add_pooling_layer" in inspect.signature(model_class).parameters
    return model_class, {"add_pooling_layer": False} if pools else {}


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The model's fast tokenizer. DataError where it has only a slow one, which knows no positions."""
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(source.folder)
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(f"{source.id}: its tokenizer gives no character positions (not a fast tokenizer)")
    return tokenizer


def bare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of what lies below: no truncation, no padding, and "<eos>" in a review is only text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def weights_digest(model: PreTrainedModel) -> str:
    """32 hex digits over the names, shapes and values of all weights, in the type they compute in."""

    def one(item: tuple[str, torch.Tensor]) -> str:
        name, tensor = item
        state = hashlib.blake2b(digest_size=16)
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest(name, f"{tensor.dtype} {tuple(tensor.shape)}", state.digest())

    with ThreadPoolExecutor() as pool:
        return digest(*pool.map(one, sorted(model.state_dict().items())))


def position_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that the model and its tokenizer are made for; None where neither says."""
    config = getattr(model.config, "encoder", None) or model.config
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            # RoBERTa numbers positions from padding_idx + 1: its table has rows that no token reaches.
            limits.append(int(module.num_embeddings) - int(module.padding_idx) - 1)
    # A tokenizer without a limit says 1e30; a relative encoding says -1 or nothing.
    stated = [int(limit) for limit in limits if limit is not None and 0 < limit < 1 << 30]
    return min(stated, default=None)
