"""What pydantic refuses in a recipe, said as `<where>: expected <what>, got <value>` in the recipe's own words."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from erpd_hub.errors import ConfigError
from erpd_hub.references import NAME

M = TypeVar("M", bound=BaseModel)

_FORMS = {
    rf"^{NAME}$": "lower-case letters, digits and dashes",
    r"^[\w][\w.-]*$": "letters, digits, dots and dashes",
}
"""What a pattern asks for."""
_KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
}
"""What the types of errors ask for, where pydantic's words are for programmers."""


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


def explain(model: type[BaseModel], errors: Sequence[Any], raw: Any, place: str) -> list[str]:
    """A line for each mistake; what every alternative of a key refuses is one mistake.

    Args:
        raw: The part as the user wrote it.
        place: In front of the keys' paths.
    """
    lines: list[str] = []
    refused: dict[str, list[Any]] = {}
    for error in errors:
        path = place + ".".join(str(part) for part in _real_path(error["loc"], raw))
        if line := _special(model, error, raw, path):
            lines.append(line)
        else:
            refused.setdefault(path, []).append(error)
    return lines + [f"{path}: expected {_wanted(found)}, got {found[0]['input']!r}" for path, found in refused.items()]


def _special(model: type[BaseModel], error: Any, raw: Any, path: str) -> str | None:
    """The line of an error that is not about the kind of a value."""
    match error["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{_near(model, error['loc'], raw)}"
        case "missing":
            return f"{path}: missing; this key has no default"
        case "value_error":
            return f"{path.removesuffix(': ').removesuffix('.')}: {error['msg'].removeprefix('Value error, ')}"
        case "union_tag_invalid":
            return f"{path}.type: expected one of {error['ctx']['expected_tags']}, got {error['ctx']['tag']!r}"
    return None


def _wanted(errors: Sequence[Any]) -> str:
    """What the alternatives of a key ask for: `1, 2, 3 or 'auto'`."""
    words = list(dict.fromkeys(word for error in errors for word in _words(error)))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(error: Any) -> list[str]:
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return re.split(r", | or ", context["expected"])
    if error["type"] == "string_pattern_mismatch":
        return [_FORMS.get(context["pattern"], f"text that matches {context['pattern']}")]
    if error["type"] in ("too_short", "too_long"):
        bound = context.get("min_length") or context["max_length"]
        least = "at least" if error["type"] == "too_short" else "at most"
        return [f"{least} {bound} {'value' if bound == 1 else 'values'}"]
    return [_KINDS.get(error["type"], error["msg"].removeprefix("Input should be "))]


def _real_path(location: tuple[str | int, ...], raw: Any) -> Iterator[str | int]:
    """The keys as the user wrote them: pydantic also puts the tags of unions into a location."""
    for index, part in enumerate(location):
        present = (isinstance(raw, Mapping) and part in raw) or (isinstance(raw, list) and isinstance(part, int))
        if present:
            raw = raw[part]
            yield part
        elif index == len(location) - 1 and (raw is None or isinstance(raw, Mapping)) and "[" not in str(part):
            yield part


def _near(model: type[BaseModel], location: tuple[str | int, ...], raw: Any) -> str:
    """`; did you mean 'x'?` of the keys beside an unknown one, and of those in mappings there: `loss.beta`."""
    *above, key = location
    models = [model]
    for part in above:
        if fields := [model.model_fields[str(part)] for model in models if part in model.model_fields]:
            raw = raw.get(part) if isinstance(raw, Mapping) else None
            models = [inner for field in fields for inner in _alternatives(field.annotation, raw)]
    found = [path for model in models for path in _paths(model, raw)]
    paths = dict(reversed([(path.rpartition(".")[2], path) for path in found]))  # the nearest of a name
    near = difflib.get_close_matches(str(key), list(paths), n=1, cutoff=0.5)
    return f"; did you mean {paths[near[0]]!r}?" if near else ""


def _paths(model: type[BaseModel], raw: Any, above: str = "") -> Iterator[str]:
    """Keys of a mapping, then those of the mappings in it whose type is known."""
    yield from (above + name for name in model.model_fields)
    for name, field in model.model_fields.items():
        value = raw.get(name) if isinstance(raw, Mapping) else None
        inner = _alternatives(field.annotation, value)
        if len(inner) == 1:
            yield from _paths(inner[0], value, f"{above}{name}.")


def _alternatives(annotation: Any, raw: Any) -> list[type[BaseModel]]:
    """The models that a value may be of; one, where there is one or the value says its `type`."""
    models = list(_models_in(annotation))
    said = raw.get("type") if isinstance(raw, Mapping) else raw
    own = [model for model in models if "type" in model.model_fields
           and said in get_args(model.model_fields["type"].annotation)]  # fmt: skip
    return own or models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
