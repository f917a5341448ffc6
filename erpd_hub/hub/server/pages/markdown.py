"""Cards as HTML. A card is its author's text and hostile: its HTML is shown as text but for parts that fold, links go
to other pages only when somebody follows them, and images are shown only from the repository itself."""

import html
import re
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.paths import split_path

if TYPE_CHECKING:
    from markdown_it.token import Token

MAX_CARD_CHARS = 32_000
"""Longer cards are shown as text: rendering takes time on the machine that everybody shares."""
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
"""Image files by what they are called; SVG is none, as it may hold scripts."""

_FOLD, _END = re.compile(r"<details><summary>([^<>]+)</summary>"), "</details>"
_FOLLOWED = ("", "http", "https", "mailto")


def without_header(text: str) -> str:
    """A README without its YAML header."""
    if not text.startswith("---"):
        return text
    _, fence, rest = text.partition("\n---")
    return rest.partition("\n")[2] if fence else text


@lru_cache(maxsize=128)
def to_html(text: str, repo_url: str, revision: str) -> str | None:
    """A card's body as HTML, None when it is too long to render; relative targets are files at the revision."""
    if len(text) > MAX_CARD_CHARS:
        return None
    from markdown_it import MarkdownIt  # not before somebody looks: a run starts the server and opens no page

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    _fold(tokens)
    for token in tokens:
        if "style" in token.attrs:  # a column's alignment; no inline style is let through
            token.attrs = {"class": str(token.attrs["style"]).replace(":", "-")}
        for child in token.children or ():
            _tame(child, lambda kind, path: f"{repo_url}/{kind}/{revision}/{path}")
    return str(parser.renderer.render(tokens, parser.options, {}))


def _fold(tokens: list["Token"]) -> None:
    """Let parts fold, between a paragraph `<details><summary>TEXT</summary>` and the `</details>` that it needs."""
    opened = []
    for index, token in enumerate(tokens):
        if token.type != "inline" or token.level != 1:
            continue
        if _FOLD.fullmatch(token.content):
            opened.append(index)
        elif token.content == _END and opened:
            summary = html.escape(_FOLD.sub(r"\1", tokens[opened[-1]].content))
            for at, content in ((opened.pop(), f"<details><summary>{summary}</summary>\n"), (index, f"{_END}\n")):
                tokens[at].type, tokens[at].content, tokens[at].children = "html_block", content, None
                tokens[at - 1].hidden = tokens[at + 1].hidden = True


def _tame(token: "Token", file_url: Callable[[str, str], str]) -> None:
    if token.type == "link_open":
        href = str(token.attrs.get("href", ""))
        token.attrs = {**_kept(token.attrs), "href": _link(href, file_url), "rel": "nofollow noopener noreferrer"}
    elif token.type == "image":
        path = _own_file(str(token.attrs.get("src", "")))
        if path is not None and path[path.rfind(".") :].lower() in IMAGES:
            token.attrs = {**_kept(token.attrs), "src": file_url("media", path), "alt": "", "loading": "lazy"}
        else:
            token.type, token.tag, token.children = "text", "", None
            token.content = f"[image: {token.content}]"


def _kept(attributes: MutableMapping[str, Any]) -> dict[str, str | int | float]:
    return {name: value for name, value in attributes.items() if name == "title"}


def _link(href: str, file_url: Callable[[str, str], str]) -> str:
    """Where a link leads; nowhere for a scheme that is not followed."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return "#"
    if parts.scheme.lower() not in _FOLLOWED:
        return "#"
    path = _own_file(href)
    return href if path is None else file_url("blob", path) + (f"#{parts.fragment}" if parts.fragment else "")


def _own_file(target: str) -> str | None:
    """The path in the repository that a relative target names; None for any other target."""
    try:
        parts = urlsplit(target)
        path = parts.path.removeprefix("./")
        split_path(unquote(path, errors="strict"))
    except (ValueError, Refusal):
        return None
    return None if parts.scheme or parts.netloc or target.startswith(("/", "\\", "#", "?")) else path
