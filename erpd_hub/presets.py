"""What a strategy says of its signal where the recipe does not: numerator and denominator, if the round has one choice.

Strategy 1 takes the round's only teacher; strategy 2 its only `unlearned` step and against it the teacher that starts
from there, or else the only one [P Fig. 3]. Strategy 3 is left to the recipe: which numerator the paper took is open
[U], and so is which of the earlier students.
"""

from collections.abc import Mapping
from typing import Any


def with_presets(steps: Mapping[str, Any]) -> dict[str, Any]:
    """The steps of a round, as they are written, with what each strategy fills in."""
    return {name: _filled(step, steps) if _stage(name, step) == "signal" else step for name, step in steps.items()}


def _filled(signal: Mapping[str, Any], steps: Mapping[str, Any]) -> dict[str, Any]:
    teachers, unlearned = _of_stage(steps, "teacher"), _of_stage(steps, "unlearned")
    strategy, found = signal.get("strategy"), {}
    if strategy == 2 and len(unlearned) == 1:
        found["denominator"] = unlearned[0]
        recovered = [name for name in teachers if steps[name].get("init") == unlearned[0]]
        teachers = recovered if len(recovered) == 1 else teachers
    if strategy in (1, 2) and len(teachers) == 1:
        found["numerator"] = teachers[0]
    return {**found, **signal}


def _of_stage(steps: Mapping[str, Any], stage: str) -> list[str]:
    return [name for name, step in steps.items() if _stage(name, step) == stage]


def _stage(name: str, step: Any) -> Any:
    return step.get("stage", name) if isinstance(step, Mapping) else None
