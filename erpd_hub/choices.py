"""Which artifacts a run needs while, or after, a gate decides which strategy a signal follows.

A signal with `strategy: auto` is *open*: it has the inputs of all its choices, each edge marked with its strategy.
When the gate is there it becomes the plain signal of one strategy, and what only the other choices need is left alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.nodes import Edge, Node
from erpd_hub.selection import choose


def is_open(node: Node) -> bool:
    return isinstance(node.config, c.SignalConfig) and node.config.strategy == "auto"


def gate_edge(node: Node) -> Edge:
    """Of an open signal: the input that decides."""
    return next(edge for edge in node.inputs if edge.role == "gate")


def decide(node: Node, strategies: Sequence[int]) -> Node:
    """The plain signal that an open one becomes; the gate stays among its inputs.

    Args:
        strategies: What the gate says, in order of preference.

    Raises:
        ConfigError: the signal offers none of them.
    """
    assert isinstance(node.config, c.SignalConfig)
    strategy = choose(strategies, tuple(node.config.choices), where=node.name)
    choice = next(item for number, item in node.config.choices.items() if number == strategy)
    fixed: dict[str, object] = {"strategy": strategy, "gate": None, "choices": {}}
    config = node.config.model_copy(update={**fixed, "numerator": choice.numerator, "denominator": choice.denominator})
    inputs = tuple(replace(edge, choice=None) for edge in node.inputs if edge.choice in (None, strategy))
    return replace(node, config=config, inputs=inputs)


def needed(nodes: Sequence[Node], decided: Mapping[str, Node], *, maybe: bool = False) -> list[Node]:
    """The nodes that a run makes: what nothing refers to, and all that this needs.

    Args:
        nodes: In an order in which every input comes before its users.
        decided: What open nodes have become.
        maybe: Also what only a choice needs that is still open.
    """
    used = {edge.source for node in nodes for edge in node.inputs}
    current = [decided.get(node.name, node) for node in nodes]
    wanted = {node.name for node in nodes if node.name not in used}
    for node in reversed(current):
        if node.name in wanted:
            wanted |= set(sources(node, maybe=maybe))
    return [node for node in current if node.name in wanted]


def conditions(nodes: Sequence[Node], decided: Mapping[str, Node]) -> dict[str, list[str]]:
    """For each node that is made only under some choice, under which: `r1/signal: strategy 2`; none for one that no
    choice needs any more."""
    sure = {node.name for node in needed(nodes, decided)}
    found: dict[str, list[str]] = {node.name: [] for node in nodes if node.name not in sure}
    for node in needed(nodes, decided, maybe=True):
        for strategy in node.config.choices if isinstance(node.config, c.SignalConfig) else ():
            for name in _closure(nodes, decided, {e.source for e in node.inputs if e.choice == strategy}):
                if name in found:
                    found[name].append(f"{node.name}: strategy {strategy}")
    return found


def sources(node: Node, *, maybe: bool = False) -> Iterator[str]:
    """Names of the nodes that a node is made from; those of open choices only with `maybe`."""
    for edge in node.inputs:
        if isinstance(edge.source, str) and (edge.choice is None or maybe):
            yield edge.source


def _closure(nodes: Sequence[Node], decided: Mapping[str, Node], start: Iterable[object]) -> set[str]:
    wanted = {name for name in start if isinstance(name, str)}
    for node in reversed(nodes):
        if node.name in wanted:
            wanted |= set(sources(decided.get(node.name, node)))
    return wanted
