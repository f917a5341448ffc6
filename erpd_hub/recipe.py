"""Recipes: one YAML file of named steps, read, overridden and checked before anything heavy is imported.

A recipe has `run`, `namespace`, `seed`, `hub` and either `steps` (one round) or `rounds`, each with its `steps`.
A step is `NAME: {stage: ..., <role>: REFERENCE, ...config}`; `stage` defaults to the name.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from erpd_hub import config as c
from erpd_hub.benchmark_files import own_benchmarks, with_definitions
from erpd_hub.config.benchmarks import BenchmarkEntry
from erpd_hub.controls import with_controls
from erpd_hub.errors import ConfigError
from erpd_hub.overrides import apply_override
from erpd_hub.presets import with_presets
from erpd_hub.public import run_command
from erpd_hub.recipe_files import merge, read_files, suggestion
from erpd_hub.recipe_model import SHARED_NUMERICS, Recipe, Round, Scoring
from erpd_hub.references import NAME, RESERVED
from erpd_hub.refusals import check_part

STEP_TYPES: dict[str, type[c.StepConfig] | dict[str, type[c.StepConfig]]] = {
    "base": {"tiny": c.TinyBase, "import": c.ImportBase},
    "prompts": {
        "generator": c.GeneratedPrompts,
        "jsonl": c.JsonlPrompts,
        "hub": c.HubPrompts,
        "code": c.CodePrompts,
    },
    "rollout": {"sample": c.RolloutConfig, "import": c.ImportedRollouts},
    "score": c.ScoreConfig,
    "critic": c.CriticConfig,
    "teacher": c.TeacherConfig,
    "unlearned": c.UnlearnedConfig,
    "signal": c.SignalConfig,
    "distill": c.DistillConfig,
    "online": c.OnlineConfig,
    "probe": c.ProbeConfig,
    "evaluate": c.EvaluateConfig,
    "judge": c.JudgeConfig,
    "gate": c.GateConfig,
    "select": c.SelectConfig,
}
DEFAULT_TYPES = {"rollout": "sample"}
"""What a step of several types is when it does not say."""


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name or a file by path, apply `key=value` overrides, check everything.

    Raises:
        ConfigError: no such recipe, not YAML, or any key, type, value or combination that does not fit.
    """
    origin, data = read_recipe(name_or_path, overrides)
    return build_recipe(data, origin, command=run_command(name_or_path, overrides))


def read_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """A recipe's name for messages and its mapping with the overrides, which nothing has checked yet.

    Raises:
        ConfigError: no such recipe, not YAML, or an override that has no place.
    """
    origin, data = read_files(name_or_path)
    for override in overrides:
        apply_override(data, override)
    return origin, data


def build_recipe(data: Mapping[str, Any], origin: str, *, command: str = "") -> Recipe:
    """Check a recipe that is already a mapping; `command` as `Recipe.command`.

    Raises:
        ConfigError: any key, type, value or combination that does not fit.
    """
    fields = dict(data)
    if ("steps" in fields) == ("rounds" in fields):
        raise ConfigError(f"{origin}: expected either 'steps' or 'rounds'")
    own = fields["benchmarks"] = own_benchmarks(fields, origin)
    fields["scoring"] = check_part(Scoring, fields.get("scoring") or {}, data.get("scoring"), origin, "scoring.")
    numerics = {name: getattr(fields["scoring"], name) for name in (*SHARED_NUMERICS, "noise_samples")}
    defaults = _defaults(fields.get("defaults"), origin)
    if "steps" in fields:
        rounds = [_round({"steps": fields.pop("steps")}, origin, "", numerics, defaults, own)]
    else:
        raw = fields.pop("rounds")
        if not isinstance(raw, list) or not raw:
            raise ConfigError(f"{origin}: rounds: expected a list of rounds, got {raw!r}")
        rounds = [_round(item, origin, f"rounds.{index}.", numerics, defaults, own) for index, item in enumerate(raw)]
    expanded = with_controls([round_.steps for round_ in rounds], origin)
    rounds = [round_.model_copy(update={"steps": steps}) for round_, steps in zip(rounds, expanded, strict=True)]
    return check_part(Recipe, {**fields, "rounds": rounds, "origin": origin, "command": command}, data, origin, "")


def _defaults(data: Any, origin: str) -> dict[str, dict[str, Any]]:
    defaults = data or {}
    if not isinstance(defaults, Mapping) or not all(isinstance(keys, Mapping) for keys in defaults.values()):
        raise ConfigError(f"{origin}: defaults: expected a mapping of stages to mappings of keys, got {data!r}")
    if unknown := next((str(stage) for stage in defaults if stage not in STEP_TYPES), None):
        raise ConfigError(f"{origin}: defaults.{unknown}: expected one of {', '.join(STEP_TYPES)}"
                          f"{suggestion(unknown, list(STEP_TYPES))}")  # fmt: skip
    return {stage: dict(keys) for stage, keys in defaults.items()}


def _round(
    data: Any,
    origin: str,
    where: str,
    numerics: Mapping[str, Any],
    defaults: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, BenchmarkEntry],
) -> Round:
    if not isinstance(data, Mapping) or not isinstance(data.get("steps"), Mapping) or not data["steps"]:
        raise ConfigError(f"{origin}: {where}steps: expected a mapping of step names to steps")
    written = {}
    for name, step in data["steps"].items():
        if isinstance(step, dict):
            stage = str(step.get("stage", name))
            step = with_definitions(stage, merge(defaults.get(stage, {}), step), own)
        written[str(name)] = step
    steps = {
        name: parse_step(name, step, origin, f"{where}steps.", numerics) for name, step in with_presets(written).items()
    }
    return check_part(Round, {**data, "steps": steps}, data, origin, where)


def parse_step(
    name: str, data: Any, origin: str, where: str = "", numerics: Mapping[str, Any] | None = None
) -> c.StepConfig:
    """Check one step of a recipe.

    Args:
        numerics: How the run computes log-probs, for a step of training that does not say.

    Raises:
        ConfigError: naming the key's full path and, where one is near, the valid name.
    """
    place = f"{origin}: {where}{name}"
    if not re.fullmatch(NAME, name) or name in RESERVED[1:]:
        raise ConfigError(f"{place}: expected a step name of lower-case letters, digits and '-', not a reserved word")
    if not isinstance(data, Mapping):
        raise ConfigError(f"{place}: expected a mapping of keys, got {data!r}")
    stage = data.get("stage", name)
    if stage not in STEP_TYPES:
        raise ConfigError(f"{place}.stage: expected one of {', '.join(STEP_TYPES)}, got {stage!r}"
                          f"{suggestion(str(stage), list(STEP_TYPES))}")  # fmt: skip
    types = STEP_TYPES[stage]
    if isinstance(types, dict):
        chosen = data.get("type", DEFAULT_TYPES.get(stage))
        if chosen not in types:
            raise ConfigError(f"{place}.type: expected one of {', '.join(types)}, got {chosen!r}"
                              f"{suggestion(str(chosen), list(types))}")  # fmt: skip
        types = types[chosen]
    known = types.model_fields if issubclass(types, c.Compute) else {}
    shared = {name: value for name, value in (numerics or {}).items() if name in known}
    return check_part(types, {**shared, **data, "stage": stage}, data, origin, f"{where}{name}.")
