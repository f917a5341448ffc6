"""What a checkpoint has beside the policy: a vision tower, multi-token prediction, the configuration of the whole.

transformers loads the text model of such a checkpoint and leaves the rest on disk. A policy trained from it is saved as
the whole again: the rest bit by bit, under the names of the source, so that every program that could load the source
can load what became of it.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")

logger = logging.getLogger(__name__)


def carry_over(model: PreTrainedModel, source: Path, folder: Path, dtype: str) -> None:
    """Complete a saved policy with what its source has beside it.

    Args:
        source: The checkpoint that the policy was loaded from.
        folder: Where `save_pretrained` has put the policy.
        dtype: Of the saved policy, for the configuration.
    """
    saved, there = tensor_files(folder), tensor_files(source)
    rest = {name: path for name, path in there.items() if name not in saved and not _is_tied(model, name)}
    config = json.loads((source / "config.json").read_text())
    if config["model_type"] != model.config.model_type:
        _write_json(folder / "config.json", _with_dtype(config, dtype))
        for name in _PROCESSORS:
            if (source / name).is_file():
                (folder / name).write_bytes((source / name).read_bytes())
    if not rest:
        return
    if strangers := sorted(saved.keys() - there.keys()):
        logger.warning(
            "%d tensors of the source are not part of the policy and are left behind, since the policy's are named "
            "otherwise there (%s)", len(rest), strangers[0],
        )  # fmt: skip
        return
    _add_shard(rest, saved, folder)


def tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor in a checkpoint."""
    if (folder / _INDEX).is_file():
        names = json.loads((folder / _INDEX).read_text())["weight_map"]
        return {name: folder / file for name, file in names.items()}
    with safe_open(folder / _SINGLE, framework="pt") as stream:
        return {name: folder / _SINGLE for name in stream.keys()}  # noqa: SIM118 (no mapping)


def _is_tied(model: PreTrainedModel, name: str) -> bool:
    """A copy of the embedding under the head's name would be the old one."""
    return any(re.search(tied, name) for tied in model.all_tied_weights_keys)


def _add_shard(rest: dict[str, Path], saved: dict[str, Path], folder: Path) -> None:
    """Put the rest into one more file, and list all files in an index."""
    files = sorted({path.name for path in saved.values()})
    total = len(files) + 1
    renamed = {name: f"model-{number:05d}-of-{total:05d}.safetensors" for number, name in enumerate(files, start=1)}
    for old, new in renamed.items():
        (folder / old).rename(folder / new)
    weight_map = {name: renamed[path.name] for name, path in saved.items()}
    last = f"model-{total:05d}-of-{total:05d}.safetensors"
    tensors: dict[str, Tensor] = {}
    for path in sorted(set(rest.values())):
        with safe_open(path, framework="pt") as stream:
            tensors |= {name: stream.get_tensor(name) for name in sorted(rest) if rest[name] == path}
    save_file(tensors, folder / last, metadata={"format": "pt"})
    weight_map |= dict.fromkeys(tensors, last)
    size = sum(path.stat().st_size for path in folder.glob("model-*.safetensors"))
    _write_json(folder / _INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The configuration of the whole with the dtype of its text part as saved."""
    text = config.get("text_config")
    changed = config if text is None else config | {"text_config": text | {"dtype": dtype}}
    return changed | {"dtype": dtype}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
