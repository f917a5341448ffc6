"""The two stages of training."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from erpd_hub.config.common import Dtype, Fraction, NonNegative, Numerics, StepConfig
from erpd_hub.config.losses import TeacherLoss
from erpd_hub.fields import CheckpointRef, Config, CriticRef, Later, Operational, RolloutsRef, SignalRef, as_tuple

Keep = Literal["all", "positive", "negative"]
"""Which signs of a signal stay."""
KLEstimator = Literal["k1", "k2", "k3", "exact"]
KLCorrection = Literal["none", "ratio"]
Control = Literal["no-teacher", "single-stage", "tuned", "restart"]


class LoRA(Config):
    """A low-rank adapter in place of full weights."""

    r: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


class TrainingConfig(StepConfig, Numerics):
    """What both stages of training share; the loss is what differs. Numerics must be those of the log-probs it uses."""

    init: CheckpointRef = "policy"
    learning_rate: PositiveFloat = 1e-6
    """[D] 1e-6; [U] the schedule, [I] constant."""
    steps: PositiveInt
    """Optimizer steps."""
    prompts_per_step: PositiveInt = 32
    """[P, D] 32 or 64 prompts, each with all its samples."""
    save_steps: tuple[PositiveInt, ...] = ()
    """Steps to keep besides the last."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Linear from 0, which is the rate of the first update [S transformers]. The optimizer's other settings are not
    stated [U]: this and the next four are ours [I]."""
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
    """Of the saved weights; masters in training are fp32. bfloat16 keeps 8 bits of one: at rates below 1e-5 most of
    ten steps' updates are less than half a place and vanish from the artifact, which a plan cautions against where
    something goes on from it [I, computed]."""
    parallel: Annotated[Literal["auto", "ddp", "fsdp2", "zero3"], Operational] = "auto"
    """How several processes share the model; `auto` is DDP where a whole replica fits, else FSDP2."""
    context_parallel: Annotated[PositiveInt, Operational] = 1
    """Processes that share one sequence."""
    report_to: Annotated[Literal["none", "trackio", "wandb", "tensorboard"], Operational] = "none"
    push_steps: Annotated[Literal["referenced", "all", "none"], Operational] = "referenced"
    """Which saved steps become commits: those that something else in the recipe uses, all, or only the last."""
    checkpoint_every: Annotated[PositiveInt, Operational] = 8
    """Steps between resumable checkpoints in the work directory."""
    control_of: Annotated[str | None, Operational] = None
    """The step that this one is a control of: that is its role wherever it is shown, and no round starts from it."""

    @property
    def in_one_process(self) -> bool:
        """Whether it takes one GPU, however many there are."""
        return False

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


Truncated = Literal["negative", "masked", "dropped"]
"""Responses that ended by length: trained on as graded, which is wrong; part of their prompt's mean but not trained on;
or left out of both. The paper does not say [U]; to continue them instead is `extend_to` of the rollout."""


class TeacherConfig(TrainingConfig):
    """Stage 1: squeeze the batch dry."""

    stage: Literal["teacher"] = "teacher"
    rollouts: RolloutsRef
    reference: CheckpointRef = "policy"
    """Reference policy of the CE reward; the unlearned checkpoint when recovering from it [P Table 8]."""
    old: CheckpointRef = "policy"
    """The policy that sampled, for losses with a ratio to it."""
    truncated: Annotated[Truncated, Later] = "negative"
    """What becomes of responses that ended by length."""
    critic: CriticRef | None = None
    """Values of the responses' tokens, for PPO."""
    loss: TeacherLoss

    @model_validator(mode="after")
    def _critic_fits(self) -> "TeacherConfig":
        if (self.critic is None) == ("critic" in self.loss.required):
            wanted = "a critic step" if self.critic is None else "nothing"
            raise ValueError(f"critic: expected {wanted} with the {self.loss.type} loss, got {self.critic}")
        return self

    @model_validator(mode="after")
    def _compared_with_what_it_uses(self) -> "TeacherConfig":
        for role in ("reference", "old"):
            given = getattr(self, role)
            if given != "policy" and role not in self.loss.required:
                raise ValueError(
                    f"{role}: expected nothing with the {self.loss.type} loss, which does not look at its log-probs, "
                    f"got {given}"
                )
        return self


class DistillConfig(TrainingConfig):
    """Stage 2: what matters in the signal, back into the policy under a trust region (Eq. 9).

    An ensemble is a chain of two: the second has the first as its `init` and a signal of its own; clip and KL stay
    relative to the policy that the signal calls `old`.
    """

    stage: Literal["distill"] = "distill"
    rollouts: RolloutsRef
    advantage: Literal["signal", "outcome"] = "signal"
    """`outcome` is the no-teacher control: the group-centred outcome through the same objective [I]."""
    signal: SignalRef | None = None
    old: CheckpointRef | None = None
    """What clip and KL are relative to, for the advantage `outcome` (default: policy); a signal brings its own."""
    truncated: Annotated[Truncated, Later] = "negative"
    """What becomes of responses that ended by length."""
    anchor: CheckpointRef | None = None
    """The same policy as a checkpoint, for the exact KL: by default the signal's `old`, or policy."""
    keep_on_right: Keep = "all"
    """Signs of the signal that stay on right responses, the others become 0 [P Table 12: `negative` gains, `positive`
    loses; its headline rows use `negative`, D]."""
    keep_on_wrong: Keep = "all"
    """The same on wrong responses [P: all]."""
    whiten: Literal["dataset", "step", "none"] = "dataset"
    """[P] whitening; over all response tokens of the batch or of an optimizer step is not stated [U]; `dataset` [I]."""
    whiten_order: Literal["after_mask", "before_mask"] = "after_mask"
    """[P Table 12] after the mask: removed tokens then count as zeros in mean and scale, which confounds the mask."""
    shift_mean: bool = True
    """Subtract the mean when whitening [S verl]."""
    denominator: Literal["fixed", "evolving"] = "fixed"
    """`evolving`: the student itself takes the denominator's place, anew at each step, under the whitening that the old
    policy in its place gives [P Fig. 7]."""
    clip_low: Fraction = 0.2
    clip_high: NonNegative = 0.28
    """[I] the paper's only stated clip numbers are GRPO's."""
    dual_clip: Annotated[float | None, Field(gt=1)] = None
    """Bound on the ratio of tokens with a negative advantage [S verl: 3]; the paper does not mention it."""
    kl_weight: NonNegative = 0.0
    """Weight of KL(student || old) on old samples [P Table 5]."""
    kl_estimator: KLEstimator = "k3"
    """[S verl's default, here without its bound of 10 on the value; U in the paper]. `exact` is over the whole
    vocabulary at the states of the old samples, with the old policy resident: one process only."""
    kl_correction: Annotated[KLCorrection, Later] = "none"
    """The estimators are made for tokens of the student, these are the old policy's. `none` ignores that [S verl]: k3
    then holds a token's rise by at most kl_weight / 4 of an advantage and k2 by kl_weight / e, however far it has gone
    [D], so clip and steps do the holding. `ratio` multiplies k1 or k3 by pi_student / pi_old: the gradient of
    KL(student || old), whose force grows as kl_weight * log ratio. k1 without it only pushes away and is refused."""
    kl_target: PositiveFloat | None = None
    """Stop before the update at which KL(old || student), k3 on the step's old samples, has reached this many nats per
    token. Later saved steps are then the same weights; `stopped_after` says how many updates they had."""
    entropy_weight: NonNegative = 0.0
    """[P Table 6b] 0.5 where used."""
    reduction: Literal["token", "sequence", "max_len"] = "token"
    """Mean over tokens [S verl's default; U]; over sequences of their token mean; or sums over sequences times the
    longest response."""
    controls: Annotated[tuple[Control, ...], BeforeValidator(as_tuple), Operational] = ()
    """Controls that are made and measured with this step, as steps `NAME-CONTROL` (see `controls`) [I]."""
    control_learning_rates: Annotated[tuple[PositiveFloat, ...], Operational] = ()
    """Of the control `tuned`; () takes this step's, the teacher's and the one between [I]."""

    @model_validator(mode="after")
    def _signal_given(self) -> "DistillConfig":
        if (self.signal is None) == (self.advantage == "signal"):
            raise ValueError(f"signal: expected {'a signal step' if self.signal is None else 'nothing'} "
                             f"with advantage {self.advantage!r}")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _kl_holds(self) -> "DistillConfig":
        estimator, correction = self.kl_estimator, self.kl_correction
        if correction == "ratio" and estimator not in ("k1", "k3"):
            raise ValueError(
                f"kl_correction: expected none with {estimator}, got ratio: exact needs no correction, k2 is biased "
                "with it too; use k3"
            )
        if self.kl_weight and estimator == "k1" and correction == "none":
            raise ValueError(
                "kl_estimator: expected k2, k3 or exact without a correction, got k1: on the old policy's tokens its "
                "gradient lowers all of them, wherever the student is; set kl_correction: ratio"
            )
        return self

    @property
    def needs_anchor(self) -> bool:
        return self.kl_weight > 0 and self.kl_estimator == "exact"

    @model_validator(mode="after")
    def _evolves(self) -> "DistillConfig":
        if self.denominator == "evolving" and self.advantage == "outcome":
            raise ValueError("denominator: expected fixed with the advantage 'outcome', which has none, got evolving")
        if self.denominator == "evolving" and self.whiten == "step":
            raise ValueError(
                "whiten: expected dataset or none with the evolving denominator, whose whitening is that of the start; "
                "got step"
            )
        return self

    @model_validator(mode="after")
    def _uses_what_it_is_given(self) -> "DistillConfig":
        if self.signal is not None and self.old is not None:
            raise ValueError(f"old: expected nothing with a signal, which brings its own, got {self.old}")
        if self.control_of is not None:  # it has all keys of the step that it is a control of
            return self
        if self.anchor is not None and not self.needs_anchor:
            raise ValueError(
                "anchor: expected nothing without an exact KL (kl_weight above 0 and kl_estimator: exact), got "
                f"{self.anchor}"
            )
        if self.control_learning_rates and "tuned" not in self.controls:
            raise ValueError(
                "control_learning_rates: expected nothing without the control tuned, which alone has them; add tuned "
                "to controls"
            )
        return self
