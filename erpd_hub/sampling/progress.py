"""How far sampling is, while it runs: throughput, the score so far and the time to go, as log lines and as a file.

With ERPD_PROGRESS=FILE in the environment (`erpd-hub evaluate --progress FILE`) each line also replaces that file,
whole or not at all, with one JSON object; replica N > 0 of a stage writes FILE.N.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import write_json
from erpd_hub.evaluation.grading import Grade

SCHEMA = "erpd-hub/progress/v1"
_LOG_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Progress:
    """Counts what is drawn and graded in this call, and says so now and then."""

    def __init__(self, total: int, *, before: int = 0, label: str = "", replica: int = 0) -> None:
        """
        Args:
            total: Samples that this call draws.
            before: Samples that are there already.
            label: What they are of: the benchmark, or the prompts' source.
        """
        self.total, self.before, self.label = total, before, label
        self.samples = self.tokens = self.correct = self.graded = 0
        self._started = self._logged = time.monotonic()
        name = os.environ.get("ERPD_PROGRESS")
        self._file = Path(f"{name}.{replica}" if replica else name) if name else None

    def drawn(self, tokens: int) -> None:
        """One sample more, with this many new tokens."""
        self.samples += 1
        self.tokens += tokens

    def add_grades(self, grades: Sequence[Grade]) -> None:
        labels = [grade.label for grade in grades if grade.label is not None]
        self.correct += sum(labels)
        self.graded += len(labels)

    def state(self) -> dict[str, Any]:
        """What the file says; rates and times are of this call, null before the first sample."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        left = (self.total - self.samples) * seconds / self.samples if self.samples else None
        return {
            "schema": SCHEMA,
            "label": self.label,
            "samples": self.before + self.samples,
            "of": self.before + self.total,
            "from_before": self.before,
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / seconds, 1) if self.samples else None,
            "seconds_left": None if left is None else round(left, 1),
            "score": self.correct / self.graded if self.graded else None,
            "graded": self.graded,
        }

    def log(self, *, now: bool = False) -> None:
        """A line, unless the last one is only just gone."""
        time_now = time.monotonic()
        if not now and time_now - self._logged < _LOG_SECONDS:
            return
        self._logged = time_now
        state = self.state()
        logger.info("%s", _line(state))
        if self._file is not None:
            write_json(self._file, json.dumps(state) + "\n")


def _line(state: dict[str, Any]) -> str:
    score = "-" if state["score"] is None else f"{100 * state['score']:.1f} % of {state['graded']}"
    left = "-" if state["seconds_left"] is None else _duration(state["seconds_left"])
    before = f" ({state['from_before']} from before)" if state["from_before"] else ""
    return (
        f"{state['label']}: {state['samples']}/{state['of']} samples{before}, {score} right so far, "
        f"{state['tokens_per_second'] or 0:.0f} tokens/s, {left} to go"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
