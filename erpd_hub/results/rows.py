"""One leaderboard row from one details artifact: the one way in which rows are made, and made again to verify them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.artifacts import LineageRecord
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.benchmarks import definition_hash
from erpd_hub.evaluation.caveats import told_caveats
from erpd_hub.evaluation.leaderboard import harness_text, leaderboard_row
from erpd_hub.hub.client import Hub
from erpd_hub.references import named_with_round
from erpd_hub.results.origin import Origin, evaluation_of, origin_of
from erpd_hub.samples import read_light

Row = dict[str, Any]
PROBE = "probe.json"


class Probe(NamedTuple):
    """Where a checkpoint's KL and entropy were measured, and what was found."""

    repo: str
    folder: str
    revision: str
    metrics: Mapping[str, Any]


def row_of(
    hub: Hub, record: LineageRecord, revision: str, folder: Path, *, selection: bool, probe: Probe | None = None
) -> Row:
    """The row of a details artifact.

    Args:
        record: Of the details, as pushed at `revision`.
        folder: Its files.
        selection: Whether something was decided on the benchmark, by what the run knows.

    Raises:
        ArtifactError: the record names no checkpoint.
    """
    origin = origin_of(hub, record)
    if origin is None:
        raise ArtifactError(f"{record.repo_id}/{record.folder}: expected the checkpoint that was evaluated, got none")
    told = {
        **_who(hub, record, origin),
        **_settings(record, evaluation_of(hub, record)),
        "selection": selection,
        "details_repo": record.repo_id,
        "details_folder": record.folder,
        "details_revision": revision,
        "details_digest": record.digest,
        "fingerprint": record.fingerprint,
        "probe_repo": probe.repo if probe else None,
        "probe_folder": probe.folder if probe else None,
        "probe_revision": probe.revision if probe else None,
    }
    return leaderboard_row(told, light_samples(folder), probe.metrics if probe else {})


def light_samples(folder: Path) -> Iterator[dict[str, Any]]:
    """What of the samples the figures need; their tokens are counted, and not held."""
    for row in read_light(folder):
        yield {**row, "gold": None, "response_ids": None, "num_tokens": row["length"]}


def reference_of(evaluation: LineageRecord) -> str:
    """The checkpoint as tables name it; a details folder has its round where the run has several."""
    several = f"--r{evaluation.round}--" in f"--{evaluation.folder}"
    return named_with_round(str(evaluation.config["checkpoints"][0]), evaluation.round, several=several)


def canaries_problem(metrics: Mapping[str, Any]) -> str | None:
    """Why the judged score of details cannot be trusted; None where nothing speaks against it, or nobody judged."""
    judge = metrics.get("judge") or {}
    if judge.get("canaries_problem") or judge.get("canaries_alarm"):
        return judge.get("canaries_problem") or "its canaries raised an alarm"
    # A run may allow its judge some of them (max_canary_acceptance). Who reads a board has allowed nothing.
    if accepted := judge.get("canary_acceptance"):
        return f"took {100 * accepted:.1f} % of injected wrong answers for right, which its run allowed"
    return None


def _who(hub: Hub, record: LineageRecord, origin: Origin) -> dict[str, Any]:
    """Run, checkpoint, and where that comes from."""
    evaluation = evaluation_of(hub, record)
    text = evaluation.config["checkpoints"][0]
    return {
        "run": record.run,
        "role": origin.role,
        "checkpoint": reference_of(evaluation),
        "checkpoint_repo": str(origin.item.repo_id) if origin.pinned else text,
        "checkpoint_revision": str(origin.item.revision) if origin.pinned else "",
        "checkpoint_digest": origin.item.digest,
        "step": origin.record.saved_step if origin.record else None,
        "pinned": origin.pinned,
        "base_repo": origin.base.repo if origin.base else None,
        "base_revision": origin.base.revision if origin.base else None,
        "teacher_repo": origin.teacher.repo if origin.teacher else None,
        "teacher_revision": origin.teacher.revision if origin.teacher else None,
        "loss": origin.loss,
        "strategy": origin.strategy,
    }


def _settings(record: LineageRecord, evaluation: LineageRecord) -> dict[str, Any]:
    """How it was measured: as the fingerprint covers it where it does, otherwise as the record says."""
    metrics, identity = record.metrics, evaluation.identity
    entry = (identity.get("benchmark_entries") or {}).get(metrics["benchmark"]) or {}
    decoding = identity.get("decoding") or entry.get("decoding") or metrics.get("decoding", {})
    told = identity if entry else metrics
    judge = metrics.get("judge", {})
    return {
        "benchmark": metrics["benchmark"],
        "version": entry.get("version", metrics["benchmark_version"]),
        "benchmark_definition": definition_hash(entry) if entry else metrics.get("benchmark_definition"),
        "temperature": decoding.get("temperature"),
        "top_p": decoding.get("top_p"),
        "max_new_tokens": told.get("extend_to") or decoding.get("max_new_tokens"),
        "max_sequence_tokens": told.get("max_sequence_tokens"),
        "limit": told.get("limit"),
        "problems_state": metrics.get("problems_state"),
        "harness": harness_text(metrics.get("harness", {})),
        **told_caveats(metrics),
        "licence": metrics.get("licence"),
        "judge": judge.get("model"),
        "canary_acceptance": judge.get("canary_acceptance"),
        "canaries_problem": canaries_problem(metrics),
    }
