"""What a run took: the sums of its ledger by stage and in all, and the paper's Table 4 made from the same lines."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from erpd_hub.errors import ArtifactError
from erpd_hub.home import run_folder
from erpd_hub.hub.client import Hub
from erpd_hub.lineage import Place, locate
from erpd_hub.planning.ledger import Entry, address, entries, made_of
from erpd_hub.planning.table4 import table4

SCHEMA = "erpd-hub/cost/v1"


def cost(hub: Hub, name: str) -> dict[str, Any]:
    """The cost of a run by name (its last one on this machine), or of everything an artifact comes from.

    Raises:
        ArtifactError: no such run or artifact.
    """
    roots = list(_roots(hub, name))
    records = dict(made_of(hub, roots))
    if not records:
        raise ArtifactError(f"{name}: none of its artifacts is on {hub.identity}; give its --endpoint")
    own = {record.run for place in roots if (record := hub.lineage(*address(place))) is not None}
    lines = list(entries(hub, records, own))
    return {
        "schema": SCHEMA,
        "of": name,
        "artifacts": [asdict(entry) for entry in lines],
        "stages": _by_stage(lines),
        "totals": _sums(lines) | {"inherited": _sums([entry for entry in lines if entry.inherited])},
        "table4": table4(lines, records),
    }


def measured_rates(hub: Hub, name: str) -> dict[str, float]:
    """Response tokens per GPU-second by stage, of a run that has been; what `plan --measured` goes by."""
    stages = cost(hub, name)["stages"]
    return {stage: row["tokens_per_gpu_second"] for stage, row in stages.items() if row["tokens_per_gpu_second"]}


def _roots(hub: Hub, name: str) -> Iterator[Place]:
    if "/" in name:
        yield locate(hub, name)
        return
    path = run_folder(name) / "summary.json"
    if not path.is_file():
        raise ArtifactError(f"{name}: expected a run of this machine, or namespace/name of an artifact; found neither")
    for item in json.loads(path.read_text())["artifacts"]:
        yield Place(item["repo_type"], item["repo"], item["revision"], item["folder"])


def _sums(entries: list[Entry]) -> dict[str, Any]:
    return {
        "artifacts": len(entries),
        "seconds": round(sum(entry.seconds for entry in entries), 3),
        "gpu_seconds": round(sum(entry.gpu_seconds for entry in entries), 3),
        "tokens": sum(entry.tokens or 0 for entry in entries),
    }


def _by_stage(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    found = {}
    for stage in dict.fromkeys(entry.stage for entry in entries):
        some = [entry for entry in entries if entry.stage == stage]
        timed = [entry for entry in some if entry.tokens and entry.seconds]
        spent = sum(entry.gpu_seconds for entry in timed)
        rate = sum(entry.tokens or 0 for entry in timed) / spent if spent else None
        found[stage] = _sums(some) | {"tokens_per_gpu_second": None if rate is None else round(rate, 2)}
    return found
