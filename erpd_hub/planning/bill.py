"""The bill of a plan: for every artifact its tokens, its peak memory, its time and what it puts on the Hub.

Joins a `Plan` with the arithmetic of memory, time and storage. Expected figures go by a stated mean length, upper ones
by every response running to its limit. What cannot be known from the recipe (rollouts from elsewhere, a shape that
nothing tells) stays None.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erpd_hub import config as c
from erpd_hub.errors import ArtifactError, ConfigError, HubError
from erpd_hub.hub.client import Hub
from erpd_hub.nodes import Node, Plan
from erpd_hub.planning.bill_items import HUB_RATE, Clerk
from erpd_hub.planning.devices import get_device
from erpd_hub.planning.durations import DEFAULTS, Assumptions
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.items import Item, Setting
from erpd_hub.planning.shapes import KNOWN, facts_from_config, facts_of_repository, tiny_facts
from erpd_hub.planning.tokens import Tokens, mean_length
from erpd_hub.recipe_files import suggestion
from erpd_hub.references import PathRef, RepoRef, parse_reference

SAMPLING = ("rollout", "evaluate", "probe", "online", "select")
"""Stages that draw responses."""


def bill_plan(plan: Plan, nodes: list[Node], setting: Setting, facts: ModelFacts | None) -> list[Item]:
    """One item for every node; of a model whose shape is not known its tokens alone."""
    if facts is None:
        tokens = Tokens(plan, setting, None)
        return [Item(node.name, node.config.stage, *tokens.of(node)) for node in nodes]
    clerk = Clerk(plan, setting, facts)
    return [clerk.item(node) for node in nodes]


def totals(items: list[Item]) -> dict[str, Any]:
    """Sums over what is known; `unknown` names the artifacts that are not in them."""
    return {
        "hours": _hours(items),
        "gpu_hours": _hours(items, gpu=True),
        "gpu_hours_upper": round(sum((i.seconds_upper or 0.0) * i.gpus for i in items) / 3600, 2),
        "tokens_sampled": sum(i.tokens or 0 for i in items if i.stage in SAMPLING),
        "tokens_trained": sum(i.tokens or 0 for i in items if i.stage in ("teacher", "critic", "distill", "online")),
        "storage_gb": round(sum(i.storage_gb or 0.0 for i in items), 2),
        "work_gb": round(max((i.work_gb or i.storage_gb or 0.0 for i in items), default=0.0), 2),
        "by_stage": {
            stage: {"hours": _hours(some), "gpu_hours": _hours(some, gpu=True), "artifacts": len(some)}
            for stage in dict.fromkeys(item.stage for item in items)
            if (some := [item for item in items if item.stage == stage])
        },
        "does_not_fit": [item.step for item in items if item.fits is False],
        "unknown": [item.step for item in items if item.seconds is None],
    }


def _hours(items: list[Item], *, gpu: bool = False) -> float:
    return round(sum((item.seconds or 0.0) * (item.gpus if gpu else 1) for item in items) / 3600, 2)


def describe(plan: Plan, items: list[Item], setting: Setting, facts: ModelFacts | None) -> dict[str, Any]:
    """The bill and what it was reckoned with; `items` are the artifacts that are to be made."""
    tokens, source = mean_length(plan, setting, facts)
    shape = None if facts is None else {"name": facts.name, "params": facts.params, "stored": facts.stored}
    return {
        "gpu": setting.device.name,
        "gpus": setting.gpus,
        "gpu_gb": setting.device.memory,
        "gpu_usable_gb": round(setting.device.usable, 1),
        "gpu_source": setting.device.source,
        "model": shape,
        "mean_length": {"tokens": tokens, "source": source},
        "assumptions": asdict(setting.assume) | {"hub_gb_per_second": HUB_RATE},
        "measured_rates": dict(setting.rates),
        "totals": totals(items),
    }


# ----------------------------------------------------------------------------------------------- inputs


def default_setting(
    facts: ModelFacts | None, gpu: str | None, gpus: int | None, assume: Mapping[str, float] | None = None
) -> Setting:
    """What was asked for; else 8 x H100, or one CPU for a model below half a billion parameters.

    Raises:
        ConfigError: an unknown GPU or assumption.
    """
    small = facts is not None and facts.params < 5e8
    device = get_device(gpu or ("cpu" if small and gpus is None else "h100"))
    valid, asked = asdict(DEFAULTS), assume or {}
    if unknown := next((name for name in asked if name not in valid), None):
        raise ConfigError(
            f"--assume: expected one of {', '.join(valid)}, got {unknown!r}{suggestion(unknown, list(valid))}"
        )
    assumed = Assumptions(**{name: type(valid[name])(number) for name, number in asked.items()})  # counts are whole
    return Setting(device, gpus or (1 if device.name == "cpu" else 8), assume=assumed)


def base_facts(plan: Plan, hub: Hub | None = None) -> ModelFacts | None:
    """The shape of the run's base: as the recipe says, or by the base itself, its name, or its config.json.

    Raises:
        ConfigError: the recipe names a shape that is not known.
    """
    wanted = plan.recipe.facts.shape
    if wanted is not None:
        if wanted not in KNOWN:
            raise ConfigError(
                f"facts.shape: expected one of {', '.join(KNOWN)}, got {wanted!r}{suggestion(wanted, list(KNOWN))}"
            )
        return KNOWN[wanted]
    for node in plan.nodes:
        if isinstance(node.config, c.TinyBase):
            return tiny_facts(node.config)
    sources = [node.config.source for node in plan.nodes if isinstance(node.config, c.ImportBase)]
    sources += [str(edge.source) for node in plan.nodes for edge in node.inputs
                if isinstance(edge.source, RepoRef) and edge.kinds == ("checkpoint",)]  # fmt: skip
    found = (_facts_of(source, hub) for source in sources)
    return next((facts for facts in found if facts is not None), None)


def _facts_of(source: str, hub: Hub | None) -> ModelFacts | None:
    reference = parse_reference(source)
    if isinstance(reference, PathRef):
        path = Path(reference.path).expanduser() / "config.json"
        return facts_from_config(json.loads(path.read_text()), "local") if path.is_file() else None
    if not isinstance(reference, RepoRef):
        return None
    return facts_of_repository(reference.repo_id) or _facts_on_hub(reference, hub)


def _facts_on_hub(reference: RepoRef, hub: Hub | None) -> ModelFacts | None:
    for endpoint in (hub, hub.upstream if hub else None):
        if endpoint is None:
            continue
        try:
            sha = endpoint.resolve("model", reference.repo_id, reference.revision)
            path = endpoint.file("model", reference.repo_id, sha, "config.json") if sha else None
        except (HubError, ArtifactError):  # a plan needs no Hub
            continue
        if path is not None:
            return facts_from_config(json.loads(path.read_text()), reference.repo_id)
    return None
