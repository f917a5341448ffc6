"""All that a judge says of one set of samples: which questions there are, their rulings, and the report on them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from erpd_hub.config.judge import JudgeSettings
from erpd_hub.evaluation.judge.audit import audit, canary_report
from erpd_hub.evaluation.judge.canaries import canaries, rewordings
from erpd_hub.evaluation.judge.check import LEFT_OUT
from erpd_hub.evaluation.judge.client import ask_all
from erpd_hub.evaluation.judge.journal import Journal, Ruling, question_key
from erpd_hub.evaluation.judge.ledger import Ledger
from erpd_hub.evaluation.judge.prompt import PROMPT_VERSION, Question, Reply, read_verdict
from erpd_hub.evaluation.judge.selection import Row, by_question, draw, is_asked, question_of


@dataclass
class Opinion:
    """Questions and, after `ask`, rulings."""

    settings: JudgeSettings
    problems: Mapping[str, str]
    """Texts by id."""
    samples: int
    """Rows, asked about or not."""
    fallback: dict[Question, list[Row]]
    """What the rule turned down, with the samples behind each question."""
    right: dict[Question, list[Row]]
    """What it takes for right, of which `audited` are asked about."""
    audited: list[Question]
    rulings: dict[Question, Ruling] = field(default_factory=dict)

    @classmethod
    def on(cls, rows: Sequence[Row], problems: Mapping[str, str], settings: JudgeSettings, *, seed: int) -> "Opinion":
        """The questions that samples raise; `seed` draws those of the audit."""
        right = by_question((row for row in rows if row["verdict"] == "correct" and row["gold"]), problems)
        return cls(
            settings=settings,
            problems=problems,
            samples=len(rows),
            fallback=by_question((row for row in rows if is_asked(row)), problems),
            right=right,
            audited=draw(right, count=settings.audit, seed=seed),
        )

    def ask(self, journal: Journal) -> None:
        """Ask what the journal does not know; canaries first, since they say what the rest is worth.

        Raises:
            ConfigError, StageError: see `ask_all`.
        """
        questions = [*canaries(), *rewordings(), *self.fallback, *self.audited]
        ask_all(questions, self.settings, journal)
        self.rulings = {
            question: journal.rulings[question_key(question, self.settings.model)] for question in questions
        }

    def cell(self, row: Row) -> str | None:
        """What stands in a row's `judge` column; None where nobody was asked."""
        if not is_asked(row):
            return None
        question = question_of(row, self.problems)
        ruling = self.rulings[question]
        reason = {"reason": ruling.reason} if ruling.reason else {}
        return json.dumps({"status": ruling.status, **reason, "key": question_key(question, self.settings.model)[:16]})

    def report(self, journal: Journal) -> dict[str, Any]:
        """Counts, cost, audit and canaries, as JSON."""
        asked = {question: self.rulings[question] for question in self.fallback}
        samples = {question: len(rows) for question, rows in self.fallback.items()}
        known = sum(self._is_reused(question, journal) for question in self.rulings)
        wrong = [ruling for q, ruling in asked.items() if self.fallback[q][0]["verdict"] == "wrong"]
        spent = journal.spent
        return {
            "model": self.settings.model,
            "prompt_version": PROMPT_VERSION,
            "samples": self.samples,
            "asked": sum(samples.values()),
            "questions": len(asked),
            "flips": sum(samples[q] for q, ruling in asked.items() if ruling.status == "accepted"),
            "unjudged": sum(samples[q] for q, ruling in asked.items() if ruling.status == "unjudged"),
            "unjudged_reasons": _reasons(self.rulings.values()),
            "calls": spent.calls,
            "cache_hits": sum(samples.values()) - len(asked) + known,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "cost": round(Ledger(self.settings).cost(spent), 6),
            "audit": audit([self.rulings[q] for q in self.audited], wrong, right_population=len(self.right)),
            **canary_report(
                {question.problem_id: self.rulings[question] for question in canaries()},
                [self.rulings[question] for question in rewordings()],
                threshold=self.settings.max_canary_acceptance,
            ),
            "canaries_cached": sum(self._is_reused(question, journal) for question in canaries()),
        }

    def _is_reused(self, question: Question, journal: Journal) -> bool:
        """Whether another artifact had asked it."""
        return question_key(question, self.settings.model) in journal.reused

    def replies(self) -> Iterator[dict[str, Any]]:
        """Every question with what was said to it, for the artifact."""
        for question, ruling in self.rulings.items():
            rows = self.fallback.get(question) or self.right.get(question) or []
            purpose = (
                "fallback" if question in self.fallback else "audit" if rows else question.problem_id.split("/")[0]
            )
            yield {
                "purpose": purpose,
                "problem_id": rows[0]["problem_id"] if rows else question.problem_id,
                "gold": question.gold,
                "answer": question.answer,
                "samples": len(rows),
                "rule": rows[0]["verdict"] if rows else None,
                "status": ruling.status,
                "reason": ruling.reason,
                "replies": list(ruling.replies),
                "key": question_key(question, self.settings.model),
            }

    def flips(self) -> Iterator[dict[str, Any]]:
        """Every sample that the judge calls right and the rule does not."""
        for question, rows in self.fallback.items():
            ruling = self.rulings[question]
            for row in rows if ruling.status == "accepted" else ():
                yield {
                    "problem_id": row["problem_id"],
                    "k": row["k"],
                    "gold": question.gold,
                    "answer": question.answer,
                    "rule": row["verdict"],
                    "reply": ruling.replies[-1],
                }


def without_gold(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry for details that do not show golds: no gold of the benchmark's, and of replies only bare verdicts."""
    if entry.get("purpose", "fallback") not in ("fallback", "audit"):
        return entry
    hidden = entry | {"gold": None}
    if "replies" in entry:
        hidden["replies"] = [_bare(reply) for reply in entry["replies"]]
    if "reply" in entry:
        hidden["reply"] = _bare(entry["reply"])
    return hidden


def _bare(reply: str) -> str:
    """A reply that is its verdict alone; of any other, which may repeat the gold, its hash."""
    if not reply.lstrip().startswith("<think>") and read_verdict(Reply(reply, True, None, None)):
        return reply
    return f"{LEFT_OUT}, sha256 {hashlib.sha256(reply.encode()).hexdigest()})"


def _reasons(rulings: Iterable[Ruling]) -> dict[str, int]:
    found: dict[str, int] = {}
    for ruling in rulings:
        if ruling.reason:
            found[ruling.reason] = found.get(ruling.reason, 0) + 1
    return dict(sorted(found.items()))
