"""`key=value` on the command line: where in a recipe's mapping it belongs."""

import re
from typing import Any

from erpd_hub.errors import ConfigError
from erpd_hub.recipe_files import parse_value, suggestion
from erpd_hub.recipe_model import Recipe


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set `a.b.c=value`; a first part that is the name of a step of the only round means that step.

    Raises:
        ConfigError: it is no `key=value`, or has no place in the recipe.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"{override!r}: expected key=value, such as seed=1 or teacher.loss.beta=0.5")
    steps, parts = _override_target(data, parts)
    target: Any = steps
    for index, part in enumerate(parts[:-1]):
        if isinstance(target, list) and part.isdigit() and int(part) < len(target):
            target = target[int(part)]
        elif isinstance(target, dict):
            target = target.setdefault(part, {})
        else:
            raise ConfigError(f"{override!r}: {'.'.join(parts[: index + 1])} is not a mapping")
    if not isinstance(target, dict):
        raise ConfigError(f"{override!r}: {'.'.join(parts[:-1])} is not a mapping")
    target[parts[-1]] = parse_value(text, repr(override))


def _override_target(data: dict[str, Any], parts: list[str]) -> tuple[Any, list[str]]:
    """Where an override starts: `rK/step.key` in round K, `step.key` in the only round, anything else at the top."""
    if match := re.fullmatch(r"r([1-9]\d*)/(.+)", parts[0]):
        rounds = data["rounds"] if isinstance(data.get("rounds"), list) else [data]
        number = int(match[1])
        if number > len(rounds):
            raise ConfigError(f"{parts[0]}: the recipe has {len(rounds)} round(s)")
        return _steps(rounds[number - 1], f"round {number}"), [match[2], *parts[1:]]
    if parts[0] in Recipe.model_fields or parts[0] == "steps" or len(parts) == 1:
        return data, parts
    steps = _steps(data, "the recipe") if data.get("steps") else {}
    if parts[0] in steps:
        return steps, parts
    rounds = data["rounds"] if isinstance(data.get("rounds"), list) else []
    having = [f"r{number}/{parts[0]}" for number, one in enumerate(rounds, 1)
              if parts[0] in _steps(one, f"round {number}")]  # fmt: skip
    if having:
        raise ConfigError(f"{'.'.join(parts)}: {parts[0]} is a step of rounds; say of which: {', '.join(having)}")
    raise ConfigError(f"{'.'.join(parts)}: {parts[0]!r} is neither a key of the recipe nor a step"
                      f"{suggestion(parts[0], list(steps))}")  # fmt: skip


def _steps(part: Any, name: str) -> dict[str, Any]:
    """Of a round, or of a recipe without rounds. Raises ConfigError: it has none."""
    steps = part.get("steps") if isinstance(part, dict) else None
    if not isinstance(steps, dict):
        raise ConfigError(f"{name}: expected steps, by name, got {steps if isinstance(part, dict) else part!r}")
    return steps
