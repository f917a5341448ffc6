"""Where a checkpoint comes from: the graph of its ancestors, each node linking to its repository at its commit."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
from markupsafe import Markup

from data import UNREADABLE, Place, Query, Row, Source, checkpoint_place, inputs_of
from leaderboard import name_of
from markup import notice

WIDTH, HEIGHT, GAP_X, GAP_Y = 190, 46, 20, 34
BOW = 14
"""Pixels that an edge which passes a row bows out further to the right, so that it is seen beside the boxes."""
MOST_NODES = 400
CHECKED = (
    "A tick means that the record's digest follows from its files' hashes, that these files are at this commit with "
    "the recorded sizes and, where the Hub knows them, hashes, and that the inputs' digests are those of the inputs' "
    "own records. `erpd-hub lineage verify` downloads and hashes every byte."
)

WHOLE = "{}: all evaluated checkpoints"

Graph = Mapping[Place, Row | None]


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


def layers(graph: Graph) -> list[list[Place]]:
    """The artifacts in rows, every one below all its inputs, ordered so that edges cross little."""
    depth: dict[Place, int] = {}

    def depth_of(place: Place, above: frozenset[Place]) -> int:
        if place not in depth:
            inputs = [other for _, other in inputs_of(graph.get(place)) if other in graph and other not in above]
            depth[place] = 1 + max((depth_of(other, above | {place}) for other in inputs), default=-1)
        return depth[place]

    rows: list[list[Place]] = []
    for place in graph:
        at = depth_of(place, frozenset())
        rows.extend([] for _ in range(at + 1 - len(rows)))
        rows[at].append(place)
    column: dict[Place, float] = {}
    for row in rows:
        row.sort(key=lambda place: (_barycentre(place, graph, column), str(place)))
        column |= {place: float(number) for number, place in enumerate(row)}
    return rows


def drawing(source: Source, graph: Graph, problems: Mapping[Place, Sequence[str]]) -> Markup:
    """The graph as SVG: a box for each artifact with its step, stage and tick, an edge for each input with its role."""
    rows = layers(graph)
    at = {place: (column * (WIDTH + GAP_X) + 10, number * (HEIGHT + GAP_Y) + 10)
          for number, row in enumerate(rows) for column, place in enumerate(row)}  # fmt: skip
    edges = [
        _edge(role, at[above], at[place]) for place in graph for role, above in inputs_of(graph[place]) if above in at
    ]
    boxes = [_box(source, place, graph[place], at[place], problems.get(place, ())) for place in graph]
    bows = 1 + max(((at[place][1] - at[above][1]) // (HEIGHT + GAP_Y)
                    for place in graph for _, above in inputs_of(graph[place]) if above in at), default=0)  # fmt: skip
    width = max((len(row) for row in rows), default=0) * (WIDTH + GAP_X) + BOW * bows
    height = len(rows) * (HEIGHT + GAP_Y) + 20
    return Markup('<div class="scroll"><svg class="lineage" width="{}" height="{}" role="img">{}{}</svg></div>').format(
        width, height, Markup("").join(edges), Markup("").join(boxes)
    )


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


def _edge(role: str, begin: tuple[int, int], end: tuple[int, int]) -> Markup:
    passed = (end[1] - begin[1]) // (HEIGHT + GAP_Y) - 1
    if passed:  # from side to side, around the boxes between
        x1, y1, x2, y2 = begin[0] + WIDTH, begin[1] + HEIGHT // 2, end[0] + WIDTH, end[1] + HEIGHT // 2
        out = max(x1, x2) + 2 * BOW * (passed + 1) // 2 + BOW
        bend = (out, y1, out, y2)
    else:
        x1, y1, x2, y2 = begin[0] + WIDTH // 2, begin[1] + HEIGHT, end[0] + WIDTH // 2, end[1]
        bend = (x1, y1 + GAP_Y, x2, y2 - GAP_Y)
    return Markup('<path class="edge" d="M{} {} C{} {} {} {} {} {}"><title>{}</title></path>').format(
        x1, y1, *bend, x2, y2, role
    )


def _barycentre(place: Place, graph: Graph, row: Mapping[Place, float]) -> float:
    rows = [row[above] for _, above in inputs_of(graph.get(place)) if above in row]
    return sum(rows) / len(rows) if rows else 0.0
