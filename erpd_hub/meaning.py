"""What the words of a recipe mean: references by the round they stand in, and values that it leaves to others.

`erpd_hub.plan` makes artifacts of it. Nothing here looks at a Hub.
"""

from dataclasses import replace
from pathlib import PurePath

from erpd_hub import config as c
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.benchmarks import get_benchmark
from erpd_hub.names import slug
from erpd_hub.recipe_model import Recipe, Scoring
from erpd_hub.references import EndpointRef, PathRef, Reference, RepoRef, ReservedRef, StepRef, parse_reference
from erpd_hub.selection import final_seed

_BASE = ReservedRef("base")


class Meaning:
    """Of the words of one recipe. Every method raises ConfigError where a word means nothing."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @staticmethod
    def folder(checkpoint: str) -> str:
        """A folder name for a reference; of a path no more than the name of its import."""
        if isinstance(reference := parse_reference(checkpoint), PathRef):
            return import_name(reference)
        if isinstance(reference, EndpointRef):
            return reference.folder
        return checkpoint.replace("/", "--")

    def details_folder(self, number: int, checkpoint: str) -> str:
        """All rounds share the details repository, so a step's folder says its round where there are several."""
        reference = parse_reference(checkpoint)
        says_where = isinstance(reference, RepoRef | EndpointRef) or getattr(reference, "round", None) is not None
        several = len(self.recipe.rounds) > 1
        return f"r{number}--{self.folder(checkpoint)}" if several and not says_where else self.folder(checkpoint)

    def clipped_to(self, number: int, config: c.DistillConfig) -> str:
        """What a student's clip and KL are relative to: its signal's `old`, as this round has to write it."""
        reference = parse_reference(config.signal) if config.signal else None
        if not isinstance(reference, StepRef):
            return "policy"
        at = reference.round or number
        steps = self.recipe.rounds[at - 1].steps if at <= len(self.recipe.rounds) else {}
        signal = steps.get(reference.name)
        if not isinstance(signal, c.SignalConfig):
            return "policy"
        old = parse_reference(signal.old)
        return str(self.meant(at, f"r{at}/{reference.name}.old", old)) if at != number else signal.old

    def meant(self, number: int, where: str, reference: Reference) -> Reference:
        """What a reference in a round names: a step with its round, a repository or a path."""
        if isinstance(reference, StepRef):
            return replace(reference, round=reference.round or number)
        if not isinstance(reference, ReservedRef) or reference.word == "none":
            return reference
        if reference.word == "base" and "base" in self.recipe.rounds[0].steps:
            return StepRef("base", 1)
        if reference.word == "base":
            bases = [n for n, step in self.recipe.rounds[0].steps.items() if step.stage == "base"]
            if len(bases) == 1:
                return StepRef(bases[0], 1)
            raise ConfigError(f"{where}: expected a step named base in the first round, found {bases or 'none'}")
        policy = self.recipe.rounds[number - 1].policy
        if policy == "policy":
            raise ConfigError(f"{where}: policy: expected a checkpoint, got itself")
        if policy is not None:
            return self.meant(number, where, parse_reference(policy))
        return StepRef(self._student(number - 1, where), number - 1) if number > 1 else self.meant(1, where, _BASE)

    def _student(self, number: int, where: str) -> str:
        """The student of a round, from which the next one starts."""
        steps = self.recipe.rounds[number - 1].steps.items()
        students = [
            n for n, s in steps if isinstance(s, c.DistillConfig) and s.advantage != "outcome" and s.control_of is None
        ]
        if len(students) != 1:
            found = ", ".join(students) or "none"
            raise ConfigError(
                f"{where}: expected one student in round {number} to start from, found {found}; "
                f"set rounds.{number}.policy"
            )
        return students[0]

    def with_candidates(self, number: int, step: str, config: c.SelectConfig) -> c.SelectConfig:
        """With all that a selection is resolved to: every kept step where a training stands by itself."""
        candidates = self.kept_steps(number, step, config.candidates)
        if len(candidates) < 2:
            raise ConfigError(f"r{number}/{step}.candidates: expected at least two checkpoints, or a training with "
                              f"save_steps, got {', '.join(candidates)}")  # fmt: skip
        benchmark = get_benchmark(config.benchmark, config.definitions)
        if benchmark.grader != "math":
            raise ConfigError(f"r{number}/{step}.benchmark: expected one that compares answers, got {benchmark.name}")
        decoding = benchmark.decoding.changed(config.decoding)
        resolved = {"final_k": config.final_k or benchmark.k, "decoding": decoding}
        return config.model_copy(update={"candidates": candidates, **resolved})

    def kept_steps(self, number: int, step: str, candidates: tuple[str, ...]) -> tuple[str, ...]:
        """Every kept step, where the one candidate is a training; else what is there."""
        if len(candidates) != 1:
            return candidates
        reference = self.meant(number, f"r{number}/{step}.candidates", parse_reference(candidates[0]))
        if not isinstance(reference, StepRef) or reference.step is not None:
            return candidates
        at = reference.round or number
        training = self.recipe.rounds[at - 1].steps.get(reference.name) if at <= len(self.recipe.rounds) else None
        if not isinstance(training, c.TrainingConfig):
            return candidates
        return tuple(f"{candidates[0]}@step-{kept}" for kept in training.kept_steps)

    def seed(self, config: c.StepConfig) -> int:
        return self.recipe.seed if config.seed is None else config.seed

    def fresh_seed(self, number: int, config: c.StepConfig, seed: int) -> int:
        """That of an evaluation: a selected checkpoint gets other samples than it was selected by."""
        if not isinstance(config, c.EvaluateConfig):
            return seed
        reference = self.meant(number, f"r{number}/evaluate", parse_reference(config.checkpoints[0]))
        if not isinstance(reference, StepRef) or reference.round is None:
            return seed
        steps = self.recipe.rounds[reference.round - 1].steps if reference.round <= len(self.recipe.rounds) else {}
        chosen = steps.get(reference.name)
        selected = isinstance(chosen, c.SelectConfig) and chosen.benchmark == config.benchmarks[0]
        return final_seed(seed) if selected else seed


def one_evaluation(config: c.EvaluateConfig, checkpoint: str, name: str) -> c.EvaluateConfig:
    """The part of an evaluation that is one artifact, with what the benchmark says where the recipe does not."""
    benchmark = get_benchmark(name, config.definitions)
    resolved = {"k": config.k or benchmark.k, "decoding": benchmark.decoding.changed(config.decoding)}
    resolved["definitions"] = {own: entry for own, entry in config.definitions.items() if own == name}
    return config.model_copy(update={"checkpoints": (checkpoint,), "benchmarks": (name,), **resolved})


def extension_suffix(config: c.StepConfig) -> str:
    """What the extension of a step is named beyond it; nothing for a step without one."""
    to = config.extend_to if isinstance(config, c.RolloutConfig | c.EvaluateConfig) else None
    return "" if to is None else f"-to-{to}"


def import_name(reference: PathRef) -> str:
    return "import-" + slug(PurePath(reference.path).name)


def check_saved_step(where: str, reference: StepRef, config: c.StepConfig) -> None:
    if reference.step is None:
        return
    kept = config.kept_steps if isinstance(config, c.TrainingConfig) else ()
    if reference.step not in kept:
        saved = ", ".join(map(str, kept)) or "no steps"
        raise ConfigError(f"{where}: {reference}: {reference.name} saves {saved}; add it to its save_steps")


def check_numerics(scoring: Scoring, place: str, config: c.StepConfig) -> None:
    """Refuse a training that computes log-probs otherwise than those it is compared with were scored."""
    for name in ("dtype", "logprob_temperature", "attn_implementation"):
        scored, own = getattr(scoring, name), getattr(config, name)
        if own != scored:
            raise ConfigError(
                f"{place}.{name}: expected {scored} as in scoring, got {own}: the two may differ by more than the "
                f"clip range; set scoring.{name}, which every step takes over"
            )
