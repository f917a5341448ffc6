"""What a run would do and what it would take, before anything starts: `--dry-run` and `plan`.

Needs no endpoint: what cannot be reached or is not there is listed as unresolved, and the bill goes by the recipe's
model facts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from erpd_hub.fields import identity
from erpd_hub.hub.client import Hub
from erpd_hub.nodes import Node, Plan
from erpd_hub.pipeline import open_hub
from erpd_hub.planning import bill
from erpd_hub.planning.cautions import cautions
from erpd_hub.planning.cost import measured_rates
from erpd_hub.planning.devices import get_device
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.items import Setting
from erpd_hub.runner import Runner


@dataclass(frozen=True)
class Machine:
    """What was asked for on the command line; None where the default stands."""

    gpus: int | None = None
    gpu: str | None = None
    gpu_memory: float | None = None
    """GB a GPU has, where it is not what the data sheet says."""
    mean_length: int | None = None
    measured: str | None = None
    """A run or artifact whose measured rates take the place of the time model."""
    assume: Mapping[str, float] | None = None


def preview(
    plan: Plan, *, start: str | None = None, until: str | None = None, machine: Machine | None = None
) -> dict[str, Any]:
    """The resolved plan: for every artifact its inputs, repository, what would happen to it, and its bill."""
    nodes, _ = plan.select(until=until, start=start)
    hub = open_hub(plan)
    for endpoint in (hub, hub.upstream):
        if endpoint is not None:
            endpoint.patient = False
    verdicts = Runner(plan, hub).preview(nodes)
    facts = bill.base_facts(plan, hub)
    setting = _setting(machine or Machine(), facts, hub)
    items = bill.bill_plan(plan, nodes, setting, facts)
    to_make = [item for item in items if verdicts[item.step].partition(":")[0] not in ("reuse", "skip")]
    return {
        "schema": "erpd-hub/plan/v1",
        "run": plan.recipe.run,
        "seed": plan.recipe.seed,
        "endpoint": hub.identity,
        "cautions": cautions(plan),
        "nodes": [
            _describe(node, verdicts[node.name]) | {"tokens": item.tokens_upper, "estimate": asdict(item)}
            for node, item in zip(nodes, items, strict=True)
        ],
        "bill": bill.describe(plan, to_make, setting, facts),
    }


def _setting(machine: Machine, facts: ModelFacts | None, hub: Hub) -> Setting:
    rates = measured_rates(hub, machine.measured) if machine.measured is not None else {}
    setting = bill.default_setting(facts, machine.gpu, machine.gpus, machine.assume)
    device = get_device(setting.device.name, memory=machine.gpu_memory)
    return replace(setting, device=device, mean_length=machine.mean_length, rates=rates)


def _describe(node: Node, verdict: str) -> dict[str, Any]:
    inputs: dict[str, list[str]] = {}
    for edge in node.inputs:
        at = f"@step-{edge.saved_step}" if edge.saved_step is not None else ""
        inputs.setdefault(edge.role, []).append(f"{edge.source}{at}")
    return {
        "step": node.name,
        "stage": node.config.stage,
        "inputs": inputs,
        "repo": node.repo_id,
        "repo_type": node.stage.repo_type,
        "folder": node.folder,
        "pushed_steps": list(node.pushed_steps),
        "will": verdict,
        "config": identity(node.config),
    }
