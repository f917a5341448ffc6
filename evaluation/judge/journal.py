"""What the judge has said: kept line by line as it comes, so that nothing is asked twice and no money is forgotten.

A journal is a file of JSON lines. The one in the work folder has all of one artifact, rulings and what they cost; the
shared one of this machine has the verdicts of every artifact under the same judge, endpoint and way of asking, each for
the problem's text as it was shown and with the time it was given.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from erpd_hub.config.judge import JudgeSettings
from erpd_hub.evaluation.judge.ledger import NOTHING, Charge
from erpd_hub.evaluation.judge.prompt import PROMPT_VERSION, Question

Status = Literal["accepted", "rejected", "unjudged"]


@dataclass(frozen=True)
class Ruling:
    """What came of one question."""

    status: Status
    reason: str | None
    """Why there is no verdict."""
    replies: tuple[str, ...]
    """The judge's own words, cut."""


def question_key(question: Question, model: str, prompt_version: int = PROMPT_VERSION) -> str:
    """sha256 of judge, prompt version, problem id, gold and answer."""
    parts = [model, prompt_version, question.problem_id, question.gold, question.answer]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def shared_name(settings: JudgeSettings) -> str:
    """Of the shared journal: everything besides the key that a verdict may depend on."""
    parts = [settings.model, settings.url, settings.send_problem, settings.temperature, settings.options]
    parts += [settings.max_tokens, PROMPT_VERSION]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16] + ".jsonl"


class Journal:
    """Rulings and charges by their question's key, from the work folder's file and, as they are asked for, the shared
    one."""

    def __init__(self, own: Path, shared: Path) -> None:
        self.own, self.shared = own, shared
        self.rulings: dict[str, Ruling] = {}
        self.reused: set[str] = set()
        """Keys of rulings that cost this artifact nothing."""
        self.spent: Charge = NOTHING
        for line in _lines(own):
            if "charge" in line:
                self.spent += Charge(*line["charge"])
            elif line.get("asked") == shared.name:  # by the same endpoint, where this was begun at another
                self.rulings[line["key"]] = _ruling(line)
        self._shared = {(line["key"], line.get("shown", "")): line for line in _lines(shared)}

    def borrow(self, key: str, question: Question, *, since: float = 0.0) -> None:
        """Take the shared journal's verdict on a question that has no ruling here.

        Args:
            question: As it is shown to the judge: an edited problem is another question.
            since: Seconds since the epoch; what was said before is asked again.
        """
        line = self._shared.get((key, _shown(question)))
        if line is not None and key not in self.rulings and line.get("at", 0) >= since:
            self.rulings[key] = _ruling(line)
            self.reused.add(key)

    def rule(self, key: str, question: Question, ruling: Ruling) -> None:
        """Keep a ruling; one without a verdict is this artifact's alone."""
        self.rulings[key] = ruling
        line = {"key": key, **asdict(ruling)}
        _append(self.own, {**line, "asked": self.shared.name})
        if ruling.status != "unjudged":
            _append(self.shared, {**line, "shown": _shown(question), "at": int(time.time())})

    def charge(self, charge: Charge) -> None:
        """Keep what a request cost."""
        self.spent += charge
        _append(self.own, {"charge": list(charge)})


def _ruling(line: dict[str, Any]) -> Ruling:
    return Ruling(line["status"], line["reason"], tuple(line["replies"]))


def _shown(question: Question) -> str | None:
    """What tells two texts of one problem apart; None where the judge does not see it."""
    return None if question.problem is None else hashlib.sha256(question.problem.encode(errors="replace")).hexdigest()


def _append(path: Path, line: dict[str, Any]) -> None:
    """One whole line, whoever else writes; it begins with a line's end where a kill left half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(line).encode() + b"\n"
    with path.open("ab+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if stream.seek(0, 2) and _last_byte(stream) != b"\n":
            data = b"\n" + data
        stream.write(data)


def _last_byte(stream: Any) -> bytes:
    stream.seek(-1, 2)
    return bytes(stream.read(1))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal; half of one, which a kill may leave, was never acted on."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for text in stream:
            try:
                yield json.loads(text)
            except ValueError:
                continue
