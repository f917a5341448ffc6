"""What a plan is made of: nodes, each an artifact to be made, and the edges to their inputs."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from erpd_hub import config as c
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.benchmarks import Benchmark, get_benchmark, searched_benchmarks
from erpd_hub.evaluation.contamination import RULE
from erpd_hub.fields import identity
from erpd_hub.plugins import code_identity
from erpd_hub.recipe_files import suggestion
from erpd_hub.recipe_model import Recipe
from erpd_hub.references import EndpointRef, PathRef, RepoRef, ReservedRef, parse_reference
from erpd_hub.stages import STAGES, Stage


@dataclass(frozen=True)
class Edge:
    """One input of a node: another node of the plan, a repository, or a local path."""

    role: str
    kinds: tuple[str, ...]
    source: str | RepoRef | PathRef | EndpointRef
    """A node's name, or something outside the run."""
    saved_step: int | None = None
    optional: bool = False
    """Left out (and named in the artifact) when the endpoint does not have it."""
    files: tuple[str, ...] = ()
    """What of a repository is needed, and so counts as the input; empty for all of it."""
    choice: int | None = None
    """The strategy it belongs to, of a signal that a gate decides on (see `choices`)."""


@dataclass(frozen=True)
class Node:
    """One artifact to be made."""

    name: str
    """`r1/student`, or `r1/evaluate/student@step-8/addition` for one of several in a repository."""
    round: int
    step: str
    config: c.StepConfig
    seed: int
    inputs: tuple[Edge, ...]
    run: str
    """The run that its repository is named for: the recipe's, or a point of a sweep."""
    repo_id: str
    folder: str = ""
    pushed_steps: tuple[int, ...] = ()
    """Saved steps of a training stage that become commits; the last always does."""

    @property
    def stage(self) -> Stage:
        return STAGES[self.config.stage]

    @property
    def identity(self) -> dict[str, Any]:
        """What goes into the fingerprint besides inputs and seed: the config, the benchmarks it names in full, the rule
        by which a dataset is searched for their problems, and the hash of the file of each function of the user's."""
        named = {benchmark.name: benchmark.identity for benchmark in benchmarks_of(self.config)}
        code = code_identity(self.config)
        searched = named and isinstance(self.config, c.JsonlPrompts | c.HubPrompts | c.CodePrompts)
        return {
            **identity(self.config),
            **({"benchmark_entries": named} if named else {}),
            **({"decontamination": RULE} if searched else {}),
            **({"user_code": code} if code else {}),
        }


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    nodes: tuple[Node, ...]
    """In an order in which every input comes before its users."""

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def select(self, *, until: str | None = None, start: str | None = None) -> tuple[list[Node], set[str]]:
        """The nodes that `until` needs (all without it), and the names of those that must exist already.

        With `start`, everything that is not `start` or a consequence of it must exist.
        """
        nodes = list(self.nodes) if until is None else self._needed({node.name for node in self._of_step(until)})
        given: set[str] = set()
        if start is not None:
            live = {node.name for node in self._of_step(start)} & {node.name for node in nodes}
            if not live:
                raise ConfigError(f"--from {start}: comes after --until {until}; nothing is left to do")
            for node in nodes:
                if any(edge.source in live for edge in node.inputs):
                    live.add(node.name)
            given = {node.name for node in nodes} - live
        return nodes, given

    def only(self, names: Collection[str]) -> "Plan":
        """The part of the plan that some of its nodes need, these included."""
        return replace(self, nodes=tuple(self._needed(names)))

    def _needed(self, names: Collection[str]) -> list[Node]:
        wanted = set(names)
        for node in reversed(self.nodes):
            if node.name in wanted:
                wanted |= {edge.source for edge in node.inputs if isinstance(edge.source, str)}
        return [node for node in self.nodes if node.name in wanted]

    def _of_step(self, name: str) -> list[Node]:
        """The nodes of a step, named as in a recipe; without a round the last round that has it."""
        reference = parse_reference(name)
        step = name if isinstance(reference, ReservedRef) else getattr(reference, "name", None)
        found = [n for n in self.nodes if n.step == step and getattr(reference, "round", None) in (None, n.round)]
        if not found:
            names = sorted({node.step for node in self.nodes})
            raise ConfigError(f"{name}: expected a step of the recipe ({', '.join(names)}){suggestion(name, names)}")
        return [node for node in found if node.round == found[-1].round]


def benchmarks_of(config: c.StepConfig) -> tuple[Benchmark, ...]:
    """The benchmarks that a step measures on or decontaminates against.

    Raises:
        ConfigError: one is neither registered nor the user's own.
    """
    if isinstance(config, c.EvaluateConfig):
        return tuple(get_benchmark(name, config.definitions) for name in config.benchmarks)
    if isinstance(config, c.SelectConfig | c.JudgeConfig):
        return (get_benchmark(config.benchmark, config.definitions),)
    return searched_benchmarks(config) if isinstance(config, c.PromptSelection) else ()
