"""The numbers of a finished run on one page: what its gates, signals, teachers, students and controls say.

Pure: summary rows and records in, findings out; what to try next follows from them in `advise_rules`. Gains are means
over the benchmarks that nothing was selected on, with the error of drawing samples anew on the same problems; for a
teacher against the policy a `gate` is the sharper test.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import sqrt
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple

from erpd_hub import config as c
from erpd_hub.references import StepRef, parse_reference


class Made(NamedTuple):
    """One artifact of the run, from its record."""

    step: str
    """`r1/ce`."""
    stage: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    inputs: Mapping[str, str] = MappingProxyType({})
    """Digests by role."""


class Line(NamedTuple):
    """One checkpoint against the base."""

    ref: str
    role: str
    avg: float
    gain: float
    """Points of AVG@K."""
    error: float
    """Standard error of the gain, from sampling."""
    own_error: float
    """Of the checkpoint's own average: between two checkpoints of a run the base's error cancels. Points."""
    kl_to_base: float | None
    gain_per_kl: float | None
    """Points for each 0.01 nats per token; None without a KL that differs from 0."""
    entropy_ratio: float | None
    length_ratio: float | None
    truncated: float | None
    truncated_rise: float | None
    digest: str
    """Of the checkpoint, by which later artifacts name it as an input; empty where the summary has none."""


class Against(NamedTuple):
    """A student against a control."""

    student: str
    control: str
    difference: float
    """Points of AVG@K."""
    error: float
    is_outcome: bool
    """The control is the bare outcome through the same stage 2."""

    @property
    def better(self) -> bool:
        return self.difference > 2 * self.error


class Page(NamedTuple):
    gates: tuple[dict[str, Any], ...]
    signals: tuple[dict[str, Any], ...]
    lines: tuple[Line, ...]
    controls: tuple[Against, ...]
    mse: tuple[dict[str, Any], ...]
    made: tuple[Made, ...]


def make_page(checkpoints: Sequence[Mapping[str, Any]], made: Sequence[Made]) -> Page:
    """Everything about a run.

    Args:
        checkpoints: Of its summary, with `stderr_sampling` where the record has it.
        made: Its artifacts.
    """
    lines = tuple(compare_with_base(checkpoints))
    controls = tuple(_controls(lines, made))
    gates = tuple(
        {"step": item.step, **{key: item.metrics.get(key) for key in ("teacher_better", "strategies", "reason")}}
        for item in made
        if item.stage == "gate"
    )
    keys = ("strategy", "std", "noise_floor", "signal_to_noise", "warning")
    ratio = c.SignalConfig.model_fields["noise_ratio"].default
    signals = tuple(
        {
            "step": item.step,
            **{key: item.metrics.get(key) for key in keys},
            "noise_ratio": item.config.get("noise_ratio", ratio),
        }
        for item in made
        if item.stage == "signal"
    )
    fits = ("explained_variance", "probability_positive", "probability_negative", "loss")
    mse = tuple(
        {"step": item.step, **{key: item.metrics.get(key) for key in fits}} for item in made if loss_type(item) == "mse"
    )
    return Page(gates, signals, lines, controls, mse, tuple(made))


def loss_type(item: Made) -> str | None:
    """`mse`; None where the artifact is no teacher."""
    return item.config["loss"]["type"] if item.stage == "teacher" else None


# ----------------------------------------------------------------------------------------------- numbers


def compare_with_base(checkpoints: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Every checkpoint but the base against it, on the benchmarks that both have and nothing was selected on; on those
    that were selected on only where there are no others."""
    plain = [item for item in checkpoints if not item.get("selection") and item["avg"] is not None]
    rows = plain or [item for item in checkpoints if item["avg"] is not None]
    by_ref: dict[str, dict[str, Mapping[str, Any]]] = {}
    for item in rows:
        by_ref.setdefault(item["ref"], {})[item["benchmark"]] = item
    base = next((found for found in by_ref.values() if next(iter(found.values()))["role"] == "base"), {})
    return [
        _line(ref, found, base)
        for ref, found in by_ref.items()
        if next(iter(found.values()))["role"] != "base" and found.keys() & base.keys()
    ]


def _line(ref: str, found: Mapping[str, Mapping[str, Any]], base: Mapping[str, Mapping[str, Any]]) -> Line:
    shared = [name for name in found if name in base]
    ours, theirs = [found[name] for name in shared], [base[name] for name in shared]
    avg = fmean(item["avg"] for item in ours)
    gain = 100 * (avg - fmean(item["avg"] for item in theirs))
    kl = ours[0]["kl_to_base"]
    truncated, before = _mean(ours, "truncated"), _mean(theirs, "truncated")
    return Line(
        ref=ref,
        role=ours[0]["role"],
        avg=avg,
        gain=gain,
        error=100 * _error([*ours, *theirs], len(shared)),
        own_error=100 * _error(ours, len(shared)),
        kl_to_base=kl,
        gain_per_kl=gain / (100 * kl) if kl else None,
        entropy_ratio=_ratio(ours[0]["entropy"], theirs[0]["entropy"]),
        length_ratio=_ratio(_mean(ours, "mean_length"), _mean(theirs, "mean_length")),
        truncated=truncated,
        truncated_rise=None if truncated is None or before is None else truncated - before,
        digest=ours[0].get("digest", ""),
    )


def _mean(rows: Iterable[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return fmean(values) if values else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _error(rows: Iterable[Mapping[str, Any]], benchmarks: int) -> float:
    """Of a difference of two means over benchmarks, from the sampling errors of each."""
    errors = [row.get("stderr_sampling") or row.get("stderr") or 0.0 for row in rows]
    return sqrt(sum(error**2 for error in errors)) / benchmarks


def _controls(lines: Sequence[Line], made: Sequence[Made]) -> list[Against]:
    """Each control beside the student that it is of, at the same saved step; any other beside the best student."""
    students = [line for line in lines if line.role == "student"]
    of = {item.step: item.config.get("control_of") for item in made}
    outcome = {item.step for item in made if item.config.get("advantage") == "outcome"}
    found = []
    for control in (line for line in lines if line.role == "control"):
        owner = of.get(place(control.ref))
        wanted = [line for line in students if owner is not None and _same_step(line.ref, control.ref, owner)]
        beside = wanted or ([] if owner else sorted(students, key=lambda line: line.avg)[-1:])
        found += [
            Against(
                s.ref,
                control.ref,
                s.gain - control.gain,
                sqrt(s.own_error**2 + control.own_error**2),
                place(control.ref) in outcome,
            )
            for s in beside
        ]
    return found


def place(ref: str) -> str:
    """The step of a run that a reference in its summary is of: `ce@step-8` is of `r1/ce`."""
    return place_in(ref, "r1/")


def _same_step(student: str, control: str, owner: str) -> bool:
    one, other = parse_reference(student), parse_reference(control)
    assert isinstance(other, StepRef)
    return isinstance(one, StepRef) and (one.name, one.round, one.step) == (owner, other.round, other.step)


def checkpoint_in(ref: str, step: str) -> str:
    """The checkpoint that a reference means where it stands: `ce@step-8` is `r2/ce@step-8` in a step of round 2."""
    reference = parse_reference(ref)
    if not isinstance(reference, StepRef):
        return ref
    return str(replace(reference, round=reference.round or int(step.partition("/")[0].removeprefix("r"))))


def place_in(ref: str, step: str) -> str:
    """The step of the run that made it: `r2/ce`."""
    reference = parse_reference(checkpoint_in(ref, step))
    return str(replace(reference, step=None)) if isinstance(reference, StepRef) else ref
