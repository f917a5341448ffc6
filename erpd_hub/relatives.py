"""Evaluations at one place of a Hub that differ in K alone: what is there of one is not drawn again for another.

K is no part of a sample's identity, so an evaluation with another K has, or lacks, whole samples. Its fingerprint
follows from what both have in common, for any K; whether there is an artifact with it is one look at the tags. What is
taken over becomes an input of the new artifact (role `taken_over`), and so part of its lineage.

One that was begun and not finished has left a work directory here. Samples in its journal fit as they are, by their
seeds; the shards of a reproducible engine are whole only in their own artifact, so a smaller one is finished first.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from erpd_hub import config as c
from erpd_hub.artifacts import LineageRecord, fingerprint, fingerprint_tag
from erpd_hub.home import home
from erpd_hub.hub.client import Hub
from erpd_hub.hub.finding import find_finished
from erpd_hub.inputs import ResolvedInput, pinned
from erpd_hub.nodes import Node
from erpd_hub.samples import shard_paths

logger = logging.getLogger(__name__)

ROLE = "taken_over"
_MOST_K = 512
"""[I] Nobody draws more samples of a problem; larger K are only found from larger ones."""

Inputs = Sequence[tuple[str, str]]
"""(role, digest), as a fingerprint takes them."""
Above = Callable[[str], tuple[Node, list[ResolvedInput]]]
"""A finished node by its name, with its inputs."""


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
    found: dict[str, Relative] = {}
    pending = list(variants)
    while pending:
        inputs = pending.pop(0)
        for _, value in _fingerprints(node, inputs):
            if value in found or fingerprint_tag(value) not in tags:
                continue
            if (there := find_finished(hub, *place, node.folder, value)) is not None:
                found[value] = Relative(*there)
                plain = [pair for pair in inputs if pair[0] != ROLE]
                pending.append([*plain, (ROLE, there[1].digest)])
    return list(found.values())


def _fingerprints(node: Node, inputs: Inputs) -> Iterator[tuple[int, str]]:
    """The node's with these inputs, for every K."""
    identity = node.identity
    for k in range(1, max(_MOST_K, _k(node)) + 1):
        with_k = {**identity, "k": k}
        yield k, fingerprint(node.config.stage, node.stage.version, inputs=inputs, identity=with_k, seed=node.seed)


def variants(hub: Hub, node: Node, inputs: Sequence[ResolvedInput], above: Above) -> list[Inputs]:
    """The inputs that an evaluation with another K may have: an extension goes on from one with that K."""
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


# ------------------------------------------------------------------------------------- not finished


class Begun(NamedTuple):
    """An evaluation with another K that has a work directory here."""

    k: int
    work: Path
    is_smaller: bool
    """Whether its K is."""


def find_begun(
    hub: Hub, node: Node, inputs: Sequence[ResolvedInput], above: Above, work_of: Callable[[Node, str], Path]
) -> list[Begun]:
    """All at an evaluation's place with its config but for K, also those that were to take samples over themselves.

    Args:
        inputs: Without what is taken over.
        work_of: The work directory of a node with a fingerprint.
    """
    if not isinstance(node.config, c.EvaluateConfig) or not any((home() / "work").glob("*/scratch")):
        return []
    plain = variants(hub, node, inputs, above)
    digests = [item.record.digest for item in find_relatives(hub, node, plain)]
    every = [*plain, *([*pairs, (ROLE, digest)] for pairs in plain for digest in digests)]
    pairs = (pair for one in every for pair in _fingerprints(node, one))
    others = ((k, work_of(node, value)) for k, value in pairs if k != _k(node))
    return [Begun(k, work, k < _k(node)) for k, work in others if work.is_dir()]


def to_finish_first(node: Node, begun: Iterable[Begun]) -> list[Node]:
    """Those with a smaller K of which a reproducible engine has finished some shards. Of an extension there are none:
    what a larger K goes on from is another artifact."""
    if any(edge.role == "extended" for edge in node.inputs):
        return []
    sizes = sorted({one.k for one in begun if one.is_smaller and any(shard_paths(one.work / "out"))})
    return [replace(node, config=node.config.model_copy(update={"k": k})) for k in sizes]


def adopt_journals(work: Path, begun: Iterable[Begun]) -> None:
    """Put the journals of others beside a work directory's own, which reads them all."""
    folder = work / "scratch" / "journal"
    for path in (path for one in begun for path in (one.work / "scratch" / "journal").glob("journal-*.bin")):
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"journal-of-{path.stat().st_ino}.bin"
        if target.exists():
            continue
        try:
            os.link(path, target)
        except OSError:  # a file system without links
            shutil.copyfile(path, target)


def whose_server(node: Node) -> str:
    """What tells unfinished samples of an endpoint's name at one URL from those at another: another model may be there.

    For what only stays on this machine, and there as a hash. The weights that a server has of a checkpoint are known.
    """
    if not isinstance(node.config, c.EvaluateConfig) or _endpoint(node) is None:
        return ""
    assert isinstance(node.config.engine, c.ServerEngine), "the config has refused any other"
    return "\n".join(("", *sorted(node.config.engine.urls)))


def _k(node: Node) -> int:
    assert isinstance(node.config, c.EvaluateConfig) and node.config.k is not None, "the plan has resolved it"
    return node.config.k
