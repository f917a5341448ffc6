"""Where a checkpoint comes from: the graph of its ancestors, each node linking to its repository at its commit."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import gradio as gr
from markupsafe import Markup

from data import UNREADABLE, Source
from leaderboard import name_of
from markup import notice
from places import Place, Query, Row, checkpoint_place, inputs_of

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 46, 20, 40, 10
PASS_WIDTH = 10
"""Of an edge on its way past a row, between the boxes."""
CENTRED = 1700
"""Drawings up to this width have their rows in the middle; wider ones are scrolled, and start where one looks first."""
TIP = Markup(
    '<defs><marker id="erpd-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" class="tip"/></marker></defs>'
)
MOST_NODES = 400
CHECKED = (
    "A tick means that the record's digest follows from its files' hashes, that these files are at this commit with "
    "the recorded sizes and, where the Hub knows them, hashes, and that the inputs' digests are those of the inputs' "
    "own records. `erpd-hub lineage verify` downloads and hashes every byte."
)

WHOLE = "{}: all evaluated checkpoints"

Graph = Mapping[Place, Row | None]


class Pass(NamedTuple):
    """Where the edges from an artifact go past a row, all together."""

    place: Place
    row: int


Rows = list[list[Place | Pass]]


def digest_of(record: Row) -> str:
    """sha256 over the sorted (path, sha256) of the payload, as the artifact's own record must say."""
    files = record.get("files") or {}
    lines = "".join(f"{name}\0{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def problems_of(source: Source, place: Place, graph: Graph) -> list[str]:
    """What does not agree about one artifact; nothing where all that is checked does."""
    record = graph[place]
    if record is None:
        return []
    found = [] if digest_of(record) == record.get("digest") else ["its digest does not follow from its files"]
    for item, (role, above) in zip(record.get("inputs", ()), inputs_of(record), strict=True):
        other = graph.get(above) if above else None
        if other is not None and other.get("digest") != item.get("digest"):
            found.append(f"its {role} has another digest now")
    return found + _differences(source, place, record)


def layers(graph: Graph) -> Rows:
    """The artifacts in rows, every one below all its inputs, with a place in each row that an edge passes, ordered so
    that edges cross little."""
    depth: dict[Place, int] = {}

    def depth_of(place: Place, above: frozenset[Place]) -> int:
        if place not in depth:
            inputs = [other for _, other in inputs_of(graph.get(place)) if other in graph and other not in above]
            depth[place] = 1 + max((depth_of(other, above | {place}) for other in inputs), default=-1)
        return depth[place]

    rows: Rows = []
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


class Tab:
    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source = source
        self.checkpoint = gr.Dropdown([], label="a run, or a checkpoint")
        self.graph = gr.HTML(apply_default_css=False)
        self.checkpoint.change(self.show, [scores, self.checkpoint], self.graph, api_visibility="private")
        self.outputs = [self.checkpoint]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        there = [row for row in rows if checkpoint_place(row)]
        runs = list(dict.fromkeys(WHOLE.format(row.get("run")) for row in there))
        names = list(dict.fromkeys(name_of(row) for row in there))
        return [gr.update(choices=[*runs, *names], value=runs[0] if runs else None)]

    def show(self, rows: list[Row], name: str | None) -> str:
        named = [checkpoint_place(row) for row in rows if name in (name_of(row), WHOLE.format(row.get("run")))]
        places = [place for place in named if place is not None]
        if not places:
            return notice(["no checkpoint to show"])
        graph = self.source.closure(places, MOST_NODES)
        if len(graph) > MOST_NODES:
            sentence = f"more than {MOST_NODES} artifacts: too many to draw; `erpd-hub lineage` lists a checkpoint's"
            return notice([sentence])
        with ThreadPoolExecutor(8) as pool:
            problems = dict(
                zip(graph, pool.map(lambda each: problems_of(self.source, each, graph), graph), strict=True)
            )
        wrong = [f"{each}: {sentence}" for each, sentences in problems.items() for sentence in sentences]
        return notice(wrong) + drawing(self.source, graph, problems) + Markup("<p class='small'>{}</p>").format(CHECKED)


def _differences(source: Source, place: Place, record: Row) -> list[str]:
    """Files at this commit that are not as recorded, by size and, for large files, by hash."""
    try:
        tree = source.api.list_repo_tree(place.repo_id, place.folder or None, repo_type=place.repo_type,
                                         revision=place.revision, recursive=True)  # fmt: skip
        there = {item.path.removeprefix(place.path("")): item for item in tree if hasattr(item, "size")}
    except UNREADABLE:
        return ["its files cannot be listed"]
    found = []
    for name, file in (record.get("files") or {}).items():
        item = there.get(name)
        hashed = getattr(item, "lfs", None)
        if item is None:
            found.append(f"{name} is gone")
        elif item.size != file["size"] or (hashed and hashed.sha256 != file["sha256"]):
            found.append(f"{name} is another file")
    return found


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
        f"{place}@{(place.revision or 'main')[:10]}",
        WIDTH,
        HEIGHT,
        str(title)[:22],
        stage,
        WIDTH - 20,
        tick,
    )


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
