"""Fully on-policy reinforcement learning between the offline rounds."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, PositiveFloat, PositiveInt, model_validator

from erpd_hub.config.losses import GRPOLoss, TeacherLoss
from erpd_hub.config.sampling import Decoding, EngineConfig, ServerEngine, TransformersEngine, check_reward
from erpd_hub.config.training import TrainingConfig
from erpd_hub.fields import Later, LocalOnly, Operational, PromptsRef, UserCode

_TRL_LOSSES = ("grpo", "sapo", "gspo", "cispo", "vespo")
"""Those that GRPOTrainer has with our divisor; it divides Dr. GRPO's by the most tokens there may be, we by the longest
response."""


class OnlineConfig(TrainingConfig):
    """Micro-rounds: each step samples from the policy as it is, grades, and takes one optimizer step [P Sec. 4.4].

    Each batch is used once, so the ratio to the policy that sampled is 1 and a clip never acts: its bounds are the
    offline ones [P: the other settings are those of offline] and change nothing.
    """

    stage: Literal["online"] = "online"
    backend: Annotated[Literal["own", "trl"], Later] = "own"
    """`trl` samples and trains in TRL's GRPOTrainer, in one process: the same prompts, grading, loss and optimizer by
    another program, whose samples are others. What it has not is refused."""
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

    @property
    def in_one_process(self) -> bool:
        return self.backend == "trl"

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

    @model_validator(mode="after")
    def _trl_can(self) -> "OnlineConfig":
        if self.backend == "trl" and (misfit := next(self._beyond_trl(), None)):
            raise ValueError(f"{misfit}; or take backend: own")
        return self

    def _beyond_trl(self) -> Iterator[str]:
        """What TRL's trainer cannot do as it is said here: the place, what would do, what was got."""
        if self.loss.type not in _TRL_LOSSES:
            yield f"loss.type: expected {', '.join(_TRL_LOSSES)} with backend: trl, got {self.loss.type}"
        if not isinstance(self.engine, TransformersEngine):
            yield f"engine.type: expected transformers with backend: trl, got {self.engine.type}"
        elif self.engine.dtype not in ("auto", self.dtype):
            yield f"engine.dtype: expected auto or {self.dtype}, as trained, with backend: trl, got {self.engine.dtype}"
        elif self.engine.batch_tokens != TransformersEngine().batch_tokens:
            yield "engine.batch_tokens: expected nothing with backend: trl, which samples a whole step in one batch"
        if self.logprob_temperature != self.decoding.temperature:
            drawn, scored = self.decoding.temperature, self.logprob_temperature
            yield f"logprob_temperature: expected decoding's, {drawn:g}, with backend: trl, got {scored:g}"
        if self.decoding.presence_penalty:
            yield f"decoding.presence_penalty: expected 0 with backend: trl, got {self.decoding.presence_penalty:g}"
        if self.layout not in ("auto", "padded"):
            yield f"layout: expected padded or auto with backend: trl, got {self.layout}"
        for name, only in (("kl_to_start", False), ("lora", None), ("activation_offload", False), ("parallel", "auto")):
            if (got := getattr(self, name)) != only:
                yield f"{name}: expected {str(only).lower()} with backend: trl, got {str(got).lower()}"
