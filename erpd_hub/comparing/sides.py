"""What `compare` is given: references to evaluations, read into sides.

    RUN:CHECKPOINT                                   a checkpoint of a run of this machine, on all its benchmarks
    CHECKPOINT                                       the same, with --run RUN
    namespace/run-details/CHECKPOINT[@revision]      every benchmark of a folder of a details repository
    namespace/run-details/CHECKPOINT/BENCHMARK[@revision]     one evaluation, as a summary's `details` names it
    ./folder                                         a details folder, or one that holds several

Of an evaluation, its extension and its judged copy the last one counts; name the folder to have another.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from erpd_hub.artifacts import LINEAGE, InputRecord, LineageRecord, check_payload, read_lineage
from erpd_hub.errors import ArtifactError, ConfigError, ErpdError
from erpd_hub.evaluation.comparability import Evaluation, Side
from erpd_hub.hub.client import Hub
from erpd_hub.hub.finding import find_artifact
from erpd_hub.inputs import ENDPOINT
from erpd_hub.lineage import Place, locate
from erpd_hub.recipe_files import suggestion
from erpd_hub.results.origin import checkpoint_of, decision_on, evaluation_of
from erpd_hub.run_files import read_summary
from erpd_hub.samples import read_light

_ASKED = ("send_problem", "temperature", "options", "max_tokens")
"""Of a judge: what its verdicts may depend on, besides model and prompt."""


class Found(NamedTuple):
    place: str
    """For people."""
    folder: Path
    record: LineageRecord
    declared: bool = False
    """The run's summary says that the run decided on the benchmark, and the checkpoint is the run's own."""


def read_sides(hub: Hub, texts: Sequence[str], *, run: str | None = None) -> list[Side]:
    """The sides that the command line names, in its order.

    Raises:
        ConfigError: fewer than two, or a name twice. ArtifactError: nothing there, or no evaluation.
    """
    if len(texts) < 2:
        raise ConfigError(f"compare: expected at least two checkpoints, got {len(texts)}; erpd-hub compare A B")
    if len(set(texts)) < len(texts):
        raise ConfigError("compare: expected different checkpoints, got one twice")
    return [Side(text, _evaluations(hub, text, list(_find(hub, text, run)))) for text in texts]


def _find(hub: Hub, text: str, run: str | None) -> Iterator[Found]:
    if text.startswith(("./", "../", "/", "~")):
        yield from _local(Path(text).expanduser())
    elif text.count("/") >= 2:
        yield from _on_hub(hub, text)
    elif ":" in text and not text.startswith("endpoint:"):
        name, _, checkpoint = text.partition(":")
        yield from _of_run(hub, name, checkpoint)
    elif run is not None:
        yield from _of_run(hub, run, text)
    else:
        raise ConfigError(
            f"{text!r}: expected RUN:CHECKPOINT, namespace/run-details/CHECKPOINT[/BENCHMARK][@revision] or ./folder; "
            "for a bare checkpoint give --run RUN"
        )


def _local(folder: Path) -> Iterator[Found]:
    records = sorted(folder.rglob(LINEAGE)) if folder.is_dir() else []
    if not records:
        raise ArtifactError(f"{folder.name}: expected a folder with {LINEAGE}, got none; name a details folder")
    for path in records:
        record = read_lineage(path)
        if record.kind == "details":
            if problems := check_payload(path.parent, record):
                raise ArtifactError(f"{path.parent.name}: altered: {'; '.join(problems[:3])}")
            place = f"{folder.name}/{path.parent.relative_to(folder).as_posix()}".removesuffix("/.")
            yield Found(place, path.parent, record)


def _on_hub(hub: Hub, text: str) -> Iterator[Found]:
    repo_id, path = "/".join(text.split("/")[:2]), "/".join(text.split("/")[2:])
    folders, revision = _folders(hub, repo_id, None), ""
    chosen = _within(folders, path)
    if not chosen and "@" in path:  # of a folder's name or before a revision, as in details/teacher@step-8
        path, _, revision = path.rpartition("@")
        chosen = _within(_folders(hub, repo_id, revision), path)
    if not chosen:
        held = sorted({folder.rpartition("/")[0] for folder in folders})
        raise ArtifactError(f"{text}: no evaluation there; {repo_id} holds {', '.join(held[:6]) or 'none'}")
    for folder in chosen:
        yield _pulled(hub, locate(hub, f"{repo_id}/{folder}" + (f"@{revision}" if revision else "")))


def _folders(hub: Hub, repo_id: str, revision: str | None) -> list[str]:
    """Folders of a repository that hold an artifact."""
    repo_type, sha = find_artifact(hub, repo_id, revision, ("dataset",))
    names = hub.tree(repo_type, repo_id, sha)
    return [name.removesuffix(f"/{LINEAGE}") for name in names if name.endswith(f"/{LINEAGE}")]


def _within(folders: Sequence[str], path: str) -> list[str]:
    return [path] if path in folders else [folder for folder in folders if folder.startswith(f"{path}/")]


def _of_run(hub: Hub, run: str, checkpoint: str) -> Iterator[Found]:
    rows = read_summary(run)["checkpoints"]
    mine = [row for row in rows if row["ref"] == checkpoint]
    if not mine:
        names = list(dict.fromkeys(row["ref"] for row in rows))
        raise ArtifactError(f"{run}:{checkpoint}: expected one of {', '.join(names)}{suggestion(checkpoint, names)}")
    for row in mine:
        declared = bool(row.get("selection")) and row.get("role") != "base"
        yield _pulled(hub, locate(hub, row["details"]))._replace(declared=declared)


def _pulled(hub: Hub, place: Place) -> Found:
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    assert record is not None, "it was located by its record"
    return Found(str(place), hub.pull_artifact(record, place.repo_id, place.revision, place.folder), record)


# ------------------------------------------------------------------------------------------ evaluations


def _evaluations(hub: Hub, text: str, found: Sequence[Found]) -> dict[str, Evaluation]:
    """By benchmark; an evaluation that another one here was made from gives way to it."""
    details = [item for item in found if item.record.kind == "details"]
    used = {edge.digest for item in details for edge in item.record.inputs}
    evaluations: dict[str, Evaluation] = {}
    for item in details:
        if item.record.digest in used and len(details) > 1:
            continue
        name = _benchmark(item)
        if name in evaluations:
            raise ConfigError(f"{text}: expected one evaluation on {name}, got {evaluations[name].place} and "
                              f"{item.place}; name one of the folders")  # fmt: skip
        evaluations[name] = _evaluation(hub, item)
    if not evaluations:
        kinds = ", ".join(item.record.kind for item in found)
        raise ArtifactError(f"{text}: expected evaluations, got {kinds or 'nothing'}")
    return evaluations


def _benchmark(item: Found) -> str:
    """Raises ArtifactError: samples that another harness made and that were not graded here."""
    metrics = item.record.metrics
    if metrics.get("graded") is False or "benchmark" not in metrics:
        raise ArtifactError(
            f"{item.place}: expected an evaluation, got imported samples without verdicts of ours; `erpd-hub regrade` "
            "prints their score"
        )
    return str(metrics["benchmark"])


def _evaluation(hub: Hub, item: Found) -> Evaluation:
    record, benchmark = item.record, _benchmark(item)
    checkpoint = checkpoint_of(evaluation_of(hub, record))
    selected = _selected(hub, checkpoint, benchmark) if checkpoint else None
    judge = record.config.get("judge") if record.stage == "judge" else None
    return Evaluation(
        place=item.place,
        metrics=record.metrics,
        checkpoint=checkpoint.digest if checkpoint and checkpoint.kind != ENDPOINT else f"of {record.digest}",
        rows=tuple(read_light(item.folder)),
        selected=selected or ("is of a run that decided on this benchmark" if item.declared else None),
        asked={key: judge[key] for key in _ASKED if key in judge} if isinstance(judge, dict) else {},
    )


def _selected(hub: Hub, checkpoint: InputRecord, benchmark: str) -> str | None:
    """Whether a gate or a selection decided on the benchmark on the way to a checkpoint, in words."""
    try:
        record = decision_on(hub, checkpoint, benchmark)
    except ErpdError:  # details that were copied without what they come from
        return "has a lineage that is not on this endpoint, so a selection on it is not ruled out"
    if record is None:
        return None
    what = "selected" if record.stage == "select" else "made after a gate that decided"
    return f"was {what} on this benchmark ({record.repo_id})"
