"""Lineage for readers: the graph as text, JSON or Mermaid, what a card says of it, and what differs between two
artifacts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from erpd_hub.artifacts import LineageRecord
from erpd_hub.asking import Asked, asked_of
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Ancestor, ancestry_of
from erpd_hub.plain import plain

GRAPH_SCHEMA = "erpd-hub/lineage-graph/v1"
ABSENT = "(not there)"
MOST_CARD_LINES = 60


def as_data(root: Ancestor) -> dict[str, Any]:
    """The graph as JSON: `nodes`, the artifact itself first, and `edges` from an input to what was made of it."""
    numbered = _numbered(root)
    nodes = [
        {
            "id": number,
            "place": str(node.place) if node.place else None,
            "repo_type": node.place.repo_type if node.place else None,
            "repo_id": node.place.repo_id if node.place else None,
            "revision": node.place.revision if node.place else None,
            "folder": node.place.folder if node.place else "",
            "stage": node.record.stage if node.record else None,
            "step": node.record.step if node.record else None,
            "run": node.record.run if node.record else None,
            "saved_step": node.record.saved_step if node.record else None,
            "fingerprint": node.record.fingerprint if node.record else None,
            "digest": node.digest,
        }
        for number, node in enumerate(numbered.values())
    ]
    return {"schema": GRAPH_SCHEMA, "nodes": nodes, "edges": [
        {"from": below, "to": above, "role": role} for below, above, role in _edges(numbered)
    ]}  # fmt: skip


def as_text(roots: Sequence[Ancestor], *, most: int | None = None) -> str:
    """The graphs as trees, an input on each line under what was made of it; one that was drawn before is only named
    again. At most `most` lines, and one that says how many are left out."""
    drawn: set[int] = set()
    lines: list[str] = []
    pending = [(root, "", "", "") for root in reversed(roots)]
    while pending:  # a chain may be longer than Python's stack
        node, head, role, below = pending.pop()
        again = id(node) in drawn and bool(node.inputs)
        lines.append(f"{head}{plain(role + node.label)}{' (above)' if again else ''}")
        if again:
            continue
        drawn.add(id(node))
        last = len(node.inputs) - 1
        pending += [
            (
                above,
                below + ("└── " if number == last else "├── "),
                f"{name}: ",
                below + ("    " if number == last else "│   "),
            )
            for number, (name, above) in reversed(list(enumerate(node.inputs)))
        ]
    if most is not None and len(lines) > most:
        lines = [*lines[:most], f"... and {len(lines) - most} lines more"]
    return "\n".join(lines) + "\n"


class Above(NamedTuple):
    """What a card says of its artifacts that is not in their own records."""

    graph: str = ""
    """Where they come from, drawn as text."""
    asked: Asked | None = None
    """How a checkpoint is asked."""


def card_above(hub: Hub, records: Sequence[LineageRecord]) -> Above:
    """What stands above the artifacts of one card."""
    roots = ancestry_of(hub, records)
    return Above(as_text(roots, most=MOST_CARD_LINES), asked_of(roots[0]) if records[0].kind == "checkpoint" else None)


def as_mermaid(root: Ancestor) -> str:
    """The graph as a Mermaid flowchart, inputs to the left."""
    numbered = _numbered(root)
    lines = ["graph LR"]
    for number, node in enumerate(numbered.values()):
        lines.append(f'  n{number}["{_mermaid_text(_title(node))}"]')
    lines += [f'  n{below} -->|"{_mermaid_text(role)}"| n{above}' for below, above, role in _edges(numbered)]
    return "\n".join(lines) + "\n"


def differences(a: LineageRecord, b: LineageRecord) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What two artifacts were made of differently: section to dotted key to (value in a, value in b).

    Sections: `stage`, `recipe` (the whole resolved config and the seed), `inputs` (role to place and digest), `code`,
    `environment`, `result` (digest and measured metrics). A section without a difference is left out.
    """
    pairs = {
        "stage": ({"stage": a.stage, "version": a.stage_version}, {"stage": b.stage, "version": b.stage_version}),
        "recipe": ({"seed": a.seed, **a.config}, {"seed": b.seed, **b.config}),
        "inputs": (_inputs(a), _inputs(b)),
        "code": (a.code, b.code),
        "environment": (a.environment, b.environment),
        "result": ({"digest": a.digest, **a.metrics}, {"digest": b.digest, **b.metrics}),
    }
    found = {section: _different(dict(_flat(left)), dict(_flat(right))) for section, (left, right) in pairs.items()}
    return {section: keys for section, keys in found.items() if keys}


def incomparable(a: LineageRecord, b: LineageRecord) -> str:
    """What a reader of the differences has to know first, that two artifacts are of different kinds; else empty."""
    if a.kind == b.kind:
        return ""
    kinds = f"{plain(a.kind)} made by {plain(a.stage)}, {plain(b.kind)} made by {plain(b.stage)}"
    return f"of different kinds ({kinds}): nearly all that follows is what only one of them has"


def _numbered(root: Ancestor) -> dict[int, Ancestor]:
    """Every node once, by the identity of the object, in the order of a walk from the artifact to its roots."""
    found: dict[int, Ancestor] = {}
    pending = [root]
    while pending:
        node = pending.pop(0)
        if id(node) not in found:
            found[id(node)] = node
            pending += [above for _, above in node.inputs]
    return found


def _edges(numbered: Mapping[int, Ancestor]) -> Iterator[tuple[int, int, str]]:
    """(number of the input, number of what was made of it, role)."""
    number = {key: position for position, key in enumerate(numbered)}
    for key, node in numbered.items():
        for role, above in node.inputs:
            yield number[id(above)], number[key], role


def _title(node: Ancestor) -> str:
    return f"{node.record.step}: {node.label}" if node.record else node.label


def _mermaid_text(text: str) -> str:
    """Names of repositories and roles need no more than this: Mermaid has numeric entities of its own."""
    return "".join(char if char.isalnum() or char in " ._/@:-" else f"#{ord(char)};" for char in text)


def _inputs(record: LineageRecord) -> dict[str, str]:
    return {
        item.role: f"{item.repo_id or item.kind}{'/' + item.folder if item.folder else ''}"
        f"@{(item.revision or '')[:10]} {item.digest[:12]}"
        for item in record.inputs
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted keys; lists stay whole."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _different(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = dict.fromkeys([*a, *b])
    return {key: (a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys if a.get(key, ABSENT) != b.get(key, ABSENT)}
