"""An artifact of a run that is on the Hub, and who is told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from erpd_hub.artifacts import LineageRecord
from erpd_hub.nodes import Node


@dataclass(frozen=True)
class Finished:
    """An artifact on the Hub."""

    node: Node
    record: LineageRecord
    revision: str
    steps: Mapping[int, tuple[str, LineageRecord]]
    """Pushed saved steps: commit and record."""
    reused: bool
    seconds: float
    """Spent on it in this run; for a reused artifact 0."""
    origins: Mapping[str, LineageRecord | None]
    """The records of its inputs by role (of the last one, for a role with several); None for what is not ours."""


class Watch(Protocol):
    """Is told of every artifact before and after; the command line shows progress with it."""

    def begin(self, node: Node) -> None: ...

    def end(self, finished: Finished) -> None: ...
