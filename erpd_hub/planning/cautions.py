"""What in a plan is allowed and will most likely disappoint, said before anything starts. Pure; looks at no Hub."""

from collections.abc import Iterator

from erpd_hub import config as c
from erpd_hub.nodes import Node, Plan

ROUNDS_AWAY = 1e-5
"""Learning rate below which weights saved in bfloat16 lose too much of what the training did. Weights N(0, 0.02) on the
bfloat16 grid after ten steps of 1e-6, all one way: 16 % of them have moved at all, and the saved update has a cosine of
0.38 with the true one, after 32 steps 0.71 [I, computed]; of a trained tiny policy see docs/benchmarks.md."""


def cautions(plan: Plan) -> list[str]:
    """A sentence each: `<step>.<key>: expected <what>, got <value>; <what to do>`."""
    return [*_rounded_away(plan), *_other_temperature(plan), *_evolving_from(plan), *_between_itself(plan)]


def _rounded_away(plan: Plan) -> Iterator[str]:
    """Trainings whose saved weights something goes on from, or is compared with, and that are rounded too far."""
    for node in plan.nodes:
        config = node.config
        if not isinstance(config, c.TrainingConfig) or config.lora is not None:
            continue
        if config.push_dtype != "bfloat16" or config.learning_rate >= ROUNDS_AWAY:
            continue
        if users := sorted({user.name for user in _users(plan, node)}):
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            yield (
                f"{node.name}.push_dtype: expected float32 at the learning rate {config.learning_rate:g} for weights "
                f"that are input to {users[0]}{more}, got bfloat16, which rounds most of it away; leave it out"
            )


def _users(plan: Plan, node: Node) -> Iterator[Node]:
    """What takes a checkpoint as a policy to train, to score or to sample a batch from; a copy passes it on."""
    for user in plan.nodes:
        if not any(edge.source == node.name for edge in user.inputs):
            continue
        if isinstance(user.config, c.UnlearnedConfig | c.SelectConfig):
            yield from _users(plan, user)
        elif isinstance(user.config, c.TrainingConfig | c.ScoreConfig | c.RolloutConfig):
            yield user


def _evolving_from(plan: Plan) -> Iterator[str]:
    """Signals whose denominator is to be the student as it is, and that have no numerator or another denominator."""
    for node in plan.nodes:
        if not isinstance(node.config, c.DistillConfig) or node.config.denominator != "evolving":
            continue
        source = next((edge.source for edge in node.inputs if edge.role == "signal"), None)
        signal = plan.node(source).config if isinstance(source, str) else None
        if not isinstance(signal, c.SignalConfig):
            continue
        if signal.numerator == "none":
            yield (
                f"{node.name}.denominator: expected fixed for {source}, which has no numerator, got evolving: it will "
                "stop there; give the signal a numerator"
            )
        elif signal.denominator != "policy":
            yield (
                f"{node.name}.denominator: expected fixed for {source}, got evolving, which takes the student in place "
                f"of {signal.denominator}: that is scored for nothing; leave it out"
            )


def _between_itself(plan: Plan) -> Iterator[str]:
    """Signals of one checkpoint under two names, such as a run's last step and its number."""
    for node in plan.nodes:
        if not isinstance(node.config, c.SignalConfig):
            continue
        sides = [
            _checkpoint(plan, plan.node(edge.source))
            for edge in node.inputs
            if edge.role in ("numerator", "denominator") and edge.choice is None and isinstance(edge.source, str)
        ]
        if len(sides) == 2 and sides[0] is not None and sides[0] == sides[1]:
            yield (
                f"{node.name}.denominator: expected another checkpoint than the numerator, got "
                f"{node.config.denominator} and {node.config.numerator}, which are one: the signal is zero; take "
                "another step of it"
            )


def _checkpoint(plan: Plan, score: Node) -> tuple[str, int | None] | None:
    """The step of the plan whose weights are scored, and which of its saved ones; the last has no number. None where
    that is outside the plan, or chosen when it runs."""
    edge = next((edge for edge in score.inputs if edge.role == "checkpoint"), None)
    while edge is not None and isinstance(edge.source, str):
        made = plan.node(edge.source)
        if not isinstance(made.config, c.UnlearnedConfig):
            last = getattr(made.config, "steps", None)
            return made.name, None if edge.saved_step == last else edge.saved_step
        edge = next((edge for edge in made.inputs if edge.role == "teacher"), None)  # a copy; a picker has several
    return None


def _other_temperature(plan: Plan) -> Iterator[str]:
    """Log-probs at another temperature than their rollouts were drawn at, each pair once."""
    said = set()
    for node in plan.nodes:
        if not isinstance(node.config, c.ScoreConfig):
            continue
        source = next((edge.source for edge in node.inputs if edge.role == "rollouts"), None)
        drawn = plan.node(source).config if isinstance(source, str) else None
        decoding = drawn.decoding if isinstance(drawn, c.RolloutConfig | c.ImportedRollouts) else None
        if decoding is None or (source, node.config.logprob_temperature) in said:
            continue
        if message := node.config.other_temperature(decoding.temperature):
            said.add((source, node.config.logprob_temperature))
            yield f"{source}: {message}"
