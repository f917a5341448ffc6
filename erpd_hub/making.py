"""An artifact in its work directory: the stage run there, its records beside what it wrote, and the commits of it.

`lineage.json` is written last, so its existence means complete; the tag on the Hub comes after the commit, so its
existence means pushed.
"""

from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub import config as c
from erpd_hub.artifacts import LINEAGE, LineageRecord, fingerprint_tag, read_lineage, step_tag, write_json
from erpd_hub.errors import ErpdError
from erpd_hub.fields import roles
from erpd_hub.hub.client import Hub
from erpd_hub.inputs import ResolvedInput
from erpd_hub.launching.launch import run_stage
from erpd_hub.launching.options import Launch
from erpd_hub.launching.worker import Job, StageRun
from erpd_hub.lineage_views import card_above
from erpd_hub.nodes import Node
from erpd_hub.plotting.cards import write_card
from erpd_hub.recording import Attempts, make_record
from erpd_hub.stage_context import StageContext


class Pushed(NamedTuple):
    """What a push has put on the Hub."""

    record: LineageRecord
    revision: str
    steps: dict[int, tuple[str, LineageRecord]]
    """Pushed saved steps: commit and record."""


def is_made(node: Node, work: Path) -> bool:
    """Whether the work directory holds the finished artifact."""
    return (_payload(work / "out", node) / LINEAGE).exists()


def make(
    node: Node, inputs: list[ResolvedInput], value: str, work: Path, *, launch: Launch, threads: int | None
) -> None:
    """Run the stage and write its records, unless the work directory already holds the finished output.

    Args:
        value: The fingerprint.

    Raises:
        ErpdError: see `run_stage`; the message names the step.
    """
    if is_made(node, work):
        return
    out = work / "out"
    context = StageContext(node.seed, work / "scratch", run=node.run, label=f"{node.name}-{value[:8]}")
    context.work.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    job = Job(node.name, node.config, out, _stage_inputs(node, inputs), context, threads)
    attempts = Attempts(work / "attempts.jsonl", launch.gpus or 1)
    with attempts.timed():
        run = _run(job, launch, work / "launch")
        attempts.note(run)
    for step in (*node.pushed_steps[:-1], None):
        folder = _payload(out, node) if step is None else out / f"step-{step}"
        attempts.append_to(folder)
        record = make_record(node, inputs, value, run, folder, step, name=node.run)
        write_json(folder / LINEAGE, record.to_json())


def push(hub: Hub, node: Node, out: Path, *, command: str) -> Pushed:
    """One commit per pushed step, the last with the finished tag."""
    steps: dict[int, tuple[str, LineageRecord]] = {}
    for step in node.pushed_steps or (None,):
        is_last = step is None or step == node.pushed_steps[-1]
        folder = _payload(out, node) if is_last else out / f"step-{step}"
        record = read_lineage(folder / LINEAGE)
        if not node.folder:
            write_card(folder, record, command=command, above=card_above(hub, [record]))
        tags = [f"step-{step}", step_tag(record.fingerprint, step)] if step is not None else []
        tags += [fingerprint_tag(record.fingerprint)] if is_last else []
        sha = hub.push(folder, record, tags=tags, message=_message(record))
        if step is not None:
            steps[step] = (sha, record)
    return Pushed(record, sha, steps)


def _payload(out: Path, node: Node) -> Path:
    """The folder inside `out` that is the artifact: its last saved step, or all of it."""
    return out / f"step-{node.config.steps}" if isinstance(node.config, c.TrainingConfig) else out


def _run(job: Job, launch: Launch, folder: Path) -> StageRun:
    """The stage, whose errors name the step: several steps of a run are of one stage.

    Raises:
        ErpdError: see `run_stage`.
    """
    try:
        return run_stage(job, launch, folder)
    except ErpdError as error:
        if not str(error).startswith(job.name):
            error.args = (f"{job.name}: {error}",)
        raise


def _stage_inputs(node: Node, inputs: list[ResolvedInput]) -> dict[str, Any]:
    """Input folders by the names of the stage's keyword parameters; lists as tuples, benchmarks by name.

    The inputs of a list may be numbered (`candidates:0`) where their order is part of the fingerprint.
    """
    found: dict[str, Any] = {}
    many = {name for name in roles(node.config) if isinstance(getattr(node.config, name), tuple)}
    for item in inputs:
        role, path = item.record.role, item.fetch()
        if role.startswith("benchmark:"):
            found.setdefault("benchmarks", {})[role.removeprefix("benchmark:")] = path
        elif (name := role.partition(":")[0]) in many:
            found[name] = (*found.get(name, ()), path)
        else:
            found[role] = path
    return found


def _message(record: LineageRecord) -> str:
    at = f" at step {record.saved_step}" if record.saved_step else ""
    return f"{record.stage} {record.step}{at} ({record.fingerprint[:16]})"
