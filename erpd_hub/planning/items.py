"""One line of a bill, and what it is reckoned on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from erpd_hub.planning.devices import Device
from erpd_hub.planning.durations import DEFAULTS, Assumptions


@dataclass(frozen=True)
class Setting:
    """On what, and under which assumptions."""

    device: Device
    gpus: int
    mean_length: int | None = None
    """Overrides the recipe's and the shape's."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Measured response tokens per GPU-second by stage: they take the place of the time model."""
    assume: Assumptions = DEFAULTS


@dataclass(frozen=True)
class Item:
    """The bill of one artifact."""

    step: str
    stage: str
    tokens: int | None = None
    """Response tokens expected to be sampled, scored or trained on."""
    tokens_upper: int | None = None
    gb: float | None = None
    """Peak GB per GPU."""
    fits: bool | None = None
    remedy: str = ""
    """What to change where it does not fit; else how it is laid out."""
    arithmetic: str = ""
    seconds: float | None = None
    seconds_upper: float | None = None
    gpus: int = 0
    """That it occupies; 0 for what no GPU does."""
    storage_gb: float | None = None
    work_gb: float | None = None
    """Local disk while it is made; given back when it has been pushed."""
    measured: bool = False
