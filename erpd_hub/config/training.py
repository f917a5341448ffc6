"""Log-probs and the two stages of training."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from erpd_hub.config.common import Dtype, Fraction, NonNegative, Numerics, StepConfig
from erpd_hub.fields import CheckpointRef, Config, Operational, RolloutsRef, SignalRef


class ScoreConfig(StepConfig, Numerics):
    """Token log-probs of one checkpoint on one rollouts artifact: the only producer of log-probs used in training."""

    stage: Literal["score"] = "score"
    rollouts: RolloutsRef
    checkpoint: CheckpointRef


class LoRA(Config):
    """A low-rank adapter in place of full weights."""

    r: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class TrainingConfig(StepConfig, Numerics):
    """What both stages of training share; the loss is what differs. Numerics must be those of the log-probs it uses."""

    rollouts: RolloutsRef
    init: CheckpointRef = "policy"
    learning_rate: PositiveFloat = 1e-6
    """[D] 1e-6, constant."""
    steps: PositiveInt
    """Optimizer steps."""
    prompts_per_step: PositiveInt = 32
    """[P, D] 32 or 64 prompts, each with all its samples."""
    save_steps: tuple[PositiveInt, ...] = ()
    """Steps to keep besides the last."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NonNegative = 0.0
    adam_beta1: Fraction = 0.9
    adam_beta2: Fraction = 0.95
    max_grad_norm: PositiveFloat = 1.0
    gradient_checkpointing: bool = False
    activation_offload: Annotated[bool, Operational] = False
    """Keep what gradient checkpointing saves in host memory."""
    lora: LoRA | None = None
    """Train an adapter; None trains every weight."""
    push_dtype: Dtype = "float32"
    """Of the saved weights; masters in training are fp32."""
    parallel: Annotated[Literal["auto", "ddp", "fsdp2", "zero3"], Operational] = "auto"
    """How several processes share the model; `auto` is DDP where a whole replica fits, else FSDP2."""
    context_parallel: Annotated[PositiveInt, Operational] = 1
    """Processes that share one sequence."""
    report_to: Annotated[Literal["none", "trackio", "wandb", "tensorboard"], Operational] = "none"
    push_steps: Annotated[Literal["referenced", "all", "none"], Operational] = "referenced"
    """Which saved steps become commits: those that something else in the recipe uses, all, or only the last."""
    checkpoint_every: Annotated[PositiveInt, Operational] = 8
    """Steps between resumable checkpoints in the work directory."""

    @model_validator(mode="after")
    def _steps_in_range(self) -> "TrainingConfig":
        late = [step for step in self.save_steps if step > self.steps]
        if late:
            raise ValueError(f"save_steps: expected steps up to {self.steps}, got {late[0]}")
        if self.context_parallel > 1:
            # accelerate's is torch's ring attention: each process gets a zigzag part of a sequence's positions, prompts
            # and targets would have to be cut the same way by hand, and sequence rewards (Eq. 3) would sum over pieces.
            raise ValueError(
                f"context_parallel: expected 1, got {self.context_parallel}: accelerate splits a sequence's positions "
                "over processes, and the log-probs of a response are computed where all its positions are; use "
                "parallel: fsdp2 with gradient_checkpointing and activation_offload for long sequences"
            )
        if self.activation_offload and not self.gradient_checkpointing:
            raise ValueError("activation_offload: expected gradient_checkpointing with it, got none")
        return self

    @property
    def kept_steps(self) -> tuple[int, ...]:
        return tuple(sorted({*self.save_steps, self.steps}))


class CELoss(Config):
    """Eq. 2: binary cross-entropy of the implicit sequence reward against the outcome."""

    needs_reference: ClassVar[bool] = True
    type: Literal["ce"]
    beta: PositiveFloat = 0.05
    """[P] 0.001 to 0.05 at about 20k tokens; the right scale falls with the length under `sum`."""
    aggregate: Literal["sum", "mean"] = "sum"
    """Of token log-ratios over the sequence (Eq. 3) [P: both were tuned]."""


class MSELoss(Config):
    """Eq. 10: unlearn and recover, w(R) (pi(a|s) - R)^2."""

    needs_reference: ClassVar[bool] = False
    type: Literal["mse"]
    negative_weight: NonNegative = 1.0
    """[P Table 9] weight of tokens of wrong responses."""


TeacherLoss = Annotated[CELoss | MSELoss, Field(discriminator="type")]


class TeacherConfig(TrainingConfig):
    """Stage 1: squeeze the batch dry."""

    stage: Literal["teacher"] = "teacher"
    reference: CheckpointRef = "policy"
    """Reference policy of the CE reward; the unlearned checkpoint when recovering from it [P Table 8]."""
    loss: TeacherLoss


class UnlearnedConfig(StepConfig):
    """Publishes an early step of an MSE run as a checkpoint of its own."""

    stage: Literal["unlearned"] = "unlearned"
    teacher: CheckpointRef
    """`NAME@step-N`, N typically 10 to 30 in the paper [P]."""


class SignalConfig(StepConfig):
    """The raw token signal r = log numerator - log denominator on the rollouts' own tokens."""

    stage: Literal["signal"] = "signal"
    rollouts: RolloutsRef
    strategy: Literal[1, 2] | None = None
    """1: strong teacher against the policy. 2: recovered teacher against the unlearned one [P Fig. 3]."""
    numerator: CheckpointRef
    denominator: CheckpointRef = "policy"

    @model_validator(mode="after")
    def _strategy_fits(self) -> "SignalConfig":
        if self.numerator == self.denominator == "none":
            raise ValueError("numerator and denominator: expected at least one checkpoint, got none twice")
        if self.strategy == 1 and self.denominator != "policy":
            raise ValueError(f"denominator: strategy 1 expects policy, got {self.denominator!r}")
        if self.strategy == 2 and self.denominator in ("policy", "none"):
            raise ValueError(f"denominator: strategy 2 expects an unlearned checkpoint, got {self.denominator!r}")
        return self


class DistillConfig(TrainingConfig):
    """Stage 2: what matters in the signal, back into the policy under a trust region (Eq. 9)."""

    stage: Literal["distill"] = "distill"
    advantage: Literal["signal", "outcome"] = "signal"
    """`outcome` is the no-teacher control: the group-centred outcome through the same objective [I]."""
    signal: SignalRef | None = None
    whiten: bool = True
    """[P] whitening over all response tokens of the batch; the set is not stated [I]."""
    shift_mean: bool = True
    """Subtract the mean when whitening [S verl]."""
    clip_low: Fraction = 0.2
    clip_high: NonNegative = 0.28
    """[I] the paper's only stated clip numbers are GRPO's."""
    kl_weight: NonNegative = 0.0
    """Weight of k3 KL(student || old) on old samples [P Table 5]."""
    entropy_weight: NonNegative = 0.0
    """[P Table 6b] 0.5 where used."""

    @model_validator(mode="after")
    def _signal_given(self) -> "DistillConfig":
        if (self.signal is None) == (self.advantage == "signal"):
            raise ValueError(f"signal: expected {'a signal step' if self.signal is None else 'nothing'} "
                             f"with advantage {self.advantage!r}")  # fmt: skip
        return self
