"""The tiny policies of the quick start and the twins: a Llama of a few layers over characters, made from its config."""

import re
from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from erpd_hub.arithmetic import METHODS
from erpd_hub.chain import SIGNS, chain_tokens
from erpd_hub.config import TinyBase
from erpd_hub.models import ready
from erpd_hub.programs import TOKENS as PROGRAM_TOKENS

_SPECIALS = ("<pad>", "<eos>", "<|user|>", "<|assistant|>", "<unk>")
_TOKENS = (*_SPECIALS, *"0123456789+=;? ", "\\boxed{", "}")
_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}<eos>"
    "{% else %}<|user|>{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CONTEXT = 512


def tiny_policy(config: TinyBase, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A fresh character-level Llama, its weights a function of config and seed."""
    tokens = tiny_tokens(config)
    tokenizer = _tokenizer(tokens)
    architecture = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=_context(config),
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(architecture)
    return ready(model), tokenizer


def tiny_tokens(config: TinyBase) -> tuple[str, ...]:
    """The vocabulary, with what only some tasks write at its end: the others' models stay what they are."""
    of_task = {"addition": (), "chain": SIGNS, "program": PROGRAM_TOKENS}[config.task]
    return (*_TOKENS, *(METHODS if config.lazy else ()), *of_task)


def _context(config: TinyBase) -> int:
    """Positions: enough for twice a chain, prompt and all."""
    if config.task != "chain":
        return _CONTEXT
    return 2 * max(_CONTEXT, chain_tokens(columns=config.max_digits, steps=config.chain_steps))


def _tokenizer(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    longer = [re.escape(token) for token in tokens[len(_TOKENS) :] if len(token) > 1]
    pattern = "|".join([r"\\boxed\{", *longer, r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
