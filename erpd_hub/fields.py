"""What the fields of a step's config are: input roles, operational ones, identity.

* An input role (`CheckpointRef`, `RolloutsRef`, ...) holds a reference and enters the fingerprint as a digest.
* An `Operational` field changes how a stage runs but not what it makes, so it is no part of the fingerprint.
* A `LocalOnly` field (a URL, an interpreter) says something about this machine: it is never recorded either.
* Everything else is the identity of the artifact.
"""

from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict

from erpd_hub.references import parse_reference


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


Operational = _Operational()
LocalOnly = _LocalOnly()


def _check_reference(text: str) -> str:
    try:
        return str(parse_reference(text))
    except Exception as error:
        raise ValueError(str(error)) from None


def as_tuple(value: Any) -> Any:
    """One name, or several with commas, for a list of names: what people type on a command line."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


_Ref = Annotated[str, AfterValidator(_check_reference)]
CheckpointRef = Annotated[_Ref, Role("checkpoint")]
PromptsRef = Annotated[_Ref, Role("prompts")]
RolloutsRef = Annotated[_Ref, Role("rollouts")]
SignalRef = Annotated[_Ref, Role("signal")]
DatasetRef = Annotated[_Ref, Role("dataset")]
ExternalRef = Annotated[_Ref, Role("external")]


def identity(config: Config) -> dict[str, Any]:
    """The part of a config that goes into the fingerprint: no roles (they are digests there), nothing operational."""
    return _without(config, (Role, _Operational))


def recorded(config: Config) -> dict[str, Any]:
    """The part of a config that goes into the record: everything but what only concerns this machine."""
    return _without(config, (_LocalOnly,))


def _without(config: Config, left_out: tuple[type, ...]) -> dict[str, Any]:
    dumped = config.model_dump(mode="json")
    return {
        name: _without(value, left_out) if isinstance(value := getattr(config, name), Config) else dumped[name]
        for name in dumped
        if not any(isinstance(mark, left_out) for mark in _marks(config, name))
    }


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
        marks += [a for a in arguments if isinstance(a, Role | _Operational)]
        pending += [a for a in arguments if not isinstance(a, Role | _Operational)]
    return marks
