"""How a checkpoint is asked: the format of the problems that it was trained on, told by the lineage above it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from erpd_hub.checkpoint_role import weight_roles
from erpd_hub.config import TINY_FORMAT, Decoding, PromptFormat
from erpd_hub.fields import Config
from erpd_hub.lineage import Ancestor, Place

Model = TypeVar("Model", bound=Config)

_DIGITS = ("37284", "45163")


class Asked(NamedTuple):
    """How problems become prompts for a checkpoint, and what becomes of its responses."""

    format: PromptFormat
    decoding: Decoding
    reward: str
    """What graded the responses, as a rollout's config names it."""
    place: Place | None
    """The artifact that says so; None for a tiny base, whose training does."""
    problem: str | None
    """One to ask; None where `place` is a prompt set, which has them."""


def asked_of(checkpoint: Ancestor) -> Asked | None:
    """How a checkpoint is asked; None where nothing above it says so, as of weights from elsewhere."""
    here: Ancestor | None = checkpoint
    seen: set[int] = set()
    while here is not None and here.record is not None and id(here) not in seen:
        seen.add(id(here))
        above = dict(here.inputs)
        if (rollouts := above.get("rollouts")) is not None:
            return _of_rollouts(rollouts)
        if (prompts := above.get("prompts")) is not None:  # of on-policy training
            return _of_prompts(prompts, here.record.config)
        if here.record.stage == "base":
            return _of_tiny(here.record.config)
        here = next((above[role] for role in weight_roles(here.record.metrics) if role in above), None)
    return None


def _of_rollouts(rollouts: Ancestor) -> Asked | None:
    if rollouts.record is None:
        return None
    config = rollouts.record.config
    prompts = dict(rollouts.inputs).get("prompts")
    if prompts is not None:
        return _of_prompts(prompts, config)
    format = _read(PromptFormat, config.get("prompt_format"))
    decoding = _read(Decoding, config.get("decoding")) or Decoding()
    return Asked(format, decoding, "math", rollouts.place, "What is 17 + 25?") if format else None


def _of_prompts(prompts: Ancestor, drawn: Mapping[str, Any]) -> Asked | None:
    """`drawn`: the config of what drew the responses."""
    format = _read(PromptFormat, prompts.record.config.get("format")) if prompts.record else None
    decoding = _read(Decoding, drawn.get("decoding"))
    reward = str(drawn.get("reward", "math"))
    return Asked(format, decoding, reward, prompts.place, None) if format and decoding else None


def _of_tiny(config: Mapping[str, Any]) -> Asked | None:
    if config.get("type") != "tiny" or config.get("max_digits") not in range(1, len(_DIGITS[0]) + 1):
        return None
    a, b = (digits[: config["max_digits"]] for digits in _DIGITS)
    problems = {"chain": f"{a}+{b}x{config.get('chain_steps')}", "program": f"{a}x+{b}"}
    task = config.get("task")
    problem, reward = problems.get(str(task), f"{a}+{b}"), "unit_tests" if task == "program" else "math"
    return Asked(TINY_FORMAT, Decoding(max_new_tokens=256), reward, None, problem)


def _read(model: type[Model], value: object) -> Model | None:
    """A part of a record's config; None for what is no such thing, since a record may be anybody's."""
    try:
        return model.model_validate(value)
    except ValidationError:
        return None
