"""What a repository says about itself: the YAML header of its README and the tags the Hub derives from it."""

import datetime
import math
import re
from collections.abc import Mapping
from functools import lru_cache

import yaml

from erpd_hub.hub.licences import KNOWN
from erpd_hub.hub.server.repos import Kind

MAX_HEADER_CHARS = 256 << 10
"""Also how much of a README is looked at."""
MAX_NESTING = 50
_LARGEST_INTEGER = 2**63

_HEADER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


_TEXT_FIELDS = ("library_name", "pipeline_tag", "pretty_name", "base_model_relation", "license_name", "license_link")
_LIST_FIELDS = ("language", "license", "tags", "datasets", "metrics", "task_categories", "base_model")
_TABLE_FIELDS = ("model-index", "configs")


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
    header = parse_yaml(match[1])
    if not isinstance(header, dict | None):
        raise CardError("the header must be a mapping")
    return header or {}


def parse_yaml(text: str) -> object:
    """YAML as plain JSON values; raises CardError when malformed."""
    try:
        return _plain(yaml.load(text, _Loader), MAX_NESTING)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CardError(str(error)) from error


def card_errors(header: Mapping[str, object]) -> list[str]:
    """What the Hub refuses in a header although it is good YAML: fields of another type than listings rely on."""
    errors = []
    for key in _TEXT_FIELDS:
        if not isinstance(header.get(key), str | None):
            errors.append(f'"{key}" must be a string')
    for key in _LIST_FIELDS:
        value = header.get(key)
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str | None) for text in texts):
            errors.append(f'"{key}" must be a string or a list of strings')
    for key in _TABLE_FIELDS:
        rows = header.get(key)
        if rows is not None and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            errors.append(f'"{key}" must be an array')
    known = {*KNOWN, "other"}
    if unknown := [text for text in _strings(header.get("license")) if text not in known]:
        errors.append(f'"license" must be one of [{", ".join(sorted(known))}], got {unknown[0][:100]!r}')
    return errors


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
    tags += [f"model:{text}" for text in _strings(card.get("models"))]
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
        return {_text(str(key)): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
        raise CardError("a number has more than 63 bits")
    return value if isinstance(value, int | float | bool | None) else _text(str(value))


def _text(value: str) -> str:
    """A text that can be sent; YAML's escapes may spell half of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CardError("a text has a lone surrogate") from None
    return value
