"""Values as Markdown that stays text: texts, answers and names come from models and datasets and are hostile."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml
from markupsafe import Markup

from erpd_hub.lineage import Place

_MARKDOWN = re.compile(r"([\\`*\[\]|])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_NO_CODE = re.compile(r"[^\w./@:+=, ()-]")


def plain(value: object) -> object:
    """What `{{ value }}` becomes: one line in which nothing is markup. Values already marked safe pass."""
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).split())
    return Markup(_MARKDOWN.sub(r"\\\1", line.translate(_HTML)))


def code(value: object) -> Markup:
    """A code span: for ids, tags and digests, which have no other characters than those kept here."""
    return Markup(f"`{_NO_CODE.sub('_', str(value))}`")


def fenced(value: str, language: str) -> Markup:
    """A code block, with a fence longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{value.rstrip()}\n{fence}")


def link(item: Mapping[str, Any]) -> Markup:
    """`namespace/name@short-sha` of an input, linked to that revision relative to the endpoint."""
    if not item["repo_id"]:
        return Markup("an endpoint, which nothing pins" if item["kind"] == "endpoint" else "a local source")
    repo_id, folder = (_NO_CODE.sub("_", item[key] or "") for key in ("repo_id", "folder"))
    revision = _NO_CODE.sub("_", item["revision"] or "main")
    section = "/datasets" if item["repo_type"] == "dataset" else ""
    target = f"{section}/{repo_id}/tree/{revision}/{folder}".rstrip("/").replace(" ", "%20")
    name = f"{repo_id}/{folder}".rstrip("/")
    return Markup(f"[`{name}@{revision[:7]}`](<{target}>)")


def link_place(place: Place) -> Markup:
    """The same for an artifact of ours."""
    return link({**asdict(place), "kind": ""})


def number(value: object) -> object:
    """A metric for a table: four significant digits, a dash for nothing."""
    if value is None:
        return Markup("-")
    return f"{value:.4g}" if isinstance(value, float) else value


def limits(settings: Mapping[str, Any]) -> object:
    """Most new tokens and, after a slash where there is such a limit, of prompt and response together."""
    new, sequence = number(settings.get("max_new_tokens")), settings.get("max_sequence_tokens")
    return new if sequence is None else f"{new} / {sequence}"


def percent(value: float | None) -> object:
    """A share in percent for a table; a dash for nothing."""
    return Markup("-") if value is None else f"{100 * value:.1f}"


def interval(value: list[float] | None) -> object:
    """Two shares in percent; a dash for nothing."""
    return Markup("-") if value is None else f"{100 * value[0]:.1f} to {100 * value[1]:.1f}"


def words(value: Mapping[str, Any]) -> str:
    """Settings in one line: `name value, name value`."""
    return ", ".join(f"{name} {words(inner) if isinstance(inner, Mapping) else inner}" for name, inner in value.items())


def yaml_block(value: Any) -> str:
    """YAML of plain values in their given order, one line per value however long."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**9)
