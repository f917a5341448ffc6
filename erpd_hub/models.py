"""Policies on disk and in memory: loading, saving, importing.

A checkpoint folder is a transformers folder: safetensors, config, tokenizer; or a PEFT adapter with its base model in a
sub-folder `base`, which loads as one model. Pickled weights are never read, and code that comes with a model is run
only where a recipe asks for it.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import psutil
import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from erpd_hub.carry import carry_over
from erpd_hub.errors import ArtifactError

transformers_logging.disable_progress_bar()  # a checkpoint loads every few seconds; the CLI shows progress of its own

Dtype = Literal["float32", "bfloat16"]
_ADAPTER = "adapter_config.json"
_BASE = "base"


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_bytes(where: torch.device) -> float:
    """What a process may still take of a GPU, or of the host's memory as one of those that share it."""
    if where.type == "cuda":
        return float(torch.cuda.mem_get_info(where)[0])
    return psutil.virtual_memory().available / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def load_model(
    folder: Path,
    dtype: Dtype | Literal["stored"] = "float32",
    *,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    placed: bool = True,
) -> PreTrainedModel:
    """A checkpoint on the device at hand, in evaluation mode; an adapter is merged into its base in fp32.

    Args:
        dtype: Of the weights in memory; `stored` leaves them as they are on disk.
        attn_implementation: None takes what transformers takes.
        placed: False leaves the weights where `from_pretrained` puts them, for FSDP2 and ZeRO-3.

    Raises:
        ArtifactError: no safetensors, an adapter without its base, or the model needs code of its own and that was not
            asked for.
    """
    if (folder / _ADAPTER).is_file():
        return _load_adapter(folder, dtype, attn_implementation, trust_remote_code, placed)
    _check_folder(folder, trust_remote_code)
    attention = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto" if dtype == "stored" else getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        **attention,
    )
    return ready(model) if placed else model.eval()


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    if (folder / _ADAPTER).is_file() and not (folder / "tokenizer_config.json").is_file():
        folder = folder / _BASE
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def save_checkpoint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    dtype: Dtype | None = None,
    source: Path | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a transformers folder; the same weights give the same bytes wherever they were loaded from.

    Args:
        dtype: Of the saved weights; None leaves them as they are.
        source: The checkpoint that training started from; what it has beside the policy is carried over.
        state_dict: The weights, gathered from several processes; None takes the model's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = dict(model.state_dict() if state_dict is None else state_dict)
    if state_dict is not None:  # gathered from shards, tied weights come as two
        weights = {name: value for name, value in weights.items() if name not in model.all_tied_weights_keys}
    model.save_pretrained(folder, state_dict=weights if dtype is None else _cast(model, weights, dtype))
    save_tokenizer(tokenizer, folder)
    saved_dtype = dtype or str(model.dtype).removeprefix("torch.")
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if key != "_name_or_path"} | {"dtype": saved_dtype}
    _write_json(folder / "config.json", kept)
    while source is not None and (source / _ADAPTER).is_file():
        source = source / _BASE
    if source is not None:
        carry_over(model, source, folder, saved_dtype)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer that does not say where it was read from."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    local = ("name_or_path", "is_local", "local_files_only")
    _write_json(path, {key: value for key, value in content.items() if key not in local})


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
    save_checkpoint(model, tokenizer, out, source=source if gguf_file is None else None)
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


def ready(model: PreTrainedModel) -> PreTrainedModel:
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
    return ready(model), tokenizer


def _load_adapter(
    folder: Path,
    dtype: Dtype | Literal["stored"],
    attn_implementation: str | None,
    trust_remote_code: bool,
    placed: bool,
) -> PreTrainedModel:
    if not (folder / _BASE).is_dir() or not (folder / "adapter_model.safetensors").is_file():
        raise ArtifactError(
            f"{folder}: expected an adapter in safetensors with its base model in {_BASE}/, got "
            f"{sorted(path.name for path in folder.iterdir())}; pull it with its base"
        )
    from peft import PeftModel  # an environment for sampling need not have it

    base = load_model(
        folder / _BASE,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        placed=placed,
    )
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    return merged if dtype in ("float32", "stored") else merged.to(getattr(torch, dtype))


def _cast(model: PreTrainedModel, weights: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """Floating tensors in another dtype, tied ones still one tensor; what a family keeps in fp32 stays so."""
    fp32 = sorted(model._keep_in_fp32_modules_strict or ())
    cast: dict[tuple[int, torch.Size], Tensor] = {}
    found = {}
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or any(re.search(rf"(^|\.){kept}(\.|$)", name) for kept in fp32):
            found[name] = tensor
            continue
        key = (tensor.data_ptr(), tensor.shape)
        if key not in cast:
            cast[key] = tensor.to(getattr(torch, dtype))
        found[name] = cast[key]
    return found


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
