"""What runs have made: checkpoints of the leaderboard, repositories that the Hub lists, and what they come from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data import Published, Source
from places import Place, Row, checkpoint_place
from reading import UNREADABLE, reason

CURVES = "dynamics.jsonl"
TRAININGS = ("teacher", "critic", "distill", "online")
MOST_LISTED = 300
"""Repositories that the Hub is asked for, of models and of datasets each, the last changed first."""
MOST_ANCESTORS = 100
"""Artifacts whose records are read in search of trainings that are not among those."""
MOST_NODES = 400

Graph = Mapping[Place, Row | None]


@dataclass(frozen=True)
class Trainings:
    """`run: step` to the artifact that holds the curves, and what was left out."""

    places: dict[str, Place] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Training:
    run: str
    stage: str
    place: Place
    step: int = 0

    @property
    def parts(self) -> tuple[int, str]:
        """Round and name, as repositories are called."""
        name = self.place.repo_id.partition("/")[2]
        found = re.fullmatch(r"r(\d{1,4})-(.+)", name.removeprefix(f"{self.run}-"))
        return (int(found[1]), found[2]) if found else (1, name)


def trainings(source: Source, rows: Sequence[Row]) -> Trainings:
    """Every training of the shown runs, and of those that they come from, that has curves; evaluated or not."""
    listed, missing = listed_of(source, "model", source.run)
    runs = {str(row.get("run")) for row in rows}
    found = {
        each.place.repo_id: _Training(each.run, each.stage, each.place)
        for each in listed
        if each.stage in TRAININGS and CURVES in each.files and each.run in runs
    }
    graph = source.closure([place for row in rows if (place := checkpoint_place(row))], MOST_ANCESTORS)
    if len(graph) > MOST_ANCESTORS:
        missing.append(f"only {MOST_ANCESTORS} of their ancestors were looked at for trainings from elsewhere")
    elsewhere: dict[str, _Training] = {}
    for place, record in graph.items():
        if record and record["stage"] in TRAININGS and CURVES in record.get("files", ()) and place.repo_id not in found:
            step = record["saved_step"] if isinstance(record.get("saved_step"), int) else 0
            known = elsewhere.get(place.repo_id)
            if known is None or step >= known.step:
                elsewhere[place.repo_id] = _Training(str(record.get("run")), record["stage"], place, step)
    return Trainings(_named([*found.values(), *elsewhere.values()]), missing)


def _named(found: Sequence[_Training]) -> dict[str, Place]:
    """`run: name`, or `run: r2/name` where a run has several rounds, in order."""
    several = {each.run for each in found if each.parts[0] > 1}
    ordered = sorted(found, key=lambda each: (each.run, each.parts[0], TRAININGS.index(each.stage), each.parts[1]))
    named: dict[str, Place] = {}
    for each in ordered:
        number, name = each.parts
        text = f"{each.run}: {f'r{number}/{name}' if each.run in several else name}"
        named[text if text not in named else f"{each.run}: {each.place.repo_id}"] = each.place
    return named


def whole_run(source: Source, rows: Sequence[Row], run: str) -> tuple[dict[Place, Row | None], list[str]]:
    """All that a run has made but evaluations and probes, and all that it comes from, each once: with their records,
    and what was left out. More than MOST_NODES where it is too much."""
    evaluated = [place for row in rows if row.get("run") == run and (place := checkpoint_place(row))]
    models, missing = listed_of(source, "model", run)
    datasets, more = listed_of(source, "dataset", run)
    heads = [each.place for each in (*models, *datasets)]
    graph = source.closure([*evaluated, *heads], MOST_NODES)
    if len(graph) > MOST_NODES:
        return graph, missing + more
    pinned = {_identity(place, record) for place, record in graph.items() if place not in heads}
    double = {place for place in heads if not graph[place] or _identity(place, graph[place]) in pinned}
    return {place: record for place, record in graph.items() if place not in double}, missing + more


def _identity(place: Place, record: Row | None) -> tuple[str, str, str]:
    """A later commit of main has the same artifact with another card."""
    return place.repo_id, place.folder, str((record or {}).get("digest"))


def listed_of(source: Source, kind: str, run: str | None) -> tuple[list[Published], list[str]]:
    """What the Hub lists of a run, or of all, and why that is not all."""
    whose = f"the run {run}" if run else source.namespace
    try:
        found = source.published(kind, MOST_LISTED + 1, run=run)
    except UNREADABLE as error:
        return [], [f"the {kind}s of {whose} cannot be listed: {reason(error)}"]
    if len(found) > MOST_LISTED:
        return found[:MOST_LISTED], [f"only the {MOST_LISTED} {kind}s of {whose} that changed last were looked at"]
    return found, []
