"""Probes and evaluation."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from erpd_hub.config.common import Compute, StepConfig
from erpd_hub.config.sampling import Decoding, EngineConfig, TransformersEngine, check_extension
from erpd_hub.fields import CheckpointRef, PromptsRef, as_tuple


class ProbeConfig(StepConfig, Compute):
    """KL to base and to the round's start, and entropy, of a checkpoint on its own samples (T=1, top_p 1)."""

    stage: Literal["probe"] = "probe"
    checkpoints: Annotated[tuple[CheckpointRef, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    prompts: PromptsRef
    policy: CheckpointRef = "policy"
    base: CheckpointRef = "base"
    num_prompts: PositiveInt = 128
    k: PositiveInt = 4
    max_new_tokens: PositiveInt = 1024
    engine: EngineConfig = TransformersEngine()
    micro_batch_tokens: PositiveInt = 8192


class EvaluateConfig(StepConfig):
    """AVG@K of checkpoints on registered benchmarks, every sample kept."""

    stage: Literal["evaluate"] = "evaluate"
    checkpoints: Annotated[tuple[CheckpointRef, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    benchmarks: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    k: PositiveInt | None = None
    """Samples a problem; None takes the benchmark's own K."""
    decoding: Decoding | None = None
    """None takes the benchmark's own decoding."""
    extend_to: PositiveInt | None = None
    """Continue the samples that ended by length, from their token ids, up to this many new tokens."""
    engine: EngineConfig = TransformersEngine()
    limit: PositiveInt | None = None
    """First problems only; the score says so."""

    @model_validator(mode="after")
    def _extends(self) -> "EvaluateConfig":
        check_extension(self.extend_to, self.decoding)
        return self
