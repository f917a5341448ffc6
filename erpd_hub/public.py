"""What may be told of a run in lineage and cards: values and commands without what names this machine."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erpd_hub.recipe_files import parse_value

_LOCAL_PATH = re.compile(r"(?:~|\.{1,2})?/\S*/\S*|(?:~|\.{1,2})/.*|file:.*", re.DOTALL)
_URL = re.compile(r"[a-zA-Z][\w+.-]*://.*", re.DOTALL)
_LOCAL_KEYS = {"url", "urls", "endpoint", "source", "path", "benchmark_files"}
"""Last parts of keys whose values are of this machine, whatever they look like."""


def public(value: Any) -> Any:
    """A config without what is nobody else's business: local paths and URLs are replaced, at any depth."""
    if isinstance(value, Mapping):
        return {str(name): public(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if _URL.fullmatch(value):
        return "(an endpoint)"
    return "(a local path)" if _LOCAL_PATH.fullmatch(value) else value


def run_command(name_or_path: str, overrides: Sequence[str]) -> str:
    """The words after `erpd-hub` that make a recipe's run, as `public_command` tells them. Files lose their folders;
    where the Hub is (`hub.`) decides nothing about what is made and is left out."""
    parts = [Path(part).name if part.endswith((".yaml", ".yml")) else part for part in name_or_path.split("+")]
    return public_command("run", ["+".join(parts), *(word for word in overrides if not word.startswith("hub."))])


def public_command(command: str, words: Sequence[str]) -> str:
    """A command of ours for a shell, without `erpd-hub`; empty where it names something of this machine, since without
    that it would make something else."""
    return shlex.join([*command.split(), *words]) if all(map(_is_public, words)) else ""


def is_command(text: str) -> bool:
    """Whether a text, such as a stranger's card, is nothing but the words of one command, with some for it."""
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    return len(words) > 1 and text.isprintable() and shlex.join(words) == text


def _is_public(word: str) -> bool:
    key, equals, text = word.partition("=")
    if (equals or key.startswith("--")) and key.lstrip("-").replace("-", "_").rpartition(".")[2] in _LOCAL_KEYS:
        return False
    value = parse_value(text, word) if equals else word
    return word.isprintable() and public(value) == value and "://" not in word
