"""Whether samples are those that were planned, labels follow from verdicts, and a judge's rulings and canaries from the
replies that the details keep.

An evaluation draws K samples of each problem and keeps every one, those that failed too: so what is missing was taken
out, and a score over the rest is a choice.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from erpd_hub.artifacts import LineageRecord
from erpd_hub.evaluation.benchmarks import BENCHMARKS, definition_hash
from erpd_hub.evaluation.judge.check import misreported, unfounded
from erpd_hub.samples import sample_seed, shard_paths

_READ = ("benchmark", "problem_id", "k", "seed", "finish_reason", "gold", "extracted", "verdict", "label", "judge")
_CONCEALED = "problem_sha256"
_LABELS = {"correct": 1, "ungradable": None}
_VERDICTS = {
    "stop": ("correct", "wrong", "no_answer", "timeout", "ungradable"),
    "length": ("truncated", "ungradable"),
    "error": ("ungradable",),
}
"""What a grader may say of a response, by how it ended."""
_SHOWN = 3
"""Of the same kind of problem; the rest is counted."""


class Planned(NamedTuple):
    """What an evaluation was to draw."""

    benchmark: str
    seed: int
    k: int
    problems: int | None
    """None where nothing here knows how many there are."""


def sample_problems(folder: Path, record: LineageRecord, evaluation: LineageRecord) -> list[str]:
    """What is wrong with the samples in details, as messages.

    Args:
        record: Of the details.
        evaluation: Of the evaluation that they are, or that they are a judged copy of.

    Raises:
        KeyError: the evaluation's record does not say what was planned.
    """
    rows, plan = list(_rows(folder)), planned(record, evaluation)
    found = _first([_label_problem(row) for row in rows if row["label"] != _LABELS.get(row["verdict"], 0)])
    found += _first([problem for row in rows if (problem := _row_problem(row, plan))])
    found += _missing(rows, plan)
    judge = record.metrics.get("judge")
    if judge is None:
        return found
    return found + _first(unfounded(rows, folder)) + misreported(judge, folder)


def planned(record: LineageRecord, evaluation: LineageRecord) -> Planned:
    """What the fingerprint of an evaluation covers of its samples. Raises KeyError: it does not say how many."""
    identity = evaluation.identity
    (benchmark,) = identity["benchmarks"]
    return Planned(benchmark, evaluation.seed, int(identity["k"]), _num_problems(benchmark, record, identity))


def _num_problems(benchmark: str, record: LineageRecord, identity: Mapping[str, Any]) -> int | None:
    """How many problems there were, where they are those that the benchmark's entry knows."""
    entry = (identity.get("benchmark_entries") or {}).get(benchmark)
    definition = definition_hash(entry) if entry else record.metrics.get("benchmark_definition")
    registered = BENCHMARKS.get(benchmark)
    own = (identity.get("definitions") or {}).get(benchmark)
    if own is not None:
        every = own.get("num_problems")
    elif registered is not None and definition in (None, registered.definition_sha256):
        every = registered.num_problems
    else:
        return None
    if every is None or record.metrics.get("problems_state") == "other":  # which every table says
        return None
    limit = identity.get("limit")
    return int(every) if limit is None else min(int(every), int(limit))


def _row_problem(row: Mapping[str, Any], plan: Planned) -> str | None:
    """What of a sample is not as it was planned, or not as graders speak."""
    where = f"{row['problem_id']} {row['k']}"
    if row["benchmark"] != plan.benchmark:
        return f"{where}: of {row['benchmark']}, where {plan.benchmark} was evaluated"
    if row["k"] is None or not 0 <= row["k"] < plan.k:
        return f"{where}: expected a sample below {plan.k}"
    if row["seed"] != sample_seed(plan.seed, plan.benchmark, row["problem_id"], row["k"]):
        return f"{where}: not drawn with this sample's seed"
    if row["verdict"] not in _VERDICTS.get(row["finish_reason"], ()):
        return f"{where}: the verdict {row['verdict']} on a response that ended by {row['finish_reason']}"
    return None


def _missing(rows: Sequence[Mapping[str, Any]], plan: Planned) -> list[str]:
    """Samples that are there more than once, or not at all."""
    counted = Counter((row["problem_id"], row["k"]) for row in rows)
    found = _first([f"{name} {k}: {count} times" for (name, k), count in counted.items() if count > 1])
    of_problem = Counter(name for name, _ in counted)
    found += _first([f"{name}: {count} of {plan.k} samples" for name, count in of_problem.items() if count != plan.k])
    if plan.problems is not None and len(of_problem) != plan.problems:
        found.append(f"samples of {len(of_problem)} problems, of {plan.problems} that were evaluated")
    return found


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for path in shard_paths(folder):
        names = pq.read_schema(path).names
        yield from pq.read_table(path, columns=[n for n in (*_READ, _CONCEALED) if n in names]).to_pylist()


def _label_problem(row: dict[str, Any]) -> str:
    return f"{row['problem_id']} {row['k']}: label {row['label']} on the verdict {row['verdict']}"


def _first(problems: list[str]) -> list[str]:
    rest = len(problems) - _SHOWN
    return problems[:_SHOWN] + ([f"and {rest} more like these"] if rest > 0 else [])
