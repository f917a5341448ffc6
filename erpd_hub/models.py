"""Policies on disk and in memory: the tiny one, loading, saving, importing.

A checkpoint folder is a transformers folder: safetensors, config, tokenizer. Pickled weights are never read, and code
that comes with a model is run only where a recipe asks for it.
"""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from erpd_hub.config import TinyBase
from erpd_hub.errors import ArtifactError

transformers_logging.disable_progress_bar()  # a checkpoint loads every few seconds; the CLI shows progress of its own

Dtype = Literal["float32", "bfloat16"]

_TINY_SPECIALS = ("<pad>", "<eos>", "<|user|>", "<|assistant|>", "<unk>")
_TINY_TOKENS = (*_TINY_SPECIALS, *"0123456789+=;? ", "\\boxed{", "}")
_TINY_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}<eos>"
    "{% else %}<|user|>{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_TINY_CONTEXT = 512


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tiny_policy(config: TinyBase, seed: int) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A fresh character-level Llama, its weights a function of config and seed."""
    tokenizer = _tiny_tokenizer()
    architecture = LlamaConfig(
        vocab_size=len(_TINY_TOKENS),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=_TINY_CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(architecture)
    return _ready(model), tokenizer


def load_model(folder: Path, dtype: Dtype = "float32", trust_remote_code: bool = False) -> PreTrainedModel:
    """A checkpoint on the device at hand, in evaluation mode.

    Raises:
        ArtifactError: no safetensors, or the model needs code of its own and that was not asked for.
    """
    _check_folder(folder, trust_remote_code)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=trust_remote_code
    )
    return _ready(model)


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a transformers folder; the same weights give the same bytes wherever they were loaded from."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _drop_keys(folder / "config.json", "_name_or_path")
    _drop_keys(folder / "tokenizer_config.json", "name_or_path", "is_local", "local_files_only")


def import_checkpoint(
    source: Path, out: Path, gguf_file: str | None = None, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Bring a policy in as fp32 safetensors.

    Args:
        source: A transformers folder, a folder with a GGUF in it, or a .gguf file.
        gguf_file: Name of the GGUF in the folder; its weights are dequantized.

    Raises:
        ArtifactError: there are no safetensors to read, or the model needs code that was not asked for.
    """
    if source.is_file():
        # Alone in a folder: files beside it are no part of the input, and transformers would read them.
        with TemporaryDirectory() as folder:
            (Path(folder) / source.name).symlink_to(source.resolve())
            return import_checkpoint(Path(folder), out, source.name)
    if gguf_file is None:
        model = load_model(source, trust_remote_code=trust_remote_code)
        tokenizer = load_tokenizer(source, trust_remote_code)
    else:
        model, tokenizer = _load_gguf(source, gguf_file)
    save_checkpoint(model, tokenizer, out)
    return model, tokenizer


def chat_template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """First 16 hex digits of the template's SHA-256; `none` without one. It must agree across a round."""
    template = tokenizer.chat_template
    if template is None:
        return "none"
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a response: those of the model's generation config and the tokenizer's own."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def context_length(model: PreTrainedModel) -> int | None:
    """Positions the model was made for; None where its config does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate(_TINY_TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\\boxed\{|[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
        chat_template=_TINY_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    """On the device at hand, without dropout: the same tokens get the same log-probs every time."""
    return model.to(device()).eval()


def _check_folder(folder: Path, trust_remote_code: bool) -> None:
    if not any(folder.glob("*.safetensors")):
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise ArtifactError(
            f"{folder}: expected weights in safetensors, got {found}; convert them first, pickles are not read"
        )
    config = json.loads((folder / "config.json").read_text())
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING and not trust_remote_code:
        raise ArtifactError(
            f"{folder}: expected a model that transformers knows, got {config.get('model_type')!r} with code of its "
            "own; set trust_remote_code to run it"
        )


def _load_gguf(folder: Path, gguf_file: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not (folder / gguf_file).is_file():
        raise ArtifactError(f"{folder}: expected the file {gguf_file}, got none")
    with (folder / gguf_file).open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ArtifactError(f"{gguf_file}: expected a GGUF file, got something else under that name")
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf_file, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf_file)
    return _ready(model), tokenizer


def _drop_keys(path: Path, *keys: str) -> None:
    """Take out what says where the files were read from: a path is no part of a model."""
    content = json.loads(path.read_text())
    kept = {key: value for key, value in content.items() if key not in keys}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
