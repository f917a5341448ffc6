"""What a check of this machine says."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "broken"]
"""`broken` is what a run would stop at; `note` is what makes it slower or is needed for something else."""


@dataclass(frozen=True)
class Check:
    name: str
    state: State
    found: str
    remedy: str = ""
