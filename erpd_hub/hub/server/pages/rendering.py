"""Templates and what they need: sizes, dates and links as text. Every value is escaped."""

from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

from erpd_hub.hub.server.pages.graph import BOX_HEIGHT, BOX_WIDTH
from erpd_hub.hub.server.repos import KINDS, Kind

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # not before somebody looks

    folder = files("erpd_hub.hub.server.pages")
    made = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": size, "date": date, "path": path, "ago": ago, "tail": tail}
    made.globals |= {"kinds": KINDS, "kind_names": {kind: kind_name(kind) for kind in KINDS},
                     "box_size": (BOX_WIDTH, BOX_HEIGHT)}  # fmt: skip
    return made


def stylesheet() -> str:
    return (files("erpd_hub.hub.server.pages") / "style.css").read_text(encoding="utf-8")


def kind_name(kind: Kind) -> str:
    return f"{kind.capitalize()}s"


def size(count: int) -> str:
    """Bytes with a unit of a thousand."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return f"{count} B"


def date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def ago(ms: int) -> str:
    """How long ago, roughly; a date for what is more than a month old."""
    seconds = datetime.now(UTC).timestamp() - ms / 1000
    for unit, length, limit in (("minute", 60, 3600), ("hour", 3600, 86_400), ("day", 86_400, 30 * 86_400)):
        if seconds < limit:
            count = max(0, int(seconds // length))
            return "just now" if unit == "minute" and count == 0 else f"{count} {unit}{'' if count == 1 else 's'} ago"
    return date(ms)[:10]


def tail(text: str, length: int) -> str:
    """The end of a name, which tells those of a run apart."""
    return text if len(text) <= length else "…" + text[-(length - 1) :]


def path(text: str) -> str:
    """A path inside a repository as part of a URL."""
    return quote(text)
