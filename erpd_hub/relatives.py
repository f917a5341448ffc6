"""Evaluations at one place of a Hub that differ in K alone: what is there of one is not drawn again for another.

K is no part of a sample's identity, so an evaluation with another K has, or lacks, whole samples. Its fingerprint
follows from what both have in common, for any K; whether there is an artifact with it is one look at the tags. What is
taken over becomes an input of the new artifact (role `taken_over`), and so part of its lineage.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from erpd_hub import config as c
from erpd_hub.artifacts import LineageRecord, fingerprint, fingerprint_tag
from erpd_hub.hub.client import Hub, find_finished
from erpd_hub.inputs import ResolvedInput, pinned
from erpd_hub.nodes import Node

logger = logging.getLogger(__name__)

ROLE = "taken_over"
_MOST_K = 512
"""[I] Nobody draws more samples of a problem; larger K are only found from larger ones."""

Inputs = Sequence[tuple[str, str]]
"""(role, digest), as a fingerprint takes them."""


class Relative(NamedTuple):
    """A finished evaluation with its own K."""

    sha: str
    record: LineageRecord

    @property
    def k(self) -> int:
        return int(self.record.identity["k"])

    @property
    def errors(self) -> int:
        """Samples that failed and were recorded so: an evaluation with any is not complete."""
        return int(self.record.metrics.get("errors") or 0)

    def usable(self, k: int) -> int:
        """Samples that an evaluation with this k can take over."""
        return int(self.record.metrics["n"]) * min(self.k, k) - self.errors


def find_relatives(hub: Hub, node: Node, variants: Sequence[Inputs]) -> list[Relative]:
    """All evaluations at the node's place with its config but for K, also those that took samples over themselves.

    Args:
        variants: The inputs that they may have been made of.
    """
    place = (node.stage.repo_type, node.repo_id)
    tags = hub.tags(*place)
    if not tags:
        return []
    most = max(_MOST_K, _k(node))
    identity = node.identity
    found: dict[str, Relative] = {}
    pending = list(variants)
    while pending:
        inputs = pending.pop(0)
        for k in range(1, most + 1):
            value = fingerprint(
                node.config.stage, node.stage.version, inputs=inputs, identity={**identity, "k": k}, seed=node.seed
            )
            if value in found or fingerprint_tag(value) not in tags:
                continue
            if (there := find_finished(hub, *place, node.folder, value)) is not None:
                found[value] = Relative(*there)
                plain = [pair for pair in inputs if pair[0] != ROLE]
                pending.append([*plain, (ROLE, there[1].digest)])
    return list(found.values())


def variants(
    hub: Hub, node: Node, inputs: Sequence[ResolvedInput], above: Callable[[str], tuple[Node, list[ResolvedInput]]]
) -> list[Inputs]:
    """The inputs that an evaluation with another K may have: an extension goes on from one with that K.

    Args:
        above: A finished node by its name, with its inputs.
    """
    pairs = [(item.record.role, item.record.digest) for item in inputs]
    source = next((str(edge.source) for edge in node.inputs if edge.role == "extended"), None)
    if source is None:
        return [pairs]
    plain, plain_inputs = above(source)
    found = find_relatives(hub, plain, variants(hub, plain, plain_inputs, above))
    digests = dict.fromkeys([dict(pairs)["extended"], *(item.record.digest for item in found)])
    rest = [pair for pair in pairs if pair[0] != "extended"]
    return [[*rest, ("extended", digest)] for digest in digests]


def complete(relatives: Sequence[Relative], node: Node) -> Relative | None:
    """The evaluation with the node's K that lacks nothing."""
    done = next((item for item in relatives if item.k == _k(node) and not item.errors), None)
    endpoint = _endpoint(node)
    if endpoint and (done or any(item.usable(_k(node)) > 0 for item in relatives)):
        logger.warning(
            "%s: samples of %s were drawn before and are used again; nothing says that the same model answers there: "
            "where it is another, or another server, evaluate under another --name", node.name, endpoint,
        )  # fmt: skip
    return done


def _endpoint(node: Node) -> str | None:
    """The endpoint that a node evaluates."""
    assert isinstance(node.config, c.EvaluateConfig)
    return next((text for text in node.config.checkpoints if text.startswith("endpoint:")), None)


def with_samples_of(
    relatives: Sequence[Relative], hub: Hub, node: Node, inputs: Sequence[ResolvedInput]
) -> list[list[ResolvedInput]]:
    """The inputs with each that samples may be taken over from: what has most of them first, of equals the smallest."""
    useful = sorted((item for item in relatives if item.usable(_k(node)) > 0), key=lambda r: (-r.usable(_k(node)), r.k))
    return [
        [*inputs, pinned(ROLE, item.record, item.sha, hub, repo_id=node.repo_id, folder=node.folder)] for item in useful
    ]


def _k(node: Node) -> int:
    assert isinstance(node.config, c.EvaluateConfig) and node.config.k is not None, "the plan has resolved it"
    return node.config.k
