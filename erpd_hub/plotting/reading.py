"""What a finished run has to draw: its summary on this machine, and records and curves of its artifacts on the Hub."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from erpd_hub.artifacts import LineageRecord
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.hub.client import Hub
from erpd_hub.run_files import read_summary

Row = Mapping[str, Any]
"""A checkpoint on a benchmark, as a summary has it."""

CURVES = "dynamics.jsonl"
TRAININGS = ("teacher", "distill", "online", "critic")
_DRAWN = (*TRAININGS, "base", "unlearned", "select", "signal", "score")
"""Stages whose records figures look at; the others' are in the rows already."""


class Made(NamedTuple):
    """One artifact of the run."""

    name: str
    """`ce`, or `r2/ce` where the run has several rounds."""
    place: str
    """`namespace/name@revision`."""
    record: LineageRecord
    curve: tuple[Mapping[str, float], ...] = ()
    """Of a training, what each optimizer step saw before its own update."""

    @property
    def stage(self) -> str:
        return self.record.stage

    @property
    def loss(self) -> str | None:
        """Of a teacher."""
        return str(self.record.config["loss"]["type"]) if self.stage == "teacher" else None


class RunData(NamedTuple):
    """A run on one benchmark."""

    name: str
    seed: int
    benchmark: str | None
    """None where nothing was evaluated."""
    others: tuple[str, ...]
    """Benchmarks that are not drawn."""
    rows: tuple[Row, ...]
    """Its checkpoints that have a score."""
    made: tuple[Made, ...]

    def of_stage(self, *stages: str) -> list[Made]:
        return [item for item in self.made if item.stage in stages]

    def rows_of(self, item: Made) -> list[Row]:
        """The scores along a training, in order of step."""
        found = (row for row in self.rows if row["repo"] == item.record.repo_id)
        return sorted(found, key=lambda row: row["step"] or 0)

    @property
    def base(self) -> Row | None:
        return next((row for row in self.rows if row["role"] == "base"), None)

    def inputs(self, item: Made, role: str) -> list[Made]:
        """The artifacts of this run that another was made from."""
        digests = {edge.digest for edge in item.record.inputs if edge.role == role}
        return [other for other in self.made if other.record.digest in digests]


def read_run(hub: Hub, run: str, *, benchmark: str | None = None) -> RunData:
    """The last run of a name on this machine.

    Args:
        benchmark: That scores are drawn of; default the one with most checkpoints, rather one that nothing was selected
            on.

    Raises:
        ArtifactError: no such run, or its artifacts are not on this endpoint.
        ConfigError: it was not evaluated on the benchmark.
    """
    summary = read_summary(run)
    chosen, others = _benchmark(run, summary["checkpoints"], benchmark)
    rows = (row for row in summary["checkpoints"] if row["benchmark"] == chosen and row["avg"] is not None)
    rounds = {item["step"].partition("/")[0] for item in summary["artifacts"]}
    made = [_made(hub, item, several=len(rounds) > 1) for item in summary["artifacts"] if item["stage"] in _DRAWN]
    return RunData(run, summary["seed"], chosen, others, tuple(rows), tuple(made))


def teachers_of(run: RunData, repo: str, rows: Sequence[Row]) -> list[Row]:
    """Those of the checkpoints that are the numerator of what the student in a repository was distilled from: found by
    digest, through the signal, its log-probs and, of a selected checkpoint, its winner."""
    signals = [s for item in run.of_stage("distill") if item.record.repo_id == repo for s in run.inputs(item, "signal")]
    scored = [item for signal in signals for item in run.inputs(signal, "numerator")]
    digests = {edge.digest for item in scored for edge in item.record.inputs if edge.role == "checkpoint"}
    for chosen in (item for item in run.of_stage("select") if item.record.digest in digests):
        winner = f"candidates:{chosen.record.metrics['winner']}"
        digests |= {edge.digest for edge in chosen.record.inputs if edge.role == winner}
    return [row for row in rows if row["digest"] in digests]


def interval(row: Row) -> tuple[float, float] | None:
    """The 95 % interval of a score; from the standard error where the record has no other, None without one."""
    if row.get("interval"):
        low, high = row["interval"]
        return low, high
    return None if row.get("stderr") is None else (row["avg"] - 1.96 * row["stderr"], row["avg"] + 1.96 * row["stderr"])


def place_of(row: Row) -> str:
    """`namespace/name@revision` of a row's checkpoint; an endpoint has no revision."""
    return f"{row['repo']}@{row['revision'][:10]}" if row["revision"] else f"{row['repo']} (nothing pins it)"


def _benchmark(run: str, rows: Sequence[Row], wanted: str | None) -> tuple[str | None, tuple[str, ...]]:
    scored = [row for row in rows if row["avg"] is not None]
    names = list(dict.fromkeys(row["benchmark"] for row in scored))
    if wanted is not None and wanted not in names:
        raise ConfigError(f"--benchmark: expected one that {run} was evaluated on ({', '.join(names) or 'none'}), got "
                          f"{wanted!r}")  # fmt: skip
    selected = {row["benchmark"] for row in scored if row.get("selection")}
    checkpoints = {name: sum(row["benchmark"] == name for row in scored) for name in names}
    best = sorted(names, key=lambda name: (name in selected, -checkpoints[name]))
    chosen = wanted or (best[0] if best else None)
    return chosen, tuple(name for name in names if name != chosen)


def _made(hub: Hub, item: Mapping[str, Any], *, several: bool) -> Made:
    address = item["repo_type"], item["repo"], item["revision"]
    record = hub.lineage(*address, item["folder"])
    if record is None:
        raise ArtifactError(f"{item['step']}: not on {hub.identity}; give the run's --endpoint")
    path = hub.file(*address, CURVES) if item["stage"] in TRAININGS else None
    curve = tuple(json.loads(line) for line in path.read_text().splitlines()) if path else ()
    name = item["step"] if several else item["step"].partition("/")[2]
    return Made(name, f"{item['repo']}@{item['revision'][:10]}", record, curve)
