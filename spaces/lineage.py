"""Where checkpoints come from: the graph of a run or of one's ancestors, each node linking to its repository at its
commit, and whether what is recorded of it agrees.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
from markupsafe import Markup

from address import absent, link_to, one
from data import Source
from drawing import drawing
from markup import notice
from places import Place, Query, Row, checkpoint_place, inputs_of
from reading import UNREADABLE
from runs import MOST_NODES, Graph, whole_run
from scores import name_of

CHECKED = (
    "A tick means that the record's digest follows from its files' hashes, that these files are at this commit with "
    "the recorded sizes and, where the Hub knows them, hashes, and that the inputs' digests are those of the inputs' "
    "own records. `erpd-hub lineage verify` downloads and hashes every byte. Evaluations and probes are not drawn."
)
WHOLE = "{}: the whole run"


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


class Tab:
    """A run, or a checkpoint and all that it comes from."""

    def __init__(self, source: Source, scores: gr.State) -> None:
        self.source = source
        self.checkpoint = gr.Dropdown([], label="a run, or a checkpoint")
        self.graph = gr.HTML(apply_default_css=False)
        self.checkpoint.input(self.show, [scores, self.checkpoint], self.graph, api_visibility="private")
        self.outputs = [self.checkpoint, self.graph]

    def load(self, rows: Sequence[Row], query: Query) -> list[object]:
        there = [row for row in rows if checkpoint_place(row)]
        runs = list(dict.fromkeys(str(row.get("run")) for row in there))
        names = list(dict.fromkeys(map(name_of, there)))
        asked = one(query, "run", runs)
        named = one(query, "checkpoint", names) or next((WHOLE.format(run) for run in (asked, *runs) if run), None)
        missing = absent(query, {"checkpoint": names, "run": runs})
        menu = gr.update(choices=[*map(WHOLE.format, runs), *names], value=named)
        return [menu, notice(missing) + self.show(rows, named)]

    def show(self, rows: Sequence[Row], name: str | None) -> str:
        run = next((str(row.get("run")) for row in rows if WHOLE.format(row.get("run")) == name), None)
        places = [place for row in rows if name_of(row) == name and (place := checkpoint_place(row)) is not None]
        if not places and run is None:
            return notice(["no checkpoint to show"])
        graph: Graph
        graph, missing = whole_run(self.source, rows, run) if run else (self.source.closure(places, MOST_NODES), [])
        if len(graph) > MOST_NODES:
            too_many = f"more than {MOST_NODES} artifacts: too many to draw; `erpd-hub lineage` lists a checkpoint's"
            return notice([*missing, too_many])
        with ThreadPoolExecutor(8) as pool:
            checked = pool.map(lambda each: problems_of(self.source, each, graph), graph)
            problems = dict(zip(graph, checked, strict=True))
        wrong = [f"{each}: {sentence}" for each, sentences in problems.items() for sentence in sentences]
        link = link_to("lineage", run=run, checkpoint=None if run else name)
        shown = drawing(self.source, graph, problems) + Markup("<p class='small'>{}</p>").format(CHECKED)
        return notice([*missing, *wrong]) + shown + link


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
