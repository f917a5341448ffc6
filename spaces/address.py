"""What the page's address asks for, and addresses that come back to what is shown."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from markupsafe import Markup

from markup import link
from places import Query

MOST_ASKED = 8
"""Values of one name that are looked at."""


def one(query: Query, name: str, there: Sequence[str]) -> str | None:
    """What the address names, if it is there."""
    asked = next(iter(query.get(name, [])), None)
    return asked if asked in there else None


def several(query: Query, name: str, there: Sequence[str], most: int) -> list[str]:
    """Those that the address names and that are there."""
    return [asked for asked in dict.fromkeys(query.get(name, [])[:MOST_ASKED]) if asked in there][:most]


def whole_number(query: Query, name: str) -> int | None:
    asked = next(iter(query.get(name, [])), "")
    return int(asked) if asked.isdecimal() and len(asked) < 7 else None


def absent(query: Query, there: Mapping[str, Sequence[str]]) -> list[str]:
    """What the address names and is not there, so that nobody takes what is shown for it."""
    return [
        f"the address names the {name} {asked[:200]}, which is not among these: what follows is not what it meant"
        for name, known in there.items()
        for asked in query.get(name, [])[:MOST_ASKED]
        if asked not in known
    ]


def link_to(tab: str, text: str = "link to this", **values: object) -> Markup:
    """A link that opens a page as it is shown."""
    query = urlencode({"tab": tab, **{name: value for name, value in values.items() if value is not None}}, doseq=True)
    return Markup('<div class="erpd">{}</div>').format(link(f"?{query}", text))
