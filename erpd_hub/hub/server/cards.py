"""What a repository says about itself: the YAML header of its README and the tags the Hub derives from it."""

import datetime
import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256

import yaml

from erpd_hub.hub.licences import KNOWN
from erpd_hub.hub.server import possession
from erpd_hub.hub.server.blobs import BlobStore
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.remembered import Remembered
from erpd_hub.hub.server.repos import Commit, Kind, Repo
from erpd_hub.hub.server.trees import TreeStore

CARD = "README.md"
MAX_HEADER_BYTES = 128 << 10
"""The worst of them takes half a second to read."""
HEAD_BYTES = MAX_HEADER_BYTES + 1024
"""How much of a README is looked at."""
MAX_NESTING = 50
MAX_NUMBER_CHARS = 100
_LARGEST_INTEGER = 2**63

_headers = Remembered(128 << 20)
"""Headers as JSON by the sha256 of their YAML: listings look at every repository's."""
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-Fxob_:.]*")
_HEADER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


_TEXT_FIELDS = ("library_name", "pipeline_tag", "pretty_name", "base_model_relation", "license_name", "license_link")
_LIST_FIELDS = ("language", "license", "tags", "datasets", "metrics", "task_categories", "base_model")
_TABLE_FIELDS = ("model-index", "configs")
_CLIENTS_OWN = ("self", "ignore_metadata_errors")
"""Clients pass a card's fields on as arguments, beside these of their own: a listing with one of them raises there."""


class CardError(ValueError):
    """A README header that cannot be read; the text is for its author."""


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built


def parse_header(text: str) -> dict[str, object]:
    """The README's metadata as plain JSON values, empty when it has none; raises CardError when malformed."""
    match = _HEADER.match(text)
    if match is None:
        return {}
    if len(match[1].encode(errors="replace")) > MAX_HEADER_BYTES:
        raise CardError(f"the header is longer than {MAX_HEADER_BYTES} bytes")
    header = parse_yaml(match[1])
    if not isinstance(header, dict | None):
        raise CardError("the header must be a mapping")
    return header or {}


def parse_yaml(text: str) -> object:
    """YAML as plain JSON values; raises CardError when malformed."""
    try:
        _check_shape(text)
        return _plain(yaml.load(text, _Loader))
    except CardError:
        raise
    except Exception as error:  # PyYAML lets through whatever its constructors meet: KeyError, OverflowError, others
        raise CardError(str(error) or type(error).__name__) from error


def _check_shape(text: str) -> None:
    """Refuse what takes long to load: a few hundred bytes of aliases expand to gigabytes, and a tag that is written
    out makes a number of any text."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            raise CardError("YAML aliases are not supported")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) not in (None, "!"):
            raise CardError("YAML tags are not supported")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and _is_long_number(event):
            raise CardError(f"a number has more than {MAX_NUMBER_CHARS} characters")
        if depth > MAX_NESTING:
            raise CardError(f"the header is nested deeper than {MAX_NESTING} levels")


def _is_long_number(event: yaml.ScalarEvent) -> bool:
    plain = bool(event.implicit[0]) and len(event.value) > MAX_NUMBER_CHARS
    return plain and _NUMBER.fullmatch(event.value) is not None


def card_errors(header: Mapping[str, object]) -> dict[str, str]:
    """What the Hub refuses in a header although it is good YAML, by field: what listings, here and in clients, cannot
    deal with."""
    errors = {key: f'"{key}" is not allowed' for key in _CLIENTS_OWN if key in header}
    for key in _TEXT_FIELDS:
        if not isinstance(header.get(key), str | None):
            errors[key] = f'"{key}" must be a string'
    for key in _LIST_FIELDS:
        value = header.get(key)
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str | None) for text in texts):
            errors[key] = f'"{key}" must be a string or a list of strings'
    for key in _TABLE_FIELDS:
        rows = header.get(key)
        if rows is not None and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            errors[key] = f'"{key}" must be an array'
        elif not all(map(_is_source, _results_of(rows))):
            errors[key] = f'"source" in "{key}" must be an object, with a url where it has a name'
    known = {*KNOWN, "other"}
    if unknown := [text for text in _strings(header.get("license")) if text not in known]:
        errors["license"] = f'"license" must be one of [{", ".join(sorted(known))}], got {unknown[0][:100]!r}'
    return errors


def _results_of(rows: Iterable[Mapping[str, object]] | None) -> Iterator[Mapping[str, object]]:
    """The evaluation results of a model-index."""
    for row in rows or ():
        results = row.get("results")
        yield from (result for result in results if isinstance(result, dict)) if isinstance(results, list) else ()


def _is_source(result: Mapping[str, object]) -> bool:
    """Whether a result has no source, or one that clients can read."""
    source = result.get("source", {})
    return isinstance(source, dict) and (source.get("name") is None or source.get("url") is not None)


def readme_errors(readme: bytes) -> list[str]:
    """Why the Hub does not take a README, empty when it does."""
    try:
        return list(card_errors(parse_header(readme.decode("utf-8", errors="replace"))).values())
    except CardError as error:
        return [f"YAML metadata: {error}"]


def card_of(
    db: sqlite3.Connection, trees: TreeStore, blobs: BlobStore, repo: Repo, commit: Commit
) -> dict[str, object]:
    """Metadata of a commit's README, however long its text is."""
    entry = trees.root(db, commit.tree).entries.get(CARD)
    if not isinstance(entry, File) or not possession.holds(db, blobs, repo, entry):
        return {}
    return read_card(blobs.read_part(db, entry.sha256, 0, HEAD_BYTES))


def read_card(readme: bytes) -> dict[str, object]:
    """Metadata of a README that nobody may have checked: none of a malformed one, and of another no field that the Hub
    refuses; its first `HEAD_BYTES` are enough."""
    match = _HEADER.match(readme[:HEAD_BYTES].decode("utf-8", errors="replace"))
    if match is None:
        return {}
    key = sha256(match[1].encode(errors="replace")).hexdigest()
    card: dict[str, object] = json.loads(_headers.get(key, lambda: _header_json(match[0])))
    return card


def _header_json(text: str) -> str:
    try:
        header = parse_header(text)
        refused = card_errors(header)
        return json.dumps({key: value for key, value in header.items() if key not in refused})
    except CardError:
        return "{}"


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


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
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
