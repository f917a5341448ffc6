"""The files of recipes: YAML as people write it, and recipes that extend others.

Gives mappings that nothing has checked yet; `recipe` makes typed recipes of them.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from erpd_hub.errors import ConfigError, UnknownRecipe


class _Loader(yaml.SafeLoader):
    """YAML as its 1.2 core schema has it: `1e-6` is a number, `no` and `off` are words."""


_REPLACED = {f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A mapping without repeated keys; of two equal ones YAML would silently keep the last."""
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise yaml.constructor.ConstructorError(None, None, f"the key {min(repeated)!r} stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value
    }


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _unshared(value: Any) -> Any:
    """The same data with no part in two places: an override of a step must not reach what was merged from it."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def shipped_recipes() -> dict[str, str]:
    """Name to YAML text of the recipes inside the package."""
    folder = files("erpd_hub") / "recipes"
    return {p.name.removesuffix(".yaml"): p.read_text() for p in folder.iterdir() if p.name.endswith(".yaml")}


def suggestion(name: str, valid: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no valid name is near."""
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def read_files(name_or_path: str) -> tuple[str, dict[str, Any]]:
    """Name for messages, and the mapping of a recipe with what it extends.

    `extends: NAME`, `./FILE.yaml` (relative to the file it stands in) or a list of them takes over other recipes, the
    later ones over the earlier; `A+B` in the place of a name is a recipe that extends both and adds nothing. Each file
    counts once, after those it extends. Mappings are merged key by key unless their `type` changes, everything else is
    replaced, and a step that is null is left out. Rounds take the place of the steps of what they extend.

    Raises:
        ConfigError: one cannot be read, or has steps beside rounds, its own or those of what it extends.
    """
    texts: dict[str, dict[str, Any]] = {}
    origin = _collect(name_or_path, texts, ())
    merged: dict[str, Any] = {}
    for name, data in texts.items():
        if "steps" in data and ("rounds" in data or "rounds" in merged):
            raise ConfigError(
                f"{name}: steps: expected none beside rounds, which it or what it is merged over has; put them into a "
                "round, or take a recipe without rounds"
            )
        merged = _merge_recipes(merged, data)
    return origin, merged


def _collect(name_or_path: str, texts: dict[str, dict[str, Any]], within: tuple[str, ...]) -> str:
    """Put the files of a recipe into `texts`, each after those it extends; returns the name for messages."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        origin, text, folder = name_or_path, shipped[name_or_path], Path()
    elif _is_file(name_or_path) and ("+" not in name_or_path or Path(name_or_path).expanduser().is_file()):
        path = Path(name_or_path).expanduser()
        origin, text, folder = path.name, read_text(path), path.parent
    elif not (unknown := [part for part in name_or_path.split("+") if part not in shipped and not _is_file(part)]):
        origin, folder = name_or_path, Path()
        text = f"extends: [{name_or_path.replace('+', ', ')}]"
    else:
        names = ", ".join(sorted(shipped))
        message = f"{name_or_path}: expected a recipe name ({names}), two with + between, or a .yaml file"
        raise UnknownRecipe(name_or_path, message, suggestion(unknown[0], list(shipped)))
    data = parse_mapping(text, origin)
    above = data.pop("extends", None)
    for name in above if isinstance(above, list) else [] if above is None else [above]:
        named = isinstance(name, str) and all(part in shipped for part in name.split("+"))
        parent = name if named else str(folder / str(name))
        if not isinstance(name, str) or parent in (*within, name_or_path):
            raise ConfigError(f"{origin}: extends: expected another recipe, got {name!r}")
        _collect(parent, texts, (*within, name_or_path))
    texts.setdefault(name_or_path, data)
    return origin


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _merge_recipes(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = merge(below, above)
    if "rounds" in above:
        merged.pop("steps", None)
    if isinstance(merged.get("steps"), dict) and below:
        merged["steps"] = {name: step for name, step in merged["steps"].items() if step is not None}
    return merged


_ENGINE, _ROLLOUT = "transformers", "sample"
_UNNAMED = {"transformers": _ENGINE, "vllm": _ENGINE, "server": _ENGINE, "sample": _ROLLOUT, "import": _ROLLOUT}
"""By the type of an engine or a rollout, what one is that says none; anything else has no type until one is said."""


def merge(below: Mapping[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    asked = str(above.get("type"))
    if "type" in above and asked != below.get("type", _UNNAMED.get(asked, asked)):
        return above  # the keys of another type mean nothing to this one
    merged = dict(below)
    for key, value in above.items():
        mergeable = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = merge(below[key], value) if mergeable else value
    return merged


def read_text(path: Path) -> str:
    """A file of the user's.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None


def parse_mapping(text: str, origin: str, expected: str = "a mapping with 'run' and 'steps'") -> dict[str, Any]:
    """A YAML file's mapping.

    Raises:
        ConfigError: it is not YAML, or not `expected`.
    """
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise ConfigError(f"{origin}:{line} not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{origin}: expected {expected}, got {data!r}")
    return _unshared(data)


def parse_value(text: str, where: str) -> Any:
    """A value as it may stand in a recipe; nothing is None.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader) if text else None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: the value is not valid YAML: {getattr(error, 'problem', error)}") from None
