"""One sampling job: the plan with all that its results depend on, and where they go."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from erpd_hub.config import Decoding, PromptFormat
from erpd_hub.evaluation.grading import Grade
from erpd_hub.rewards import RewardFunction
from erpd_hub.samples import Sample
from erpd_hub.sampling.engine import Completion
from erpd_hub.sampling.plan import Draw, Earlier
from erpd_hub.sampling.rows import grade_pairs, sample_row
from erpd_hub.stages import StageContext


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
    reward: RewardFunction | None = None
    """None grades by the gold answer."""

    @cached_property
    def open_draws(self) -> list[Draw]:
        """What is drawn here: everything, or in an extension what ended by length."""
        return [draw for draw in self.draws if self.earlier is None or self.earlier.is_open(draw)]

    def grade(self, pairs: Sequence[tuple[Draw, Completion]]) -> list[Grade]:
        """Grades of completions, in order."""
        if self.reward is None:
            return grade_pairs(pairs, self.format)
        return self.reward.grade(pairs, self.format)

    def row(self, draw: Draw, completion: Completion, grade: Grade) -> Sample:
        before = self.earlier.row(draw) if self.earlier else None
        return sample_row(draw, completion, grade, self.benchmark, before)
