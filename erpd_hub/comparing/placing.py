"""Which settings of a sweep an artifact is named for: those that change it, directly or through its inputs."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from erpd_hub.comparing.grid import Setting, Settings
from erpd_hub.errors import ConfigError
from erpd_hub.nodes import Edge, Node, Plan
from erpd_hub.overrides import apply_override
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.recipe_model import Recipe
from erpd_hub.selection import final_seed


class Recipes:
    """Plans of a recipe at subsets of settings, each made once."""

    def __init__(self, origin: str, data: dict[str, Any], recipe: Recipe) -> None:
        self.origin, self.data, self.recipe = origin, data, recipe
        self._plans: dict[frozenset[tuple[str, str]], Plan | ConfigError] = {}
        self._nodes: dict[int, dict[str, str]] = {}

    def plan(self, settings: Iterable[Setting]) -> Plan | ConfigError:
        ordered = sorted(settings, key=lambda setting: setting.key)  # a.b before a.b.c
        key = frozenset((setting.key, setting.text) for setting in ordered)
        if key not in self._plans:
            try:
                data = deepcopy(self.data)
                for setting in ordered:
                    apply_override(data, f"{setting.key}={setting.text}")
                self._plans[key] = make_plan(build_recipe(data, self.origin))
            except ConfigError as error:
                self._plans[key] = error
        return self._plans[key]

    def content(self, plan: Plan | ConfigError) -> Mapping[str, str] | None:
        """By name, what each node is apart from what its inputs are; None for no recipe."""
        if not isinstance(plan, Plan):
            return None
        if id(plan) not in self._nodes:
            self._nodes[id(plan)] = {node.name: node_identity(node, node.inputs) for node in plan.nodes}
        return self._nodes[id(plan)]


class Placed(NamedTuple):
    """A node and the settings it is named for."""

    node: Node
    settings: Settings


def place_nodes(settings: Settings, plan: Plan, recipes: Recipes) -> list[Placed]:
    found: dict[str, Placed] = {}
    for node in plan.nodes:
        named = set(_changing(node, settings, plan, recipes))
        named |= {s for edge in node.inputs if isinstance(edge.source, str) for s in found[edge.source].settings}
        found[node.name] = Placed(node, tuple(sorted(named)))
    return list(found.values())


def _changing(node: Node, settings: Settings, plan: Plan, recipes: Recipes) -> Iterable[Setting]:
    """The settings without which a node would be another one, or its inputs others.

    A node that the recipe implies rather than names, such as the log-probs of a numerator, is the same wherever it is
    needed: that a setting makes it appear is no reason to name it for that.
    """
    implied = node.step not in plan.recipe.rounds[node.round - 1].steps
    whole = recipes.content(plan)
    plain = recipes.content(recipes.plan(()))
    rest = list(settings)
    assert whole is not None
    for setting in settings:
        without = [item for item in rest if item != setting]
        content = recipes.content(recipes.plan(without))
        known = plain if content is None else content
        there = None if known is None else known.get(node.name)
        if there == whole[node.name]:
            rest = without if content is not None else rest
        elif there is not None or not implied:
            yield setting


def node_identity(node: Node, inputs: Iterable[Edge]) -> str:
    """Hash of what goes into an artifact, as far as a plan knows it; the sources of its inputs say what they are."""
    edges = sorted(json.dumps(asdict(edge) | {"source": str(edge.source)}) for edge in inputs)
    content = [node.config.stage, node.stage.version, node.identity, node.seed, edges]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def at_seed(items: Sequence[Placed], seed: int, recipe: Recipe) -> list[Placed]:
    """The same nodes at another seed, except for steps that have a seed of their own and no input at the other."""
    if seed == recipe.seed:
        return list(items)
    seeded: dict[str, Placed] = {}
    for node, settings in items:
        of_run = node.config.seed is None
        if of_run or any(edge.source in seeded for edge in node.inputs):
            placed = replace(node, seed=_reseeded(node.seed, recipe.seed, seed) if of_run else node.seed)
            seeded[node.name] = Placed(placed, (*settings, Setting("seed", str(seed))))
    return [seeded.get(item.node.name, item) for item in items]


def _reseeded(found: int, before: int, seed: int) -> int:
    """A node's seed under another one of the run: that one, or what the plan derives from it for the evaluation of a
    selected checkpoint."""
    return final_seed(seed) if found == final_seed(before) else seed
