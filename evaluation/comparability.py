"""What makes two evaluations comparable: what is refused, what may be forced and is flagged, what is only noted. Pure.

Another version or state of the benchmark is another experiment: no difference of checkpoints can be read off, and it is
refused. Other decoding, limits or judges can be the question itself, so they can be forced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.paired import labels_by_problem

_NEVER = ("benchmark_version", "benchmark_definition")
"""Other prompts or golds under one name."""
_FORCED = ("decoding", "limit", "extend_to")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One details artifact; rows have `problem_id`, `k`, `label`, `judge`, `verdict`, `extracted`, `finish_reason`
    and `length` (tokens, or None)."""

    place: str
    metrics: Mapping[str, Any]
    checkpoint: str
    """Digest: equal ones are the same bytes."""
    rows: tuple[Row, ...]
    selected: str | None = None
    """How this benchmark decided about the checkpoint, in words; None where lineage shows no such thing."""

    @property
    def benchmark(self) -> str:
        return str(self.metrics["benchmark"])

    @property
    def judge(self) -> str | None:
        """Model and version of its judge."""
        report = self.metrics.get("judge")
        return f"{report['model']}, prompt {report['prompt_version']}" if report else None


class Side(NamedTuple):
    """A checkpoint as the command line names it, with its evaluations by benchmark."""

    name: str
    evaluations: Mapping[str, Evaluation]


# ------------------------------------------------------------------------------------- what is refused


def refuse(first: Side, other: Side, benchmark: str, *, force: bool) -> list[str]:
    """What differs between two evaluations of a benchmark and may be forced, in words.

    Raises:
        ArtifactError: it differs and is not forced, or is never to be compared.
    """
    one, two = first.evaluations[benchmark], other.evaluations[benchmark]
    for key in _NEVER:
        if key in one.metrics and key in two.metrics and one.metrics[key] != two.metrics[key]:
            raise _other(benchmark, key, first, other)
    same_limit = one.metrics.get("limit") == two.metrics.get("limit")
    if same_limit and one.metrics.get("problems_sha256") != two.metrics.get("problems_sha256"):
        raise _other(benchmark, "problems_sha256", first, other)
    found = [
        f"{benchmark}: {key} is {_shown(one.metrics.get(key))} ({first.name}) and {_shown(two.metrics.get(key))} "
        f"({other.name})"
        for key in _FORCED
        if one.metrics.get(key) != two.metrics.get(key)
    ]
    if one.judge != two.judge:
        found.append(f"{benchmark}: judged by {one.judge or 'the rule alone'} ({first.name}) and "
                     f"{two.judge or 'the rule alone'} ({other.name})")  # fmt: skip
    if found and not force:
        raise ArtifactError(
            f"compare: expected the same on all sides, got {'; '.join(found)}; evaluate both alike, or --force "
            "(common problems, the rule's labels, and the difference is flagged)"
        )
    return found


def _other(benchmark: str, key: str, first: Side, other: Side) -> ArtifactError:
    values = [_shown(side.evaluations[benchmark].metrics[key]) for side in (first, other)]
    return ArtifactError(
        f"compare: {benchmark}: expected one {key} on all sides, got {values[0]} ({first.name}) and {values[1]} "
        f"({other.name}); evaluate both on the same version and state of the benchmark"
    )


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value[key]}" for key in sorted(value))
    return str(value)[:12] if isinstance(value, str) else str(value)


def judges_differ(sides: Sequence[Side], benchmark: str) -> bool:
    return len({side.evaluations[benchmark].judge for side in sides}) > 1


# ---------------------------------------------------------------------------------------------- notes


def notes(sides: Sequence[Side], benchmarks: Sequence[str]) -> list[str]:
    found = []
    for side in sides:
        if left_out := [name for name in side.evaluations if name not in benchmarks]:
            found.append(f"{side.name}: {', '.join(left_out)} left out, which not all sides were evaluated on")
    for name in benchmarks:
        here = [(side.name, side.evaluations[name]) for side in sides]
        sizes = {label: evaluation.metrics.get("k") for label, evaluation in here}
        if len(set(sizes.values())) > 1:
            shown = ", ".join(f"{k} ({label})" for label, k in sizes.items())
            found.append(f"{name}: K is {shown}: AVG@K means the same at any K, pass@K and majority@K do not")
        if len({evaluation.metrics.get("engine", {}).get("type") for _, evaluation in here}) > 1:
            found.append(f"{name}: sampled by different engines")
        found += [f"{name}: {label} {evaluation.selected}: its score there is biased upwards, and so is the difference"
                  for label, evaluation in here if evaluation.selected]  # fmt: skip
        digests = [evaluation.checkpoint for _, evaluation in here]
        if len(set(digests)) < len(digests):
            found.append(f"{name}: some sides are the same checkpoint, byte for byte: all is noise")
        found += _incomplete(name, here)
    return found


def _incomplete(name: str, here: Sequence[tuple[str, Evaluation]]) -> list[str]:
    """Samples that are missing or that nothing could grade."""
    found = []
    for label, evaluation in here:
        counts = {len(labels) for labels in labels_by_problem(evaluation.rows).values()}
        ungraded = sum(row["label"] is None for row in evaluation.rows)
        if len(counts) > 1:
            found.append(f"{name}: {label} has {min(counts)} to {max(counts)} samples a problem: it is not complete")
        if ungraded:
            found.append(f"{name}: {label} has {ungraded} of {len(evaluation.rows)} samples that could not be graded")
    return found


def multiplicity(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    single = sum(len(pair["benchmarks"]) for pair in pairs)
    pooled = sum(pair["pooled"] is not None for pair in pairs)
    if max(single, pooled) < 2:
        return []
    pooled_text = f" and {pooled} of means over benchmarks" if pooled > 1 else ""
    return [
        f"{single} tests of single benchmarks{pooled_text}: one in twenty tests of equal checkpoints has p < 0.05, so "
        "read p (Holm), which holds over each family; the best of several checkpoints looks better than it is, so "
        "choose on one benchmark and report another"
    ]
