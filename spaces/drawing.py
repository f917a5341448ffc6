"""The graph of artifacts as a drawing: in rows, every one below all its inputs, with edges that go past the boxes."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from data import Source
from places import Place, Row, inputs_of
from runs import Graph

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 46, 20, 40, 10
PASS_WIDTH = 10
"""Of an edge on its way past a row, between the boxes."""
CENTRED = 1700
"""Drawings up to this width have their rows in the middle; wider ones are scrolled, and start where one looks first."""
TIP = Markup(
    '<defs><marker id="erpd-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>'
)
MOST_INPUTS = 12
"""Inputs that the title of a box names."""


class Pass(NamedTuple):
    """Where the edges from an artifact go past a row, all together."""

    place: Place
    row: int


Layers = list[list[Place | Pass]]


def layers(graph: Graph) -> Layers:
    """The artifacts in rows, every one below all its inputs, with a place in each row that an edge passes, ordered so
    that edges cross little."""
    depth: dict[Place, int] = {}

    def depth_of(place: Place, above: frozenset[Place]) -> int:
        if place not in depth:
            inputs = [other for _, other in inputs_of(graph.get(place)) if other in graph and other not in above]
            depth[place] = 1 + max((depth_of(other, above | {place}) for other in inputs), default=-1)
        return depth[place]

    rows: Layers = []
    for place in graph:
        at = depth_of(place, frozenset())
        rows.extend([] for _ in range(at + 1 - len(rows)))
        rows[at].append(place)
    links = _links(graph, depth)
    passes = dict.fromkeys(each for ways in links.values() for way, _ in ways for each in way if isinstance(each, Pass))
    for each in passes:
        rows[each.row].append(each)
    above: dict[Place | Pass, list[Place | Pass]] = {}
    for ways in links.values():
        for way, _ in ways:
            for upper, lower in pairwise(way):
                above.setdefault(lower, []).append(upper)
    column: dict[Place | Pass, float] = {}
    for row in rows:
        row.sort(key=lambda each: (_middle(above.get(each, ()), column), str(each)))
        column |= {each: (number + 0.5) / len(row) for number, each in enumerate(row)}
    return rows


def _links(graph: Graph, depth: Mapping[Place, int]) -> dict[Place, list[tuple[list[Place | Pass], str]]]:
    """For each artifact its inputs: the way down from there, row by row, and the role. A circle's last edge is none."""
    found: dict[Place, list[tuple[list[Place | Pass], str]]] = {}
    for place in graph:
        for role, other in inputs_of(graph[place]):
            if other in graph and other is not None and depth[other] < depth[place]:
                between = [Pass(other, row) for row in range(depth[other] + 1, depth[place])]
                found.setdefault(place, []).append(([other, *between, place], role))
    return found


def _middle(above: Sequence[Place | Pass], column: Mapping[Place | Pass, float]) -> float:
    return sum(column[each] for each in above) / len(above) if above else 0.5


def drawing(source: Source, graph: Graph, problems: Mapping[Place, Sequence[str]]) -> Markup:
    """The graph as SVG: a box for each artifact with its step, stage and tick, an arrow for each input with its role,
    between the boxes of the rows that it passes."""
    rows = layers(graph)
    depth = {each: number for number, row in enumerate(rows) for each in row if isinstance(each, Place)}
    width = max(map(_width, rows), default=0)
    at: dict[Place | Pass, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        x = MARGIN + ((width - _width(row)) // 2 if width <= CENTRED else 0)
        for each in row:
            at[each] = (x, MARGIN + number * (HEIGHT + GAP_Y))
            x += _width([each]) + GAP_X
    ways = [way for found in _links(graph, depth).values() for way in found]
    edges = [_edge(role, [(at[each][0] + _width([each]) // 2, at[each][1]) for each in way]) for way, role in ways]
    boxes = [_box(source, place, graph[place], at[place], problems.get(place, ())) for place in graph]
    height = len(rows) * (HEIGHT + GAP_Y) + 2 * MARGIN
    return Markup(
        '<div class="scroll"><svg class="lineage" width="{}" height="{}" role="img">{}{}{}</svg></div>'
    ).format(width + 2 * MARGIN, height, TIP, Markup("").join(edges), Markup("").join(boxes))


def _width(row: Sequence[Place | Pass]) -> int:
    return sum(WIDTH if isinstance(each, Place) else PASS_WIDTH for each in row) + GAP_X * (len(row) - 1)


def _box(source: Source, place: Place, record: Row | None, at: tuple[int, int], problems: Sequence[str]) -> Markup:
    x, y = at
    title = (record or {}).get("step") or place.repo_id.partition("/")[2]
    step = f" step {record['saved_step']}" if record and record.get("saved_step") is not None else ""
    stage = f"{record['stage']}{step}" if record else "not ours, or not readable"
    tick, kind = ("✗", "altered") if problems else ("✓", record["stage"]) if record else ("?", "foreign")
    return Markup(
        '<a href="{}" target="_blank" rel="noopener noreferrer"><g class="node {}" transform="translate({},{})">'
        '<title>{}</title><rect width="{}" height="{}" rx="6"/><text x="10" y="19">{}</text>'
        '<text x="10" y="36" class="small">{}</text><text x="{}" y="19" class="tick">{}</text></g></a>'
    ).format(
        source.link(place),
        kind,
        x,
        y,
        _about(place, record),
        WIDTH,
        HEIGHT,
        str(title)[:22],
        stage,
        WIDTH - 20,
        tick,
    )


def _about(place: Place, record: Row | None) -> str:
    """What a box is and what went into it, each with its role."""
    inputs = [f"{role}: {above or 'of this machine'}" for role, above in inputs_of(record)[:MOST_INPUTS]]
    return "\n".join([f"{place}@{(place.revision or 'main')[:10]}", *inputs])


def _edge(role: str, points: Sequence[tuple[int, int]]) -> Markup:
    """From the bottom of the first box to the top of the last, straight past the rows between."""
    x, y = points[0][0], points[0][1] + HEIGHT
    parts = [f"M{x} {y}"]
    for to_x, top in points[1:]:
        middle = (y + top) // 2
        parts.append(f"C{x} {middle} {to_x} {middle} {to_x} {top}")
        if (to_x, top) != points[-1]:
            parts.append(f"V{top + HEIGHT}")
        x, y = to_x, top + HEIGHT
    return Markup('<path class="edge" marker-end="url(#erpd-tip)" d="{}"><title>{}</title></path>').format(
        " ".join(parts), role
    )
