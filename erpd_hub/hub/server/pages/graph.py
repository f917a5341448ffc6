"""A lineage as a drawing: who came from whom, roots at the top, laid out in rows.

An edge that passes a row gets a place of its own there, so that it goes between the boxes and not behind them; rows are
then ordered by where their neighbours are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BOX_WIDTH, BOX_HEIGHT = 244, 58
GAP_X, GAP_Y, MARGIN = 22, 52, 12
PASS_WIDTH = 10
"""Of an edge on its way past a row."""
SWEEPS = 6
CENTRED = 1700
"""Drawings up to this width have their rows in the middle; wider ones are scrolled, and start where one looks first."""


@dataclass
class Node:
    """One box."""

    title: str
    name: str
    note: str = ""
    href: str | None = None
    look: str = "artifact"
    """CSS class: artifact, outside, hidden; `here` is added to what the page is about."""
    inputs: list[tuple[str, str]] = field(default_factory=list)
    """Role and key of what it was made from."""
    here: bool = False


class Box(NamedTuple):
    node: Node
    x: float
    y: float


class Drawing(NamedTuple):
    width: int
    height: int
    boxes: list[Box]
    edges: list[tuple[str, str]]
    """SVG path and what it says."""

    @property
    def centred(self) -> bool:
        return self.width <= CENTRED + 2 * MARGIN


def draw(nodes: Mapping[str, Node]) -> Drawing:
    """Lay out nodes by key; every input names one of them."""
    rows, links = _rows(nodes)
    _order(rows, links)
    width = max((_width(row, nodes) for row in rows), default=0)
    at: dict[str, tuple[float, float]] = {}
    for index, row in enumerate(rows):
        x = MARGIN + ((width - _width(row, nodes)) / 2 if width <= CENTRED else 0)
        for key in row:
            size = _size(key, nodes)
            at[key] = (x + size / 2, MARGIN + index * (BOX_HEIGHT + GAP_Y))
            x += size + GAP_X
    boxes = [Box(node, at[key][0] - BOX_WIDTH / 2, at[key][1]) for key, node in nodes.items()]
    edges = [(_path([at[key] for key in chain]), role) for chain, role in _chains(nodes, links)]
    height = len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN if rows else 0
    return Drawing(int(width) + 2 * MARGIN, height, boxes, edges)


def _levels(nodes: Mapping[str, Node]) -> dict[str, int]:
    """Length of the longest way from a root; a record that names itself, which none of ours does, is cut."""
    levels: dict[str, int] = {}
    for key in nodes:
        pending = [key]
        while pending:
            here = pending[-1]
            above = [name for _, name in nodes[here].inputs]
            missing = [name for name in above if name not in levels and name not in pending]
            if missing:
                pending.append(missing[0])
                continue
            levels[here] = 1 + max((levels.get(name, -1) for name in above), default=-1)
            pending.pop()
    return levels


def _rows(nodes: Mapping[str, Node]) -> tuple[list[list[str]], dict[str, set[str]]]:
    """Keys row by row, with those that edges pass through, and which are neighbours of which in the row above."""
    levels = _levels(nodes)
    rows: list[list[str]] = [[] for _ in range(1 + max(levels.values(), default=-1))]
    for key in nodes:
        rows[levels[key]].append(key)
    links: dict[str, set[str]] = {}
    for key, node in nodes.items():
        for _, above in node.inputs:
            below = key
            for level in range(levels[key] - 1, levels[above], -1):
                through = _pass(above, level)  # shared by all edges from there
                if through not in rows[level]:
                    rows[level].append(through)
                links.setdefault(below, set()).add(through)
                below = through
            if levels[above] < levels[key]:
                links.setdefault(below, set()).add(above)
    return rows, links


def _pass(key: str, level: int) -> str:
    return f"{level}|{key}"


def _order(rows: list[list[str]], links: Mapping[str, set[str]]) -> None:
    """Sort each row by the middle of its neighbours, downwards and upwards in turn."""
    below: dict[str, set[str]] = {}
    for key, above in links.items():
        for name in above:
            below.setdefault(name, set()).add(key)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        neighbours = links if down else below
        for index in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            beside = rows[index - 1 if down else index + 1]
            place = {key: (position + 0.5) / len(beside) for position, key in enumerate(beside)}
            row = rows[index]
            own = {key: (position + 0.5) / len(row) for position, key in enumerate(row)}
            rows[index] = sorted(row, key=lambda key: _middle(neighbours.get(key, ()), place, own[key]))


def _middle(neighbours: Iterable[str], place: Mapping[str, float], otherwise: float) -> float:
    found = [place[key] for key in neighbours if key in place]
    return sum(found) / len(found) if found else otherwise


def _size(key: str, nodes: Mapping[str, Node]) -> int:
    return BOX_WIDTH if key in nodes else PASS_WIDTH


def _width(row: list[str], nodes: Mapping[str, Node]) -> int:
    return sum(_size(key, nodes) for key in row) + GAP_X * (len(row) - 1)


def _chains(nodes: Mapping[str, Node], links: Mapping[str, set[str]]) -> Iterable[tuple[list[str], str]]:
    """Each edge as the keys it passes, from what was used down to what was made of it."""
    levels = _levels(nodes)
    for key, node in nodes.items():
        for role, above in node.inputs:
            if levels[above] < levels[key]:
                between = [_pass(above, level) for level in range(levels[above] + 1, levels[key])]
                yield [above, *between, key], role


def _path(points: list[tuple[float, float]]) -> str:
    """From the bottom of the first box to the top of the last, straight past the rows between."""
    x, y = points[0]
    parts = [f"M{x:.0f} {y + BOX_HEIGHT:.0f}"]
    y += BOX_HEIGHT
    for index, (to_x, top) in enumerate(points[1:], start=1):
        middle = (y + top) / 2
        parts.append(f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {top:.0f}")
        x, y = to_x, top
        if index < len(points) - 1:
            y = top + BOX_HEIGHT
            parts.append(f"V{y:.0f}")
    return " ".join(parts)
