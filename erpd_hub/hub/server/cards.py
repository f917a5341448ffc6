"""What a repository says about itself: the YAML header of its README and the tags the Hub derives from it."""

import datetime
import math
import re
from collections.abc import Mapping
from functools import lru_cache

import yaml

from erpd_hub.hub.server.repos import Kind

MAX_HEADER_CHARS = 256 << 10
"""Also how much of a README is looked at."""
MAX_NESTING = 50

_HEADER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


class CardError(ValueError):
    """A README header that cannot be read; the text is for its author."""


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases: a few hundred bytes of them expand to gigabytes of JSON."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise CardError("YAML aliases are not supported")
        return super().compose_node(parent, index)


def parse_header(text: str) -> dict[str, object]:
    """The README's metadata as plain JSON values, empty when it has none; raises CardError when malformed."""
    match = _HEADER.match(text)
    if match is None:
        return {}
    if len(match[1]) > MAX_HEADER_CHARS:
        raise CardError(f"the header is longer than {MAX_HEADER_CHARS} characters")
    try:
        header = _plain(yaml.load(match[1], _Loader), MAX_NESTING)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CardError(str(error)) from error
    if not isinstance(header, dict | None):
        raise CardError("the header must be a mapping")
    return header or {}


@lru_cache(maxsize=256)
def read_card(readme: bytes) -> Mapping[str, object]:
    """Metadata of a README that may be malformed, in which case there is none. Callers must not change it."""
    try:
        return parse_header(readme.decode("utf-8", errors="replace"))
    except CardError:
        return {}


def card_tags(kind: Kind, card: Mapping[str, object]) -> list[str]:
    """The tags listings filter by, derived from a card's metadata."""
    tags = _strings(card.get("tags"))
    tags += [text for key in ("library_name", "pipeline_tag") for text in _strings(card.get(key))]
    tags += [f"task_categories:{text}" for text in _strings(card.get("task_categories"))]
    tags += [f"dataset:{text}" for text in _strings(card.get("datasets"))]
    for base in _strings(card.get("base_model")):
        tags.append(f"base_model:{base}")
        tags += [f"base_model:{relation}:{base}" for relation in _strings(card.get("base_model_relation"))]
    for language in _strings(card.get("language")):
        tags.append(language if kind == "model" else f"language:{language}")
    tags += [f"license:{text}" for text in _strings(card.get("license"))]
    return list(dict.fromkeys(tags))


def _strings(value: object) -> list[str]:
    """A YAML field that may hold one text or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _plain(value: object, depth: int) -> object:
    if depth == 0:
        raise CardError(f"the header is nested deeper than {MAX_NESTING} levels")
    if isinstance(value, dict):
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
