"""One sampling job: the plan with all that its results depend on, and where they go."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from erpd_hub.config import Decoding, PromptFormat
from erpd_hub.evaluation.grading import Grade
from erpd_hub.rewards import Reward
from erpd_hub.samples import Sample, sample_schema
from erpd_hub.sampling.draws import Draw
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.plan import Earlier, response_limit
from erpd_hub.sampling.progress import Progress
from erpd_hub.sampling.rows import grade_pairs, regraded, sample_row
from erpd_hub.sampling.stored import TakenOver, revealed
from erpd_hub.stage_context import StageContext


@dataclass(frozen=True)
class Job:
    draws: Sequence[Draw]
    benchmark: str
    decoding: Decoding
    """With the final limit: that of the extension, if this is one."""
    format: PromptFormat
    earlier: Earlier | None
    out: Path
    context: StageContext
    reward: Reward | None = None
    """None grades by the gold answer."""
    taken_over: TakenOver | None = None
    max_sequence_tokens: int | None = None
    """Prompt and response together."""
    record_errors: bool = False
    """A sample that fails for good becomes a row that nobody can grade, and does not stop the stage."""

    @property
    def unseeded(self) -> Path:
        """Exists where a server has drawn samples without their seeds."""
        return self.context.work / "unseeded"

    @cached_property
    def open_draws(self) -> list[Draw]:
        """What is drawn here: what is not taken over, and in an extension only what ended by length."""
        return [draw for draw in self.draws if self.is_open(draw)]

    def is_open(self, draw: Draw) -> bool:
        if self.taken_over is not None and draw in self.taken_over:
            return False
        if self.earlier is None:
            return True
        return self.earlier.is_open(draw) and self.earlier.num_tokens(draw) < self._limit(draw)

    def kept_row(self, draw: Draw) -> Sample | dict[str, Any]:
        """The row of a sample that is not drawn here."""
        if self.taken_over is not None and draw in self.taken_over:
            return self.taken_over.row(draw)
        assert self.earlier is not None, "nothing else keeps a sample"
        return revealed(self.earlier.row(draw), draw)

    def kept_rows(self, draws: Sequence[Draw]) -> list[dict[str, Any]]:
        """Rows of samples that are not drawn here, compared with the gold afresh: one grader for all of an artifact.

        What a reward or an earlier run of tests says of a response stays.
        """
        rows = [dict(self.kept_row(draw)) for draw in draws]
        return rows if self.reward is not None else regraded(draws, rows, self.format)

    def kept_tokens(self, draw: Draw) -> int:
        if self.taken_over is not None and draw in self.taken_over:
            return self.taken_over.num_tokens(draw)
        return self.earlier.num_tokens(draw) if self.earlier is not None else 0

    def request(self, draw: Draw) -> Request:
        so_far = tuple(self.earlier.row(draw)["response_ids"]) if self.earlier else ()
        prompt = draw.prompt
        return Request(prompt.prompt_ids, draw.seed, so_far, self._limit(draw), prompt.messages)

    def room(self, draw: Draw) -> int:
        """Tokens of a sample with its longest response."""
        return len(draw.prompt.prompt_ids) + self._limit(draw)

    def progress(self, total: int, before: int) -> Progress:
        return Progress(total, before=before, label=self.benchmark, replica=self.context.replica)

    def schema(self, *, counted: bool = False) -> pa.Schema:
        """Of the rows, with a column for what servers have counted where there is any such."""
        counted |= self.taken_over is not None and self.taken_over.counted
        return sample_schema(["num_tokens"] if counted else [])

    def grade(self, pairs: Sequence[tuple[Draw, Completion]]) -> list[Grade]:
        """Grades of completions, in order."""
        if self.reward is None:
            return grade_pairs(pairs, self.format)
        return self.reward.grade(pairs, self.format)

    def row(self, draw: Draw, completion: Completion, grade: Grade) -> Sample:
        before = self.earlier.row(draw) if self.earlier else None
        return sample_row(draw, completion, grade, self.benchmark, before)

    def _limit(self, draw: Draw) -> int:
        return response_limit(draw.prompt, self.decoding.max_new_tokens, self.max_sequence_tokens)
