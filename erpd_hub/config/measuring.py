"""Probes and evaluation."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from erpd_hub.config.benchmarks import Definitions, with_ad_hoc
from erpd_hub.config.common import Compute, StepConfig
from erpd_hub.config.judge import JudgeSettings
from erpd_hub.config.sampling import Decoding, EngineConfig, ServerEngine, TransformersEngine, check_extension
from erpd_hub.fields import CheckpointRef, EvaluatedRef, Later, Operational, PromptsRef, as_tuple


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
    """AVG@K of checkpoints on benchmarks, every sample kept."""

    stage: Literal["evaluate"] = "evaluate"
    checkpoints: Annotated[tuple[EvaluatedRef, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """`endpoint:MODEL` is a model behind the URLs of a `server` engine, asked by chat completions."""
    benchmarks: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Registered names, names of the recipe's own, or `namespace/name[@revision]:[config/]split:problem:answer`."""
    definitions: Definitions = Field(default_factory=dict)
    k: PositiveInt | None = None
    """Samples a problem; None takes the benchmark's own K."""
    decoding: Decoding | None = None
    """None takes the benchmark's own decoding."""
    extend_to: PositiveInt | None = None
    """Continue the samples that ended by length, from their token ids, up to this many new tokens."""
    engine: EngineConfig = TransformersEngine()
    limit: PositiveInt | None = None
    """First problems only; the score says so."""
    max_sequence_tokens: Annotated[PositiveInt | None, Later] = None
    """Of prompt and response together, beside the decoding's own limit [P: 81,920 is a length of sequences]."""
    on_error: Annotated[Literal["stop", "record"], Operational] = "stop"
    """What becomes of samples that a server fails at for good: `record` makes them rows of finish_reason `error` that
    no score counts, and the same command tries them again."""
    require_known_problems: Annotated[bool, Operational] = False
    """Refuse before anything is drawn, and not only warn, where a dataset has other problems than the benchmark's entry
    was checked with, or where neither a hash nor a commit of them is known."""
    judge: Annotated[JudgeSettings | None, Later] = None
    """Asked about what the rule turns down; its score stands beside the rule's, in an artifact of its own."""

    @model_validator(mode="before")
    @classmethod
    def _names_datasets(cls, data: Any) -> Any:
        return with_ad_hoc(data, "benchmarks")

    @model_validator(mode="after")
    def _extends(self) -> "EvaluateConfig":
        check_extension(self.extend_to, self.decoding, self.engine)
        return self

    @model_validator(mode="after")
    def _reaches_endpoints(self) -> "EvaluateConfig":
        endpoint = next((text for text in self.checkpoints if text.startswith("endpoint:")), None)
        if endpoint is None:
            return self
        if not isinstance(self.engine, ServerEngine):
            raise ValueError(
                f"engine: expected type server with urls for {endpoint}, got {self.engine.type}; --url URL"
            )
        if self.engine.model is not None:
            raise ValueError(f"engine.model: expected none, as {endpoint} names the model, got {self.engine.model!r}")
        for name in ("extend_to", "max_sequence_tokens"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: expected none for {endpoint}, which gives no token ids")
        return self
