"""A recipe at several points and seeds, as one plan in which nothing is made twice.

A point is a recipe with some keys set otherwise. An artifact's repository is named for those settings that change it,
directly or through its inputs, and for no others: what all points have in common is that of the recipe itself, and a
point that is added later leaves every other name as it is. Points whose artifact has the same static identity (stage,
version, config, seed, and the same of its inputs) share it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from erpd_hub.comparing.grid import LONGEST, Settings, label, point_name
from erpd_hub.comparing.placing import Placed, Recipes, at_seed, node_identity, place_nodes
from erpd_hub.errors import ConfigError
from erpd_hub.names import REPO_CHARACTERS, shortened
from erpd_hub.nodes import Edge, Node, Plan
from erpd_hub.recipe import build_recipe
from erpd_hub.recipe_model import Recipe


@dataclass(frozen=True)
class Point:
    """A recipe with some settings and a seed: a run of its own."""

    settings: Settings
    """Without the seed; all that were asked for."""
    plan: Plan
    """Its part of the sweep's plan, under the names that the nodes have there."""

    @property
    def seed(self) -> int:
        return self.plan.recipe.seed

    @property
    def run(self) -> str:
        return self.plan.recipe.run


@dataclass(frozen=True)
class Sweep:
    origin: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]
    """All seeds of the first settings, then of the second, and so on."""
    plan: Plan
    """What all points need, each artifact once."""
    refused: tuple[tuple[Settings, str], ...]
    """Points that are no valid recipe, and why."""


def make_sweep(
    origin: str,
    data: dict[str, Any],
    settings: Sequence[Settings],
    *,
    seeds: Sequence[int] = (),
    skip_refused: bool = False,
) -> Sweep:
    """Plan a recipe at all points and seeds.

    Args:
        data: The recipe as `read_recipe` gives it.
        seeds: Without any, the recipe's own.
        skip_refused: Leave out points that are no valid recipe; otherwise the first is an error.

    Raises:
        ConfigError: the recipe, or one of its points, does not fit.
    """
    recipe = build_recipe(data, origin)
    recipes = Recipes(origin, data, recipe)
    kept, refused = [], []
    for one in settings:
        found = recipes.plan(one)
        if isinstance(found, Plan):
            kept.append((one, found))
        elif skip_refused:
            refused.append((one, str(found)))
        else:
            hint = "; a value that is a list is written [[...]]" if "valid tuple" in str(found) else ""
            raise ConfigError(f"{found} (at {label(one)}{hint})")
    if not kept:
        raise ConfigError(f"{origin}: expected a point that is a valid recipe; the first says: {refused[0][1]}")
    placed = [
        (one, at_seed(place_nodes(one, plan, recipes), seed, recipe), plan.recipe.model_copy(update={"seed": seed}))
        for one, plan in kept
        for seed in seeds or (recipe.seed,)
    ]
    merged = _Merged(recipe, [nodes for _, nodes, _ in placed])
    points = [Point(one, merged.part(index, at)) for index, (one, _, at) in enumerate(placed)]
    keys = tuple(dict.fromkeys(setting.key for one in settings for setting in one))
    return Sweep(origin, keys, tuple(points), merged.plan, tuple(refused))


# ------------------------------------------------------------------------------------------- one plan


class _Merged:
    """The nodes of all points, those of the same identity once, at the place that is named for the fewest settings."""

    def __init__(self, recipe: Recipe, points: Sequence[Sequence[Placed]]) -> None:
        self.recipe = recipe
        self._settings: dict[str, Settings] = {}
        self._nodes: dict[str, Node] = {}
        self._keys = [self._add(nodes) for nodes in points]
        names = {key: _name(node, self._settings[key]) for key, node in self._nodes.items()}
        self._refuse_equal(names)
        self._finished = {key: self._finish(key, node, names) for key, node in self._nodes.items()}
        self.plan = Plan(recipe, tuple(self._finished.values()))

    def part(self, index: int, recipe: Recipe) -> Plan:
        """One point's own plan."""
        keys = self._keys[index]
        named = {setting for key in keys for setting in self._settings[key]}
        run = _run(self.recipe.run, tuple(sorted(named)))
        return Plan(recipe.model_copy(update={"run": run}), tuple(self._finished[key] for key in keys))

    def _add(self, nodes: Sequence[Placed]) -> list[str]:
        keys: dict[str, str] = {}
        for node, settings in nodes:
            edges = _renamed(node.inputs, keys)
            # By name too: of two steps that a point makes equal each keeps its own row.
            key = keys[node.name] = f"{node.name} {node_identity(node, edges)}"
            before = self._nodes.get(key, node)
            steps = tuple(sorted({*node.pushed_steps, *before.pushed_steps}))
            self._nodes[key] = replace(before, inputs=edges, pushed_steps=steps)
            self._settings[key] = min(settings, self._settings.get(key, settings), key=lambda some: (len(some), some))
        return list(keys.values())

    def _finish(self, key: str, node: Node, names: Mapping[str, str]) -> Node:
        run = _run(self.recipe.run, self._settings[key])
        name = run + node.repo_id.removeprefix(f"{self.recipe.namespace}/{self.recipe.run}")
        return replace(
            node,
            name=names[key],
            inputs=_renamed(node.inputs, names),
            run=run,
            repo_id=f"{self.recipe.namespace}/{shortened(name, REPO_CHARACTERS)}",
        )

    @staticmethod
    def _refuse_equal(names: Mapping[str, str]) -> None:
        seen: dict[str, str] = {}
        for key, name in names.items():
            if seen.setdefault(name, key) != key:
                raise ConfigError(f"{name}: two points differ here by settings of the same name; sweep them apart")


def _renamed(edges: Iterable[Edge], names: Mapping[str, str]) -> tuple[Edge, ...]:
    return tuple(replace(e, source=names[e.source]) if isinstance(e.source, str) else e for e in edges)


def _run(base: str, settings: Settings) -> str:
    return f"{base}-{point_name(settings, LONGEST - len(base))}" if settings else base


def _name(node: Node, settings: Settings) -> str:
    return f"{point_name(settings)}/{node.name}" if settings else node.name
