"""Decisions on the validation benchmark: whether the teacher is better than the policy, and which saved step to take.

[P] validates on HMMT Feb 25. A benchmark that decides something is marked wherever a score on it is shown.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from erpd_hub.config.benchmarks import Definitions, with_ad_hoc
from erpd_hub.config.common import StepConfig
from erpd_hub.config.sampling import Decoding, EngineConfig, ServerEngine, TransformersEngine
from erpd_hub.fields import CheckpointRef, as_tuple

Level = Annotated[float, Field(gt=0, lt=1)]


class _Validation(StepConfig):
    """How several checkpoints are sampled on the benchmark that decides."""

    benchmark: str
    """One that no reported number rests on; [P] HMMT Feb 25."""
    definitions: Definitions = Field(default_factory=dict)
    decoding: Decoding | None = None
    """None takes the benchmark's own decoding."""
    engine: EngineConfig = TransformersEngine()
    limit: PositiveInt | None = None
    """First problems only."""

    @model_validator(mode="before")
    @classmethod
    def _names_dataset(cls, data: Any) -> Any:
        return with_ad_hoc(data, "benchmark")

    @model_validator(mode="after")
    def _has_weights_of_each(self) -> "_Validation":
        if isinstance(self.engine, ServerEngine):
            raise ValueError(
                "engine.type: expected transformers or vllm, which load each checkpoint, got server: a server keeps "
                "the weights that it was started with"
            )
        return self


class GateConfig(_Validation):
    """Whether the teacher is better than the policy, by a paired test: what `strategy: auto` of a signal follows.

    [P] moves on from strategy 1 when the teacher no longer improves on the policy; the test is ours [I].
    """

    stage: Literal["gate"] = "gate"
    teacher: CheckpointRef
    policy: CheckpointRef = "policy"
    k: PositiveInt | None = None
    """Samples a problem; None takes the benchmark's own K. An equal evaluation of the recipe is shared."""
    alpha: Level = 0.05
    """[I] Level of the one-sided test."""
    margin: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """[I] By how much AVG@K the teacher must at least be better, in [-1, 1]."""
    otherwise: Annotated[tuple[Literal[2, 3], ...], Field(min_length=1)] = (2, 3)
    """Strategies when it is not, in order of preference: a signal takes the first one it offers."""

    @model_validator(mode="after")
    def _two_checkpoints(self) -> "GateConfig":
        if self.teacher == self.policy:
            raise ValueError(f"teacher: expected another checkpoint than the policy, got {self.teacher!r} twice")
        return self


class SelectConfig(_Validation):
    """The best of several checkpoints by a race on the validation benchmark, with its score on samples drawn afresh."""

    stage: Literal["select"] = "select"
    candidates: Annotated[tuple[CheckpointRef, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Checkpoints in the order of their steps; one step of training by itself stands for all steps it keeps."""
    k_start: PositiveInt = 4
    """[I] Samples a problem that every candidate gets."""
    k_max: PositiveInt = 32
    """[P] K = 32 on the contests; survivors get twice as many at each look until then."""
    alpha: Level = 0.05
    """[I] Chance, over all looks and rivals, that the best candidate leaves the race."""
    token_budget: PositiveInt | None = None
    """Response tokens that the race may take: no look is begun that would probably exceed it. The first one always is,
    and the samples of the final score come on top."""
    patience: PositiveInt | None = None
    """Further candidates are not tried after so many in a row below the best so far [P: several epochs "until
    performance begins to degrade"]."""
    final_k: PositiveInt | None = None
    """Fresh samples a problem of the winner, which alone count as its score; None takes the benchmark's own K."""

    @model_validator(mode="after")
    def _grows(self) -> "SelectConfig":
        if self.k_max < self.k_start:
            raise ValueError(f"k_max: expected at least k_start {self.k_start}, got {self.k_max}")
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("candidates: expected each once, got one of them twice")
        return self
