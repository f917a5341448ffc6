"""Fully on-policy reinforcement learning between the offline rounds."""

from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveFloat, PositiveInt, model_validator

from erpd_hub.config.losses import GRPOLoss, TeacherLoss
from erpd_hub.config.sampling import Decoding, EngineConfig, ServerEngine, TransformersEngine, check_reward
from erpd_hub.config.training import TrainingConfig
from erpd_hub.fields import Later, LocalOnly, Operational, PromptsRef, UserCode


class OnlineConfig(TrainingConfig):
    """Micro-rounds: each step samples from the policy as it is, grades, and takes one optimizer step [P Sec. 4.4].

    Each batch is used once, so the ratio to the policy that sampled is 1 and a clip never acts: its bounds are the
    offline ones [P: the other settings are those of offline] and change nothing.
    """

    stage: Literal["online"] = "online"
    prompts: PromptsRef
    """Gone through in random order, anew when all have been used."""
    loss: TeacherLoss = GRPOLoss(type="grpo")
    """One that compares the samples of a prompt or looks at outcomes alone [P: GRPO]."""
    k: PositiveInt = 16
    """Responses to each prompt of a step [P, D: 32 prompts x 16 a step]."""
    decoding: Decoding = Decoding()
    """[P] temperature from 0.6 to 1.0. The gradient is that of what is sampled where `logprob_temperature` is the same
    and top_p and top_k cut nothing off."""
    engine: EngineConfig = TransformersEngine()
    """`transformers` samples from the weights in training; `vllm` is started on them for each step."""
    reward: Annotated[str, AfterValidator(check_reward), UserCode] = "math"
    """As in a rollout."""
    reward_seconds: Annotated[PositiveFloat, Later] = 60.0
    """One call of a reward function may take."""
    limit: PositiveInt | None = None
    """First prompts only, for trying out."""
    kl_to_start: bool = True
    """Measure KL(policy || start) on each step's samples, for which the start is loaded beside the policy: 4 bytes a
    parameter of host memory, and of the GPU's while it scores."""
    sampler_python: Annotated[str | None, LocalOnly] = None
    """Interpreter of another environment in which an engine with a process of its own (vllm) runs."""
    checkpoint_every: Annotated[PositiveInt, Operational] = 1
    """Steps between resumable checkpoints: what a kill loses is sampled again."""

    @model_validator(mode="after")
    def _samples(self) -> "OnlineConfig":
        if isinstance(self.engine, ServerEngine):
            raise ValueError(
                "engine.type: expected transformers or vllm, which get the policy's new weights at each step, got "
                "server: a server keeps the weights that it was started with; use a rollout for it"
            )
        if self.decoding.temperature == 0:
            raise ValueError("decoding.temperature: expected more than 0, got 0: equal samples teach nothing")
        if self.k == 1 and self.loss.advantage_kind in ("group", "centred"):
            raise ValueError(f"k: expected at least 2 for the {self.loss.type} loss, which compares them, got 1")
        return self

    @model_validator(mode="after")
    def _on_policy(self) -> "OnlineConfig":
        if missing := sorted(self.loss.required - {"old"}):
            raise ValueError(
                f"loss.type: expected one without a {missing[0]}, such as grpo, sapo or dr_grpo, got {self.loss.type}"
            )
        if self.loss.right_only:
            raise ValueError(f"loss.type: expected one that learns from wrong responses too, got {self.loss.type}")
        return self
