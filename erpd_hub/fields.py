"""What the fields of a step's config are: input roles, operational ones, identity.

* An input role (`CheckpointRef`, `RolloutsRef`, ...) holds a reference and enters the fingerprint as a digest.
* An `Operational` field changes how a stage runs but not what it makes, so it is no part of the fingerprint.
* A `LocalOnly` field (a URL, an interpreter) says something about this machine: it is never recorded either.
* A `FunctionPath` names a user's function; the hash of its file enters the fingerprint with it (`plugins`).
* A `Later` field came when artifacts without it existed: at its default it is no part of the identity, so they stay.
* Everything else is the identity of the artifact.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict

from erpd_hub.references import EndpointRef, parse_reference


class Config(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Role:
    """Marks a field as an input role; `kinds` are the artifact kinds that may stand there."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds


class _Operational:
    """Marks a field that is no part of an artifact's identity."""


class _LocalOnly(_Operational):
    """Marks an operational field that must not leave this machine."""


class _Later:
    """Marks a field whose default is what was made before there was such a field."""


class _UserCode:
    """Marks a text that may name a user's function, `package.module:function`."""


Operational = _Operational()
LocalOnly = _LocalOnly()
Later = _Later()
UserCode = _UserCode()


def _check_reference(text: str) -> str:
    reference = _check_any_reference(text)
    if isinstance(parse_reference(reference), EndpointRef):
        raise ValueError(f"expected an artifact or a model, got {text}: an endpoint can only be evaluated")
    return reference


def _check_any_reference(text: str) -> str:
    try:
        return str(parse_reference(text))
    except Exception as error:
        raise ValueError(str(error)) from None


def as_tuple(value: Any) -> Any:
    """One name, or several with commas, for a list of names: what people type on a command line."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


_FUNCTION_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def check_function_path(text: str) -> str:
    """Raises ValueError: not of the form `package.module:function`."""
    if not _FUNCTION_PATH.fullmatch(text):
        raise ValueError(f"expected package.module:function, got {text!r}")
    return text


FunctionPath = Annotated[str, AfterValidator(check_function_path), UserCode]

_Ref = Annotated[str, AfterValidator(_check_reference)]
CheckpointRef = Annotated[_Ref, Role("checkpoint")]
EvaluatedRef = Annotated[str, AfterValidator(_check_any_reference), Role("checkpoint")]
"""A checkpoint, or `endpoint:MODEL`."""
PromptsRef = Annotated[_Ref, Role("prompts")]
RolloutsRef = Annotated[_Ref, Role("rollouts")]
CriticRef = Annotated[_Ref, Role("critic")]
SignalRef = Annotated[_Ref, Role("signal")]
GateRef = Annotated[_Ref, Role("gate")]
DetailsRef = Annotated[_Ref, Role("details")]
DatasetRef = Annotated[_Ref, Role("dataset")]
ExternalRef = Annotated[_Ref, Role("external")]


def identity(config: Config) -> dict[str, Any]:
    """The part of a config that goes into the fingerprint: no roles (they are digests there), nothing operational."""
    return _without(config, (Role, _Operational), later=False)


def recorded(config: Config) -> dict[str, Any]:
    """The part of a config that goes into the record: everything but what only concerns this machine."""
    return _without(config, (_LocalOnly,))


def _without(config: Config, left_out: tuple[type, ...], *, later: bool = True) -> dict[str, Any]:
    """The config as JSON without the fields marked so; with `later` False also without `Later` fields at default."""
    dumped = config.model_dump(mode="json")
    return {
        name: _part(getattr(config, name), dumped[name], left_out, later=later)
        for name in dumped
        if not any(isinstance(mark, left_out) for mark in _marks(config, name))
        and (later or not _is_later_default(config, name))
    }


def _part(value: Any, dumped: Any, left_out: tuple[type, ...], *, later: bool) -> Any:
    """One field's JSON: a config in it without what is left out, configs by name without what is local."""
    if isinstance(value, Config):
        return _without(value, left_out, later=later)
    if isinstance(value, Mapping) and any(isinstance(item, Config) for item in value.values()):
        pairs = zip(value.values(), dumped.items(), strict=True)
        return {name: _part(item, text, (_LocalOnly,), later=True) for item, (name, text) in pairs}
    return dumped


def _is_later_default(config: Config, name: str) -> bool:
    unset = getattr(config, name) == type(config).model_fields[name].default
    return unset and any(isinstance(mark, _Later) for mark in _marks(config, name))


def function_paths(config: Config) -> Iterator[str]:
    """The user's functions that a config names, also in configs inside it."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from function_paths(value)
        elif isinstance(value, str) and ":" in value and any(isinstance(m, _UserCode) for m in _marks(config, name)):
            yield value


def roles(config: Config) -> dict[str, Role]:
    """The input roles of a config by field name."""
    found = {}
    for name in type(config).model_fields:
        marks = [mark for mark in _marks(config, name) if isinstance(mark, Role)]
        if marks:
            found[name] = marks[0]
    return found


def _marks(config: Config, name: str) -> list[Any]:
    """Everything annotated on a field, also inside Optional and tuple."""
    field = type(config).model_fields[name]
    marks = list(field.metadata)
    pending = [field.annotation]
    while pending:
        annotation = pending.pop()
        if annotation is None or isinstance(annotation, str | int):
            continue
        arguments = get_args(annotation)
        marks += [a for a in arguments if isinstance(a, Role | _Operational | _UserCode)]
        pending += [a for a in arguments if not isinstance(a, Role | _Operational | _UserCode)]
    return marks
