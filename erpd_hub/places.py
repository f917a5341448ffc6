"""Where the artifacts of a plan go: which saved steps are pushed, and that no two of them share a place."""

from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.errors import ConfigError
from erpd_hub.names import REPO_CHARACTERS
from erpd_hub.nodes import Node


def with_pushed_steps(nodes: list[Node]) -> list[Node]:
    used: dict[str, set[int]] = {}
    for node in nodes:
        for edge in node.inputs:
            if isinstance(edge.source, str) and edge.saved_step is not None:
                used.setdefault(edge.source, set()).add(edge.saved_step)
    return [replace(node, pushed_steps=_pushed_steps(node, used.get(node.name, set()))) for node in nodes]


def _pushed_steps(node: Node, used: set[int]) -> tuple[int, ...]:
    if not isinstance(node.config, c.TrainingConfig):
        return ()
    policy = {"referenced": used, "all": set(node.config.kept_steps), "none": set()}[node.config.push_steps]
    if missing := used - policy:
        raise ConfigError(f"{node.name}.push_steps: none, but step {min(missing)} is used by another step")
    return tuple(sorted({*policy, node.config.steps}))


def refuse_shared_places(nodes: list[Node]) -> None:
    """Two artifacts in one place would overwrite each other."""
    places: dict[tuple[str, str], Node] = {}
    for node in nodes:
        other = places.setdefault((node.repo_id, node.folder), node)
        if other is not node:
            place = f"{node.repo_id}/{node.folder}".rstrip("/")
            raise ConfigError(f"{node.name}: would go to {place}, as does {other.name}; measure each checkpoint once")


def refuse_long_names(nodes: list[Node]) -> None:
    """Refuse, before anything runs, a repository that no Hub would create."""
    for node in nodes:
        if len(node.repo_id) > REPO_CHARACTERS:
            raise ConfigError(
                f"{node.name}: expected a repository id of at most {REPO_CHARACTERS} characters, got {node.repo_id} "
                f"({len(node.repo_id)}); shorten run, namespace or the step's name"
            )
