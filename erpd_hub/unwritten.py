"""What a plan needs and a recipe need not write: the name of a checkpoint's log-probs, the evaluations a gate compares.

Where the recipe has a step that makes the same, it is that one.
"""

from collections.abc import Iterator
from typing import NamedTuple

from erpd_hub import config as c
from erpd_hub.fields import identity
from erpd_hub.meaning import Meaning, extension_suffix, one_evaluation
from erpd_hub.names import REPO_CHARACTERS, shortened, slug
from erpd_hub.nodes import Edge
from erpd_hub.recipe_model import Recipe
from erpd_hub.references import parse_reference


class Evaluation(NamedTuple):
    """The samples of one checkpoint on one benchmark, as a part of a step."""

    round: int
    step: str
    config: c.EvaluateConfig
    folder: str


def compared_evaluation(meaning: Meaning, number: int, place: str, gate: c.GateConfig, checkpoint: str) -> Evaluation:
    """The samples of a checkpoint that a gate compares: the recipe's own evaluation where that is the same."""
    shared = ("engine", "limit", "seed", "python", "definitions")
    wanted = c.EvaluateConfig(
        checkpoints=(checkpoint,), benchmarks=(gate.benchmark,), k=gate.k, decoding=gate.decoding,
        **{name: getattr(gate, name) for name in shared},
    )  # fmt: skip
    wanted = one_evaluation(wanted, checkpoint, gate.benchmark)
    step = place.partition("/")[2]
    found = Evaluation(number, step, wanted, f"{step}--{meaning.details_folder(number, checkpoint)}")
    target = meaning.meant(number, place, parse_reference(checkpoint))
    for there, name, evaluate in _evaluations(meaning.recipe, gate.benchmark):
        for other in evaluate.checkpoints:
            single = one_evaluation(evaluate, other, gate.benchmark)
            alike = identity(single) == identity(wanted) and meaning.seed(single) == meaning.seed(wanted)
            if alike and meaning.meant(there, place, parse_reference(other)) == target:
                found = Evaluation(there, name, single, meaning.details_folder(there, other))
    return found


def _evaluations(recipe: Recipe, benchmark: str) -> Iterator[tuple[int, str, c.EvaluateConfig]]:
    """The evaluate steps of the recipe that have the benchmark, without what they extend."""
    for number, round_ in enumerate(recipe.rounds, 1):
        for name, config in round_.steps.items():
            if isinstance(config, c.EvaluateConfig) and benchmark in config.benchmarks:
                yield number, name, config.model_copy(update={"extend_to": None, "judge": None})


def score_name(recipe: Recipe, number: int, checkpoint: Edge, rollouts: Edge) -> str:
    """`score-teacher-step-8`; with the rollouts' name unless they are the only ones of the round."""
    steps = recipe.rounds[number - 1].steps.items()
    made = [f"r{number}/{name}{extension_suffix(step)}" for name, step in steps if step.stage == "rollout"]
    parts = [] if [rollouts.source] == made else [slug(str(rollouts.source))]
    source = str(checkpoint.source).removeprefix(f"r{number}/")
    parts.append(slug(source) + (f"-step-{checkpoint.saved_step}" if checkpoint.saved_step else ""))
    room = REPO_CHARACTERS - len(f"{recipe.namespace}/{recipe.run}-r{number}-")
    return shortened("-".join(["score", *parts]), room)
