"""Tiny language models with random weights, saved in the layout of the Hub."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by huggingface_hub when it is imported

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GemmaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
    T5Gemma2Config,
    T5Gemma2DecoderConfig,
    T5Gemma2EncoderConfig,
    T5Gemma2ForConditionalGeneration,
    T5Gemma2TextConfig,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    T5GemmaModuleConfig,
)

CORPUS = [
    "the strings are bright and the sound is warm",
    "this guitar strap is too short, but it looks great",
    "works fine with my amplifier; sturdy cable, no noise",
    "die Saiten klingen gut und halten lange",
    "bought it for my daughter, she plays it every day",
] * 4

VOCAB = 512


def gemma_tokenizer() -> GemmaTokenizer:
    """BPE tokenizer with byte fallback, as of Gemma: pads left, and adds <bos> by its configuration."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, show_progress=False)
    )
    merges = json.loads(trained.to_str())["model"]["merges"]
    return GemmaTokenizer(
        vocab=trained.get_vocab(), merges=[tuple(merge) for merge in merges], add_bos_token=True
    )


def bert_tokenizer() -> BertTokenizer:
    """Lower-casing WordPiece tokenizer without accents: tokens differ from the text, positions do not."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.;!'"
    words = sorted({word.strip(",;") for text in CORPUS for word in text.lower().split()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters), *words]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=64)


def _gemma_sizes() -> dict[str, int | float]:
    return {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }


def t5gemma() -> T5GemmaForConditionalGeneration:
    """T5Gemma v1: soft-capped attention, sliding window in every second layer."""
    config = T5GemmaConfig(
        encoder=T5GemmaModuleConfig(**_gemma_sizes()),
        decoder=T5GemmaModuleConfig(**_gemma_sizes()),
        vocab_size=VOCAB,
    )
    return T5GemmaForConditionalGeneration(config)


def t5gemma2() -> T5Gemma2ForConditionalGeneration:
    """T5Gemma v2: a text encoder next to a vision tower."""
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    encoder = T5Gemma2EncoderConfig(
        text_config=T5Gemma2TextConfig(**_gemma_sizes()),
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=VOCAB - 1,
        boi_token_index=VOCAB - 2,
        eoi_token_index=VOCAB - 3,
    )
    decoder = T5Gemma2DecoderConfig(**_gemma_sizes())
    return T5Gemma2ForConditionalGeneration(
        T5Gemma2Config(encoder=encoder, decoder=decoder, image_token_index=VOCAB - 1)
    )


def bert() -> BertForMaskedLM:
    """BERT as a language model: a checkpoint without the pooler."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=200,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    )


def roberta() -> RobertaForMaskedLM:
    """RoBERTa, which counts positions from its padding index + 1."""
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=200,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=66,
            pad_token_id=1,
            type_vocab_size=1,
            initializer_range=0.2,
        )
    )


def t5() -> T5ForConditionalGeneration:
    """Original T5, whose relative positions imply no length limit."""
    return T5ForConditionalGeneration(
        T5Config(vocab_size=VOCAB, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2)
    )


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Write a checkpoint; its folder."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def whole_model_rows(name: str, model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """Oracle: output of the encoder of the whole model for one text, without padding."""
    row = torch.tensor([list(ids)])
    with torch.inference_mode():
        return whole_encoder(name, model)(
            input_ids=row, attention_mask=torch.ones_like(row)
        ).last_hidden_state[0]


def whole_encoder(name: str, model: PreTrainedModel) -> PreTrainedModel:
    """Encoder of the whole model."""
    return getattr(model, name) if name in ("bert", "roberta") else model.get_encoder()


def build(name: str, folder: Path) -> tuple[Path, PreTrainedModel]:
    """Checkpoint of one of the models above, by name, and the whole model that was saved."""
    torch.manual_seed(7)
    builders = {"t5gemma": t5gemma, "t5gemma2": t5gemma2, "bert": bert, "roberta": roberta, "t5": t5}
    model = builders[name]().eval()
    tokenizer = bert_tokenizer() if name in ("bert", "roberta") else gemma_tokenizer()
    return save(model, tokenizer, folder / f"tiny-{name}"), model
