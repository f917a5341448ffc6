"""The one runner of all stages: resolve inputs, fingerprint, reuse or make, record, push, tag.

An artifact is made in a work directory of its fingerprint and place: `scratch/` for the stage's own checkpoints, `out/`
for what it writes. `lineage.json` is written last, so its existence means complete; the tag on the Hub comes after the
commit, so its existence means pushed. A run that is killed anywhere goes on from there, and the artifact is the same.
"""

import shutil
import time
from dataclasses import replace
from pathlib import Path

from erpd_hub import config as c
from erpd_hub import relatives
from erpd_hub.artifacts import LineageRecord, fingerprint
from erpd_hub.choices import conditions, decide, gate_edge, is_open, needed
from erpd_hub.errors import ArtifactError, ConfigError, HubError, StageError
from erpd_hub.finished import Finished, Watch
from erpd_hub.home import work_folder
from erpd_hub.hub.client import Hub
from erpd_hub.hub.finding import find_finished, find_saved_step
from erpd_hub.inputs import OutsideInputs, ResolvedInput, pinned
from erpd_hub.launching.machine import check_machine
from erpd_hub.launching.options import Launch
from erpd_hub.making import is_made, make, push
from erpd_hub.nodes import Edge, Node, Plan
from erpd_hub.shared_scores import find_shared
from erpd_hub.work_lock import discard, exclusive, lock_file


class Runner:
    """Carries out a plan on a Hub."""

    def __init__(self, plan: Plan, hub: Hub, watch: Watch | None = None, launch: Launch | None = None) -> None:
        self.plan = plan
        self.hub = hub
        self.launch = launch or Launch()
        self.watch = watch
        self.finished: dict[str, Finished] = {}
        self.failed: dict[str, str] = {}
        """Why there is none: by the node's name, with `keep_going`."""
        self.decided: dict[str, Node] = {}
        """What signals that a gate decides on have become, by name."""
        self._outside = OutsideInputs(hub)

    def run(self, *, until: str | None = None, start: str | None = None, keep_going: bool = False) -> list[Finished]:
        """Make, or find, every artifact of the plan.

        Args:
            keep_going: A stage that cannot go on stops only what needs its artifact; `failed` says which and why.

        Raises:
            ArtifactError: an input does not exist, or a step before `start` is not finished.
            StageError: a stage cannot go on.
            HubError: the endpoint failed; finished work waits in the work directory.
        """
        nodes, given = self.plan.select(until=until, start=start)
        self._check(needed(nodes, self.decided))
        while node := self._next(nodes):
            try:
                self._refuse_failed_inputs(node)
                if self.watch:
                    self.watch.begin(node)
                self.finished[node.name] = self._finish(node, must_exist=node.name in given)
            except (ArtifactError, StageError) as error:
                if not keep_going:
                    raise
                self.failed[node.name] = str(error).removeprefix(f"{node.name}: ")
                continue
            if self.watch:
                self.watch.end(self.finished[node.name])
        return [self.finished[node.name] for node in nodes if node.name in self.finished]

    def _check(self, nodes: list[Node]) -> None:
        """Before anything is made, so that a bad reference costs nothing.

        Raises:
            ErpdError: an input from elsewhere does not exist, or this machine lacks what a stage needs.
        """
        for node in nodes:
            self._resolve_outside(node)
            check_machine(node.name, node.config)
            self.launch.groups(node.config)

    def _next(self, nodes: list[Node]) -> Node | None:
        """The first artifact that is needed and not there yet; a gate that is there decides what is needed."""
        while True:
            over = self.finished.keys() | self.failed.keys()
            node = next((node for node in needed(nodes, self.decided) if node.name not in over), None)
            if node is None or not is_open(node) or gate_edge(node).source in self.failed:
                return node
            self.decided[node.name] = decide(node, self._strategies(node))
            self._check(needed(nodes, self.decided))

    def _strategies(self, node: Node) -> list[int]:
        """What the gate of an open signal says."""
        edge = gate_edge(node)
        origin = self._from_node(edge) if isinstance(edge.source, str) else self._outside.resolve(node.name, edge)
        assert origin is not None
        assert origin.origin is not None, "a gate is an artifact of ours"
        return list(origin.origin.metrics["strategies"])

    def _refuse_failed_inputs(self, node: Node) -> None:
        """Raises StageError: an input has failed."""
        if missing := next((edge.source for edge in node.inputs if edge.source in self.failed), None):
            raise StageError(f"{node.name}: {missing} has failed")

    def preview(self, nodes: list[Node]) -> dict[str, str]:
        """What would happen to each node: `reuse`, `push` (made, not pushed), `make`, `maybe: ...` (only under a choice
        that a gate has yet to make), `skip: ...` (a gate chose otherwise), or `unresolved: ...`."""
        verdicts = {node.name: self._foresee(node) for node in nodes}
        for name, choices in conditions(nodes, self.decided).items():
            if not choices:
                verdicts[name] = "skip: only needed by strategies that the gate has not chosen"
            elif verdicts[name] == "make":
                verdicts[name] = f"maybe: only for {' or '.join(choices)}"
        return verdicts

    def _foresee(self, node: Node) -> str:
        try:
            self._resolve_outside(node)
        except (ArtifactError, ConfigError, HubError) as error:
            return f"unresolved: {error}"
        if is_open(node) and (not isinstance(gate := gate_edge(node).source, str) or gate in self.finished):
            node = self.decided[node.name] = decide(node, self._strategies(node))
        if any(isinstance(e.source, str) and e.source not in self.finished for e in node.inputs):
            return "make"
        inputs, found = self._with_earlier(node, self._resolve_all(node))
        value = self._fingerprint(node, inputs)
        found = found or self._find(node, value, inputs)
        if found:
            self.finished[node.name] = found
        made = is_made(node, self._work(node, value))
        return "reuse" if found else "push" if made else "make"

    # ----------------------------------------------------------------------------------------- inputs

    def _resolve_outside(self, node: Node) -> list[ResolvedInput]:
        found = [self._outside.resolve(node.name, edge) for edge in node.inputs if not isinstance(edge.source, str)]
        return [item for item in found if item is not None]

    def _resolve_all(self, node: Node) -> list[ResolvedInput]:
        """In the order of the node's edges, which that of a tuple of inputs follows."""
        found = (
            self._from_node(edge) if isinstance(edge.source, str) else self._outside.resolve(node.name, edge)
            for edge in node.inputs
        )  # fmt: skip
        return [item for item in found if item is not None]

    def _from_node(self, edge: Edge) -> ResolvedInput:
        finished = self.finished[str(edge.source)]
        if edge.saved_step is None:
            sha, record = finished.revision, finished.record
        else:
            sha, record = finished.steps[edge.saved_step]
        return pinned(edge.role, record, sha, self.hub, repo_id=record.repo_id, folder=record.folder)

    # ----------------------------------------------------------------------------------- one artifact

    def _fingerprint(self, node: Node, inputs: list[ResolvedInput]) -> str:
        pairs = [(item.record.role, item.record.digest) for item in inputs]
        return fingerprint(node.config.stage, node.stage.version, inputs=pairs, identity=node.identity, seed=node.seed)

    def _with_earlier(self, node: Node, inputs: list[ResolvedInput]) -> tuple[list[ResolvedInput], Finished | None]:
        """Inputs with the evaluation that this one takes samples over from, and itself where it is there already."""
        if not isinstance(node.config, c.EvaluateConfig) or self._begun(node, inputs):
            return inputs, None
        found = relatives.find_relatives(self.hub, node, relatives.variants(self.hub, node, inputs, self._above))
        if (done := relatives.complete(found, node)) is not None:
            return inputs, Finished(node, done.record, done.sha, {}, reused=True, seconds=0.0, origins=_origins(inputs))
        choices = relatives.with_samples_of(found, self.hub, node, inputs)
        return next((choice for choice in choices if self._begun(node, choice)), [*choices, inputs][0]), None

    def _begun(self, node: Node, inputs: list[ResolvedInput]) -> bool:
        """What has been begun is gone on with, so that a killed evaluation ends as it would have."""
        return self._work(node, self._fingerprint(node, inputs)).exists()

    def _begun_otherwise(self, node: Node) -> list[relatives.Begun]:
        """What has been begun of an evaluation with another K."""
        return relatives.find_begun(self.hub, node, self._resolve_all(node), self._above, self._work)

    def _above(self, name: str) -> tuple[Node, list[ResolvedInput]]:
        return self.finished[name].node, self._resolve_all(self.finished[name].node)

    def _used_steps(self, node: Node) -> set[int | None]:
        """Saved steps of a node that the run needs; others may have been pruned. The last is the artifact itself."""
        edges = (edge for user in self.plan.nodes for edge in user.inputs if edge.source == node.name)
        return {*node.pushed_steps[-1:], *(edge.saved_step for edge in edges)}

    def _find(self, node: Node, value: str, inputs: list[ResolvedInput]) -> Finished | None:
        found = find_finished(self.hub, node.stage.repo_type, node.repo_id, node.folder, value)
        found = found or find_shared(self.hub, node, inputs, value)
        if found is None:
            return None
        sha, record = found
        steps = {}
        for step in node.pushed_steps:
            saved = (sha, record) if step == record.saved_step else find_saved_step(self.hub, record, step)
            if saved is not None:
                steps[step] = saved
            elif step in self._used_steps(node):
                return None
        return Finished(node, record, sha, steps, reused=True, seconds=0.0, origins=_origins(inputs))

    def _finish(self, node: Node, *, must_exist: bool) -> Finished:
        for smaller in relatives.to_finish_first(node, self._begun_otherwise(node)):
            self._finish(smaller, must_exist=False)
        inputs, there = self._with_earlier(node, self._resolve_all(node))
        if there is not None:
            return there
        value = self._fingerprint(node, inputs)
        work = self._work(node, value)
        if not work.exists() and (found := self._find(node, value, inputs)):
            return found
        if must_exist and not self._find(node, value, inputs):
            raise ArtifactError(f"{node.name}: not finished; run without --from, or from an earlier step")
        started = time.monotonic()
        with exclusive(work):
            # A run may have been killed between push and clean-up, or have finished while this one waited.
            self.hub.forget(node.stage.repo_type, node.repo_id)
            done = self._find(node, value, inputs) or self._make_and_push(node, inputs, value, work)
            shutil.rmtree(work, ignore_errors=True)
            lock_file(work).unlink(missing_ok=True)  # whoever waits for it finds the artifact on the Hub
        return done if done.reused else replace(done, seconds=time.monotonic() - started)

    def _work(self, node: Node, value: str) -> Path:
        """The work directory of an artifact at its place: equal artifacts of two runs have a record each."""
        return work_folder(f"{value}\n{self.hub.identity}\n{node.repo_id}\n{node.folder}{relatives.whose_server(node)}")

    def _make_and_push(self, node: Node, inputs: list[ResolvedInput], value: str, work: Path) -> Finished:
        begun = self._begun_otherwise(node)
        relatives.adopt_journals(work, begun)
        make(node, inputs, value, work, launch=self.launch, threads=self.plan.recipe.threads)
        try:
            record, sha, steps = push(self.hub, node, work / "out", command=self.plan.recipe.command)
        except HubError as error:
            raise HubError(f"{node.name}: {error}; the finished artifact is kept, the next run pushes it") from error
        for smaller in (one for one in begun if one.is_smaller):
            discard(smaller.work)  # all that it has drawn is in the new one
        return Finished(node, record, sha, steps, reused=False, seconds=0.0, origins=_origins(inputs))


def _origins(inputs: list[ResolvedInput]) -> dict[str, LineageRecord | None]:
    return {item.record.role: item.origin for item in inputs}
