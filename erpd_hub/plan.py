"""From a recipe to a plan: every artifact the run makes, in order, with its inputs resolved to other artifacts.

What a recipe leaves implicit becomes explicit here:

* `policy` and `base` become steps;
* every checkpoint whose log-probs something needs gets one `score` step per rollouts artifact, shared by all users;
* `probe` and `evaluate` become one artifact per checkpoint (and benchmark), in folders of one repository;
* a step with `extend_to` becomes the step without it and its extension, which is what other steps then mean by it;
* an evaluation with a judge becomes the evaluation without it and a judged copy;
* a local path in the place of a checkpoint becomes an import.
"""

from collections.abc import Iterator
from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.benchmarks import get_benchmark
from erpd_hub.extending import extended
from erpd_hub.fields import identity, roles
from erpd_hub.judging import judged
from erpd_hub.meaning import (
    Meaning,
    check_numerics,
    check_saved_step,
    extension_suffix,
    import_name,
    one_evaluation,
)
from erpd_hub.nodes import Edge, Node, Plan
from erpd_hub.places import refuse_long_names, refuse_shared_places, with_pushed_steps
from erpd_hub.plugins import code_identity
from erpd_hub.recipe_files import suggestion
from erpd_hub.recipe_model import Recipe
from erpd_hub.references import PathRef, ReservedRef, StepRef, parse_reference
from erpd_hub.selection import choose
from erpd_hub.stages import STAGES
from erpd_hub.unwritten import compared_evaluation, score_name
from erpd_hub.wiring import UsesLogprobs, benchmark_edges, compares, scored_roles, unused_roles

_CHECKPOINT = ("checkpoint",)


def make_plan(recipe: Recipe) -> Plan:
    """Resolve a recipe.

    Raises:
        ConfigError: a reference to nothing, to the wrong kind of artifact, to a step that is not saved, or in a circle;
            a function of the user's that is not there.
    """
    for name in recipe.selection:
        get_benchmark(name, recipe.benchmarks)  # a name that is none would mark nothing
    planner = _Planner(recipe)
    for number, round_ in enumerate(recipe.rounds, 1):
        for name in round_.steps:
            planner.place(number, name)
    for node in planner.nodes.values():
        code_identity(node.config)  # a function that is not there would be found out by its stage, after all before it
    nodes = with_pushed_steps(list(planner.nodes.values()))
    refuse_shared_places(nodes)
    refuse_long_names(nodes)
    return Plan(recipe, tuple(nodes))


class _Planner:
    """Places steps in dependency order; a step is placed when everything it refers to has been."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.meaning = Meaning(recipe)
        self.nodes: dict[str, Node] = {}
        self.open: list[str] = []
        self.placed: set[str] = set()

    def place(self, number: int, step: str) -> None:
        """Add a step of the recipe and, before it, what it needs."""
        name = f"r{number}/{step}"
        if name in self.nodes or name in self.placed:
            return
        if name in self.open:
            circle = " -> ".join([*self.open[self.open.index(name) :], name])
            raise ConfigError(f"{self.recipe.origin}: steps refer to each other in a circle: {circle}")
        self.open.append(name)
        config = self.recipe.rounds[number - 1].steps[step]
        for node in self._expand(number, step, config):
            self.nodes[node.name] = node
        self.open.pop()
        self.placed.add(name)

    def _expand(self, number: int, step: str, config: c.StepConfig) -> Iterator[Node]:
        if isinstance(config, c.ProbeConfig):
            for checkpoint in config.checkpoints:
                single = config.model_copy(update={"checkpoints": (checkpoint,)})
                yield self._node(number, step, single, folder=self.meaning.folder(checkpoint))
        elif isinstance(config, c.EvaluateConfig):
            for name in config.benchmarks:
                for checkpoint in config.checkpoints:
                    folder = f"{self.meaning.details_folder(number, checkpoint)}/{name}"
                    plain = one_evaluation(config, checkpoint, name).model_copy(update={"judge": None})
                    *_, details = sampled = list(self._sampled(number, step, plain, folder))
                    yield from sampled
                    yield from judged(details, config)
        elif isinstance(config, c.SelectConfig):
            yield self._node(number, step, self.meaning.with_candidates(number, step, config))
        elif isinstance(config, c.UnlearnedConfig):
            candidates = self.meaning.kept_steps(number, step, config.candidates)
            yield self._node(number, step, config.model_copy(update={"candidates": candidates}))
        elif isinstance(config, c.RolloutConfig):
            yield from self._sampled(number, step, config)
        elif isinstance(config, c.JudgeConfig):
            raise ConfigError(f"r{number}/{step}: expected a judge as a key of an evaluation, got a step; write it as "
                              f"evaluate.judge: {{model: {config.judge.model}, url: ...}}")  # fmt: skip
        else:
            yield self._node(number, step, config)

    def _sampled(
        self, number: int, step: str, config: c.RolloutConfig | c.EvaluateConfig, folder: str = ""
    ) -> Iterator[Node]:
        """One node; with `extend_to` two: the step without it, which may have been made before, and its extension."""
        plain = self._node(number, step, config.model_copy(update={"extend_to": None}), folder)
        yield plain
        if config.extend_to is not None:
            yield extended(plain, config, self.recipe.rounds[number - 1].steps)

    def _node(self, number: int, step: str, config: c.StepConfig, folder: str = "") -> Node:
        inputs = tuple(self._edges(number, f"r{number}/{step}", config))
        suffix = "details" if isinstance(config, c.EvaluateConfig) else f"r{number}-{step}"
        return Node(
            name=f"r{number}/{step}" + (f"/{folder}" if folder else ""),
            round=number,
            step=step,
            config=config,
            seed=self.meaning.fresh_seed(number, config, self.meaning.seed(config)),
            inputs=inputs,
            run=self.recipe.run,
            repo_id=f"{self.recipe.namespace}/{self.recipe.run}-{suffix}",
            folder=folder,
        )

    # ------------------------------------------------------------------------------------------ inputs

    def _edges(self, number: int, place: str, config: c.StepConfig) -> Iterator[Edge]:
        """The inputs a stage is called with, from the references of its config."""
        for role, mark in roles(config).items():
            value = getattr(config, role)
            if value is None and isinstance(config, c.DistillConfig) and role in ("old", "anchor"):
                value = self.meaning.clipped_to(number, config)
            values = value if isinstance(value, tuple) else (value,)
            if role in unused_roles(config):
                continue
            for place_among, text in enumerate(values):
                if text is None or text == "none":
                    if role not in ("numerator", "denominator", "signal", "critic"):
                        raise ConfigError(f"{place}.{role}: expected a {mark.kinds[0]}, got none")
                    continue
                where = f"{place}.{role}"
                edge = self._resolve(number, where, role, mark.kinds, text)
                if isinstance(config, UsesLogprobs) and role in scored_roles(config):
                    edge = self._scored(number, where, config, edge, text)
                elif isinstance(config, c.GateConfig):
                    edge = self._evaluated(number, place, config, edge, text)
                elif role == "candidates":  # their order matters, so it is part of the fingerprint
                    edge = replace(edge, role=f"{role}:{place_among}")
                elif isinstance(config, c.CodePrompts) and role == "dataset":
                    edge = replace(edge, files=config.files)
                yield edge
        if isinstance(config, c.SignalConfig):
            yield from self._choice_edges(number, place, config)
        yield from benchmark_edges(config)
        if compares(config):
            check_numerics(self.recipe.scoring, place, config)

    def _resolve(self, number: int, where: str, role: str, kinds: tuple[str, ...], text: str) -> Edge:
        reference = parse_reference(text)
        if isinstance(reference, ReservedRef):
            reference = self.meaning.meant(number, where, reference)
        if isinstance(reference, StepRef):
            return self._step(number, where, role, kinds, reference)
        if isinstance(reference, PathRef) and kinds == ("checkpoint",):
            return self._imported(number, role, kinds, reference)
        if isinstance(reference, PathRef) and kinds != ("external",):
            raise ConfigError(
                f"{where}: expected a {kinds[0]} artifact, got the path {text}; import it as a step first"
            )
        assert not isinstance(reference, ReservedRef), "`none` names nothing"
        return Edge(role, kinds, reference)

    def _step(self, number: int, where: str, role: str, kinds: tuple[str, ...], reference: StepRef) -> Edge:
        at = reference.round or number
        steps = self.recipe.rounds[at - 1].steps if at <= len(self.recipe.rounds) else {}
        if reference.name not in steps:
            raise ConfigError(
                f"{where}: {reference}: no such step in round {at}{suggestion(reference.name, list(steps))}"
            )
        config = steps[reference.name]
        kind = STAGES[config.stage].kind
        if kind not in kinds:
            raise ConfigError(f"{where}: expected {' or '.join(kinds)}, got {reference}, which makes {kind}")
        check_saved_step(where, reference, config)
        self.place(at, reference.name)
        return Edge(role, kinds, f"r{at}/{reference.name}{extension_suffix(config)}", reference.step)

    def _imported(self, number: int, role: str, kinds: tuple[str, ...], reference: PathRef) -> Edge:
        step = import_name(reference)
        name = f"r{number}/{step}"
        config = c.ImportBase(type="import", source=reference.path)
        if self.nodes.setdefault(name, self._node(number, step, config)).config != config:
            raise ConfigError(f"{name}: two paths end in the same name; import {reference} as a base step of its own")
        return Edge(role, kinds, name)

    def _scored(self, number: int, where: str, user: UsesLogprobs, checkpoint: Edge, text: str) -> Edge:
        """The log-probs of a checkpoint on the user's rollouts: the recipe's own `score` step if it has one."""
        rollouts = self._resolve(number, where, "rollouts", ("rollouts",), user.rollouts)
        inputs = (rollouts, replace(checkpoint, role="checkpoint"))
        config = c.ScoreConfig(rollouts=user.rollouts, checkpoint=text, **self.recipe.scoring.model_dump())
        for name, step_config in self.recipe.rounds[number - 1].steps.items():
            if isinstance(step_config, c.ScoreConfig) and step_config == config:
                self.place(number, name)
        for node in self.nodes.values():
            same = isinstance(node.config, c.ScoreConfig) and identity(node.config) == identity(config)
            if same and set(node.inputs) == set(inputs):
                return Edge(checkpoint.role, ("logprobs",), node.name)
        step = score_name(self.recipe, number, checkpoint, rollouts)
        if f"r{number}/{step}" in self.nodes or step in self.recipe.rounds[number - 1].steps:
            raise ConfigError(f"{where}: the name {step} is taken; write a score step of your own for {text}")
        node = replace(self._node(number, step, config), inputs=inputs)
        self.nodes[node.name] = node
        return Edge(checkpoint.role, ("logprobs",), node.name)

    def _choice_edges(self, number: int, place: str, config: c.SignalConfig) -> Iterator[Edge]:
        """What each choice of a signal that a gate decides on would be made of."""
        if config.gate is not None:
            self._check_offer(number, place, config, config.gate)
        for strategy, choice in config.choices.items():
            for role, text in (("numerator", choice.numerator), ("denominator", choice.denominator)):
                where = f"{place}.choices.{strategy}.{role}"
                edge = self._scored(number, where, config, self._resolve(number, where, role, _CHECKPOINT, text), text)
                yield replace(edge, choice=strategy)

    def _check_offer(self, number: int, place: str, config: c.SignalConfig, gate: str) -> None:
        """Refuse, before anything runs, a signal that offers none of the strategies of its gate."""
        node = self.nodes.get(str(self._resolve(number, f"{place}.gate", "gate", ("gate",), gate).source))
        if node is not None and isinstance(node.config, c.GateConfig):
            choose(node.config.otherwise, tuple(config.choices), where=place)

    def _evaluated(self, number: int, place: str, gate: c.GateConfig, checkpoint: Edge, text: str) -> Edge:
        """The samples of a checkpoint that a gate compares."""
        at, step, config, folder = compared_evaluation(self.meaning, number, place, gate, text)
        node = self._node(at, step, config, f"{folder}/{gate.benchmark}")
        self.nodes.setdefault(node.name, node)
        return Edge(checkpoint.role, ("details",), node.name)
