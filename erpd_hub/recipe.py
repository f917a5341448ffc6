"""Recipes: one YAML file of named steps, read, overridden and checked before anything heavy is imported.

A recipe has `run`, `namespace`, `seed`, `hub` and either `steps` (one round) or `rounds`, each with its `steps`.
A step is `NAME: {stage: ..., <role>: REFERENCE, ...config}`; `stage` defaults to the name.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError

from erpd_hub import config as c
from erpd_hub.benchmark_files import own_benchmarks, with_definitions
from erpd_hub.config.benchmarks import BenchmarkEntry
from erpd_hub.controls import with_controls
from erpd_hub.errors import ConfigError
from erpd_hub.fields import CheckpointRef, Config, as_tuple
from erpd_hub.presets import with_presets
from erpd_hub.public import run_command
from erpd_hub.recipe_files import merge, parse_value, read_files
from erpd_hub.recipe_files import read_text as read_text
from erpd_hub.recipe_files import shipped_recipes as shipped_recipes
from erpd_hub.recipe_files import suggestion as suggestion
from erpd_hub.references import NAME, RESERVED
from erpd_hub.refusals import explain

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

M = TypeVar("M", bound=BaseModel)


class HubSettings(Config):
    """Which Hub the artifacts live on."""

    endpoint: str = "local"
    """`local` (the embedded Hub, started on demand) or a URL such as https://huggingface.co."""
    upstream: str | None = None
    """A second endpoint that is read for what the first one lacks."""
    private: bool = True


SHARED_NUMERICS = ("dtype", "logprob_temperature", "attn_implementation", "layout")
"""What scoring and training must have in common; micro-batches need not."""


class Scoring(c.Numerics):
    """How log-probs are scored, the same for every checkpoint of the run, and how the steps of training compute them
    unless they say otherwise."""

    noise_samples: NonNegativeInt = 32
    """See ScoreConfig: responses that are scored a second time to measure the noise floor."""


class FactsSettings(Config):
    """What a plan needs to know of the base where it is not at hand. Planning only: in no artifact."""

    shape: str | None = None
    """A known shape such as `qwen3-4b`; None goes by the base itself or by its name."""
    mean_length: PositiveInt | None = None
    """Tokens of a mean response; None takes what a source says of the shape, else half of the limit."""


class Round(Config):
    policy: CheckpointRef | None = None
    """The round's start; by default the base, then the previous round's last student."""
    steps: dict[str, c.StepConfig]


class Recipe(Config):
    run: Annotated[str, Field(pattern=rf"^{NAME}$")]
    namespace: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "local"
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    threads: PositiveInt | None = None
    """CPU threads of torch; one is fastest for tiny models, and runs are bit-identical at a fixed number."""
    hub: HubSettings = HubSettings()
    scoring: Scoring = Scoring()
    facts: FactsSettings = FactsSettings()
    defaults: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By stage: keys that its steps take over where they do not say otherwise, also of a step's `type`."""
    selection: tuple[str, ...] = ()
    """Benchmarks on which settings of this run were chosen, besides those of its own gates and selections: marked, and
    in no headline mean."""
    benchmarks: dict[str, BenchmarkEntry] = Field(default_factory=dict)
    """The user's own, by name: those written here and those of `benchmark_files`, YAML of the same form."""
    benchmark_files: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    rounds: tuple[Round, ...]
    origin: str = ""
    """What the recipe was read from (a shipped name or a file name), for messages."""
    command: str = ""
    """The words after `erpd-hub` that make this run, for cards; empty where no such command is known."""


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
    """Check a recipe that is already a mapping; `command` as `Recipe.command`."""
    fields = dict(data)
    if ("steps" in fields) == ("rounds" in fields):
        raise ConfigError(f"{origin}: expected either 'steps' or 'rounds'")
    own = fields["benchmarks"] = own_benchmarks(fields, origin, check_part)
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


def check_part(model: type[M], values: Mapping[str, Any], raw: Any, origin: str, where: str) -> M:
    """A part of a recipe by its model.

    Args:
        raw: The part as the user wrote it.

    Raises:
        ConfigError: a line for each mistake, with the key's full path and the nearest valid name.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(explain(model, error.errors(), raw, f"{origin}: {where}"))) from None


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set `a.b.c=value`; a first part that is the name of a step of the only round means that step."""
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
        return rounds[number - 1]["steps"], [match[2], *parts[1:]]
    if parts[0] in Recipe.model_fields or parts[0] == "steps" or len(parts) == 1:
        return data, parts
    names = list(data.get("steps") or {})
    if parts[0] in names:
        return data["steps"], parts
    raise ConfigError(f"{'.'.join(parts)}: {parts[0]!r} is neither a key of the recipe nor a step"
                      f"{suggestion(parts[0], names)}")  # fmt: skip
