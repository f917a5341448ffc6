"""References: the one grammar by which recipes, the command line, the Space and lineage name an artifact.

base | policy | none            reserved words: the run's base, the round's start, nothing
[rK/]NAME[@step-N]              a step of this run, optionally one of its saved steps
namespace/name[@revision]       a repository on the Hub
./path, ../path, /path, ~/path  a local path, imported as an artifact first
endpoint:MODEL                  a model behind an endpoint, for evaluation only: nothing pins what answers there
"""

import re
from dataclasses import dataclass
from typing import Literal

from erpd_hub.errors import ConfigError

NAME = r"[a-z0-9][a-z0-9-]*"
_STEP = re.compile(rf"(?:r(?P<round>[1-9]\d*)/)?(?P<name>{NAME})(?:@step-(?P<step>\d+))?")
_REPO = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?")

_ENDPOINT = re.compile(r"endpoint:(?P<model>[\w][\w./:@+-]*)")

RESERVED = ("base", "policy", "none")


@dataclass(frozen=True)
class ReservedRef:
    word: Literal["base", "policy", "none"]

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True)
class StepRef:
    """A step of the run; `round` None means the round the reference stands in."""

    name: str
    round: int | None = None
    step: int | None = None

    def __str__(self) -> str:
        prefix = f"r{self.round}/" if self.round is not None else ""
        suffix = f"@step-{self.step}" if self.step is not None else ""
        return f"{prefix}{self.name}{suffix}"


@dataclass(frozen=True)
class RepoRef:
    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


@dataclass(frozen=True)
class PathRef:
    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class EndpointRef:
    """A model that answers over HTTP; whoever runs it may change it at any time."""

    model: str

    def __str__(self) -> str:
        return f"endpoint:{self.model}"

    @property
    def folder(self) -> str:
        """Its name as a folder of a repository."""
        return "endpoint--" + re.sub(r"[^\w.-]+", "--", self.model)


Reference = ReservedRef | StepRef | RepoRef | PathRef | EndpointRef


def parse_reference(text: str) -> Reference:
    """Parse one reference.

    Raises:
        ConfigError: the text is none of the forms.
    """
    if text in RESERVED:
        return ReservedRef(text)  # type: ignore[arg-type]
    if text.startswith(("./", "../", "/", "~")):
        return PathRef(text)
    if match := _ENDPOINT.fullmatch(text):
        return EndpointRef(match["model"])
    if match := _STEP.fullmatch(text):
        return StepRef(match["name"], _integer(match["round"]), _integer(match["step"]))
    if match := _REPO.fullmatch(text):
        return RepoRef(match["repo"], match["revision"])
    raise ConfigError(
        f"{text!r}: expected a reference: NAME[@step-N], rK/NAME, namespace/name[@revision], ./path, "
        f"or one of {', '.join(RESERVED)}"
    )


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def named_with_round(text: str, number: int, *, several: bool) -> str:
    """A checkpoint as tables name it: as the recipe does, with the round that it was named in where a run has several
    and the text does not say where it is from."""
    bare = not several or "/" in text or text == "base" or _ENDPOINT.fullmatch(text)
    return text if bare else f"r{number}/{text}"
