"""What makes two evaluations comparable: what is refused, what may be forced and is flagged, what is only noted. Pure.

Another version or state of the benchmark is another experiment: no difference of checkpoints can be read off, and it is
refused. Other decoding, limits, graders or judges can be the question itself, so they can be forced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.caveats import draws_one, made_otherwise, sampling_notes
from erpd_hub.evaluation.harness import GRADED_BY, SANDBOX_GRADER
from erpd_hub.evaluation.paired import labels_by_problem

_NEVER = ("benchmark_version", "benchmark_definition")
"""Other prompts or golds under one name."""
_FORCED = ("decoding", "limit", "extend_to", "max_sequence_tokens")
_ENGINE = ("type", "dtype")
"""Of the recorded engine."""
_HASH = 64
"""Letters of a sha256, of which the first are shown."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One details artifact; rows have `problem_id`, `k`, `label`, `judge`, `verdict`, `extracted`, `finish_reason`
    and `length` (tokens, or None)."""

    place: str
    metrics: Mapping[str, Any]
    checkpoint: str
    """Digest: equal ones are the same bytes. Of an endpoint, whose bytes nobody knows, one of its own."""
    rows: tuple[Row, ...]
    selected: str | None = None
    """How this benchmark decided about the checkpoint, in words; None where nothing shows such a thing."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """Settings that its judge's verdicts may depend on."""

    @property
    def benchmark(self) -> str:
        return str(self.metrics["benchmark"])

    @property
    def judge(self) -> str | None:
        """Model, version and settings of its judge."""
        report = self.metrics.get("judge")
        if not report:
            return None
        return ", ".join(
            [report["model"], f"prompt {report['prompt_version']}", *([_shown(self.asked)] * bool(self.asked))]
        )

    @property
    def problems(self) -> str | None:
        """Hash of its problems; None in records that do not say."""
        return self.metrics.get("problems_sha256")

    @property
    def has_votes(self) -> bool:
        """Whether majority@K means something: programs that are wrong cannot be equal."""
        return "sandbox" not in self.metrics and self.grader.get("grader") != SANDBOX_GRADER

    @property
    def grader(self) -> Mapping[str, Any]:
        """Versions of what graded it, as far as the record says; what an older one does not say is noted."""
        harness = self.metrics.get("harness") or {}
        return {key: harness[key] for key in GRADED_BY if key in harness}

    @property
    def engine(self) -> Mapping[str, Any]:
        engine = self.metrics.get("engine") or {}
        return {key: engine[key] for key in _ENGINE if key in engine}

    @property
    def otherwise(self) -> dict[str, str]:
        return made_otherwise(self.metrics)

    @property
    def draws_one(self) -> bool:
        """Whether K samples of a problem tell no more than one."""
        return draws_one(self.metrics)


class Side(NamedTuple):
    """A checkpoint as the command line names it, with its evaluations by benchmark."""

    name: str
    evaluations: Mapping[str, Evaluation]


# ------------------------------------------------------------------------------------- what is refused


def refuse(first: Side, other: Side, benchmark: str, *, judged: bool, force: bool) -> list[str]:
    """What differs between two evaluations of a benchmark and may be forced, in words.

    Args:
        judged: Their judges' labels are compared, so that the judges matter.

    Raises:
        ArtifactError: it differs and is not forced, or is never to be compared.
    """
    one, two = first.evaluations[benchmark], other.evaluations[benchmark]
    for key in _NEVER:
        if key in one.metrics and key in two.metrics and one.metrics[key] != two.metrics[key]:
            raise _other(benchmark, key, first, other)
    if one.metrics.get("limit") == two.metrics.get("limit") and one.problems and two.problems:
        if one.problems != two.problems:
            raise _other(benchmark, "problems_sha256", first, other)
    elif (problem := _other_problem(one, two)) is not None:
        raise ArtifactError(
            f"compare: {benchmark}: expected the same problems on all sides, got another problem or gold under the id "
            f"{problem!r}; evaluate both on the same state of the benchmark"
        )
    values = [(key, one.metrics.get(key), two.metrics.get(key)) for key in _FORCED]
    values += [(key, value, two.grader[key]) for key, value in one.grader.items() if key in two.grader]
    if judged:
        values.append(("judge", one.judge, two.judge))
    values.append(("what graded samples taken over", one.otherwise.get("graded_by"), two.otherwise.get("graded_by")))
    found = [
        f"{benchmark}: {key} is {_shown(mine)} ({first.name}) and {_shown(theirs)} ({other.name})"
        for key, mine, theirs in values
        if mine != theirs
    ]
    if found and not force:
        raise ArtifactError(
            f"compare: expected the same on all sides, got {'; '.join(found)}; evaluate both alike, or --force "
            "(common problems, and the difference is flagged)"
        )
    return found


def _other(benchmark: str, key: str, first: Side, other: Side) -> ArtifactError:
    values = [_shown(side.evaluations[benchmark].metrics[key]) for side in (first, other)]
    return ArtifactError(
        f"compare: {benchmark}: expected one {key} on all sides, got {values[0]} ({first.name}) and {values[1]} "
        f"({other.name}); evaluate both on the same version and state of the benchmark"
    )


def _other_problem(one: Evaluation, two: Evaluation) -> str | None:
    """The first of the common problems that is not the same one, as far as golds and hashes in the rows tell."""
    names = ("problem_sha256", "gold")
    theirs = {row["problem_id"]: row for row in two.rows}
    for row in one.rows:
        told = [(row.get(name), theirs.get(row["problem_id"], row).get(name)) for name in names]
        if any(mine != other for mine, other in told if mine and other):
            return str(row["problem_id"])
    return None


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value[key]}" for key in sorted(value))
    return value[:12] if isinstance(value, str) and len(value) == _HASH else str(value)


def without_judge(sides: Sequence[Side], benchmarks: Sequence[str]) -> list[str]:
    """Evaluations that no judge has seen, in words."""
    return [f"{side.name} on {name}" for side in sides for name in benchmarks if not side.evaluations[name].judge]


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
        engines = {label: _shown(evaluation.engine) or "unknown" for label, evaluation in here}
        if len(set(engines.values())) > 1:
            shown = "; ".join(f"{engine} ({label})" for label, engine in engines.items())
            found.append(f"{name}: sampled by different engines: {shown}")
        found += [f"{name}: of {label}, {evaluation.metrics.get('taken_over', 'some')} samples were made before with "
                  f"{_shown(evaluation.otherwise)}" for label, evaluation in here if evaluation.otherwise]  # fmt: skip
        found += [f"{name}: {line}" for label, evaluation in here for line in sampling_notes(label, evaluation.metrics)]
        told = set().union(*(evaluation.grader for _, evaluation in here))
        if unknown := ", ".join(label for label, evaluation in here if told - set(evaluation.grader)):
            found.append(f"{name}: which version of the grader {unknown} was graded by is not recorded")
        found += [f"{name}: {label} {evaluation.selected}: neither its score there nor the difference is unbiased"
                  for label, evaluation in here if evaluation.selected]  # fmt: skip
        found += [_judge(name, label, evaluation) for label, evaluation in here if evaluation.judge]
        digests = [evaluation.checkpoint for _, evaluation in here]
        if len(set(digests)) < len(digests):
            found.append(f"{name}: some sides are the same checkpoint, byte for byte: all is noise")
        found += _incomplete(name, here)
    return found


def _judge(name: str, label: str, evaluation: Evaluation) -> str:
    """Which judge an evaluation has, and how far it can be trusted."""
    report, share = evaluation.metrics["judge"], evaluation.metrics.get("judge_share")
    fooled = report.get("canary_acceptance")
    alarm = ": ALARM, its score cannot be trusted" if report.get("canaries_alarm") else ""
    return (
        f"{name}: {label} has a judge ({evaluation.judge}), who alone calls {_percent(share)} of the samples right, "
        f"and {_percent(fooled)} of injected wrong answers{alarm}"
    )


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{100 * share:.1f} %"


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
