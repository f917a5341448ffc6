"""Licences as the Hub's metadata has them: identifiers of its list, and `other` with the name for the rest.

The Hub refuses a card whose licence is not on its list, so a name from a dataset's card or a user's file cannot go in
as it is.
"""

from collections.abc import Iterable
from typing import Any

from erpd_hub.hub.licences import KNOWN


def licence_fields(names: Iterable[str]) -> dict[str, Any]:
    """`license`, and `license_name` for what the Hub has no identifier of; empty without any licence."""
    found, others = [], []
    for name in names:
        known = _identifier(name)
        if known is None:
            others.append(name)
        found.append(known or "other")
    ids = list(dict.fromkeys(found))
    if not ids:
        return {}
    fields: dict[str, Any] = {"license": ids[0] if len(ids) == 1 else ids}
    return fields | ({"license_name": ", ".join(dict.fromkeys(others))} if others else {})


def _identifier(name: str) -> str | None:
    """`Apache-2.0 (dataset card)` and `apache-2.0` are the same; None for what is not on the list."""
    plain = name.partition("(")[0].strip().lower()
    return plain if plain in KNOWN else None
