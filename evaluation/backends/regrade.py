"""Stored samples under other graders: AVG@K of each, and every difference from the stored verdict with its cause.

Nothing is written into the artifact. A harness's opinion is on the whole response; where it differs from ours it is
asked again about our extracted answer alone, which tells what it reads from how it compares.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

from erpd_hub.evaluation.answers import Extract
from erpd_hub.evaluation.backends.environments import HARNESSES, Harness
from erpd_hub.evaluation.backends.opinions import (
    Foreign,
    GraderName,
    Opinion,
    Row,
    ask_about_answers,
    ask_foreign,
    ask_here,
    describe,
    our_answer,
)
from erpd_hub.evaluation.statistics import avg_at_k, stderr_problem

Cause = Literal["truncation", "extraction", "equivalence", "execution", "no verdict", "ungraded here"]
CAUSES: dict[Cause, str] = {
    "truncation": "the response was cut off, which is wrong by our rule whatever it says",
    "extraction": "it read another answer out of the same text",
    "equivalence": "it compared the same answer with the same gold otherwise",
    "execution": "it ran the same program otherwise",
    "no verdict": "it gave none: the gold does not parse, it failed, or it ran out of time",
    "ungraded here": "the stored sample has no verdict",
}

_CHUNK_ROWS = 128  # responses may be a megabyte each


class Difference(NamedTuple):
    """One grader's disagreement with the stored verdict."""

    grader: GraderName
    opinion: Opinion
    cause: Cause


class Disagreement(NamedTuple):
    """A sample whose verdict depends on who grades it."""

    problem_id: str
    k: int
    gold: str
    answer: str | None
    """As stored: what our grader saw."""
    verdict: str
    label: int | None
    differences: tuple[Difference, ...]


@dataclass
class Tally:
    """A grader's labels, by problem."""

    labels: dict[str, list[int | None]] = field(default_factory=lambda: defaultdict(list))
    causes: Counter[Cause] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """AVG@K over samples with a verdict, its error over problems, and how often it differs and why."""
        labels = list(self.labels.values())
        counts = Counter(label for row in labels for label in row)
        return {
            "avg": avg_at_k(labels).value,
            "stderr": stderr_problem(labels),
            "correct": counts[1],
            "wrong": counts[0],
            "no_verdict": counts[None],
            "differs": sum(self.causes.values()),
            "causes": dict(self.causes),
        }


@dataclass
class Regraded:
    """What all graders make of the samples of one benchmark."""

    tallies: dict[str, Tally]
    """By grader; `stored` first."""
    disagreements: list[Disagreement]

    def report(self) -> dict[str, Any]:
        """A JSON object; golds and answers are text from others."""
        stored = self.tallies["stored"].labels
        return {
            "n": len(stored),
            "k": max(map(len, stored.values()), default=0),
            "samples": sum(map(len, stored.values())),
            "graders": [
                {
                    "grader": name,
                    "version": "as stored" if name == "stored" else describe(cast(GraderName, name)),
                    **tally.summary(),
                }
                for name, tally in self.tallies.items()
            ],
            "disagreements": [_shown(item) for item in self.disagreements],
        }


def regrade(
    rows: Iterable[Row],
    graders: Sequence[GraderName],
    *,
    extract: Extract,
    harnesses: Mapping[Harness, Foreign] = MappingProxyType({}),
) -> Regraded:
    """Ask each grader about each sample.

    Args:
        harnesses: The graders among them that are another harness's, `opened`.

    Raises:
        ErpdError: a harness's grader does not start, or math-verify is missing.
    """
    result = Regraded({name: Tally() for name in ("stored", *graders)}, [])
    theirs: dict[GraderName, Foreign] = {}
    for name in graders:
        if name in HARNESSES:
            theirs[name] = harnesses[name]
    pending = iter(rows)
    while chunk := list(islice(pending, _CHUNK_ROWS)):
        opinions = {
            name: ask_foreign(theirs[name], chunk, extract) if name in theirs else ask_here(name, chunk, extract)
            for name in graders
        }
        _count(result, chunk, opinions, theirs, extract)
    return result


def _count(
    result: Regraded,
    rows: Sequence[Row],
    opinions: dict[GraderName, list[Opinion]],
    harnesses: Mapping[GraderName, Foreign],
    extract: Extract,
) -> None:
    """Add a chunk of samples to the tallies and its disagreements to the list."""
    differences: dict[int, list[Difference]] = defaultdict(list)
    for row in rows:
        result.tallies["stored"].labels[row["problem_id"]].append(row["label"])
    for name, given in opinions.items():
        tally = result.tallies[name]
        for row, opinion in zip(rows, given, strict=True):
            tally.labels[row["problem_id"]].append(opinion.label)
        differing = [index for index, row in enumerate(rows) if given[index].label != row["label"]]
        causes = _causes([rows[i] for i in differing], [given[i] for i in differing], harnesses.get(name), extract)
        tally.causes.update(causes)
        for index, cause in zip(differing, causes, strict=True):
            differences[index].append(Difference(name, given[index], cause))
    for index in sorted(differences):
        row = rows[index]
        stored = (row["problem_id"], row["k"], row["gold"] or "", row["extracted"], row["verdict"], row["label"])
        result.disagreements.append(Disagreement(*stored, tuple(differences[index])))


def _causes(rows: Sequence[Row], opinions: Sequence[Opinion], grader: Foreign | None, extract: Extract) -> list[Cause]:
    """Why opinions differ from the stored verdicts; a harness's grader is asked about our answers alone."""
    causes = [_plain_cause(row, opinion) for row, opinion in zip(rows, opinions, strict=True)]
    if grader is None:
        return [cause or "equivalence" for cause in causes]
    answers = {index: our_answer(rows[index], extract) for index, cause in enumerate(causes) if cause is None}
    open_ = [index for index, answer in answers.items() if answer is not None]
    again = ask_about_answers(grader, [rows[i] for i in open_], [answers[i] or "" for i in open_])
    labels = {index: opinion.label for index, opinion in zip(open_, again, strict=True)}
    # Without an answer of ours there is nothing to compare: it found one where we find none.
    same_answer = {index for index in open_ if labels[index] != rows[index]["label"]}
    return [cause or ("equivalence" if i in same_answer else "extraction") for i, cause in enumerate(causes)]


def _plain_cause(row: Row, opinion: Opinion) -> Cause | None:
    if row["label"] is None:
        return "ungraded here"
    if opinion.label is None:
        return "no verdict"
    return "truncation" if row["verdict"] == "truncated" else None


def _shown(item: Disagreement) -> dict[str, Any]:
    differences = [{"grader": d.grader, **d.opinion._asdict(), "cause": d.cause} for d in item.differences]
    return {**item._asdict(), "differences": differences}
