"""The typed steps of a recipe: one frozen model per stage, checked before anything heavy is imported.

Evidence tags in the field notes: [P] the paper says so, [S] read in a source, [D] derived, [I] our choice.
Input roles and operational fields are explained in `fields`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from erpd_hub.fields import (
    CheckpointRef,
    Config,
    DatasetRef,
    ExternalRef,
    Operational,
    PromptsRef,
    RolloutsRef,
    SignalRef,
    as_tuple,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class StepConfig(Config):
    """What every step has."""

    stage: str
    seed: Annotated[int | None, Operational] = None
    """Overrides the recipe's seed; the seed in force is part of the fingerprint in its own right."""


# ------------------------------------------------------------------------------------------------ base


class TinyBase(StepConfig):
    """A two-layer character model that learns flawed addition: a policy to improve on two CPU cores."""

    stage: Literal["base"] = "base"
    type: Literal["tiny"]
    hidden_size: PositiveInt = 96
    layers: PositiveInt = 2
    heads: PositiveInt = 3
    intermediate_size: PositiveInt = 288
    min_digits: PositiveInt = 2
    max_digits: PositiveInt = 4
    """Digits of each addend [I]."""
    carry_error: Fraction = 0.20
    """Share of demonstrations in which one carry is forgotten [I]."""
    digit_error: Fraction = 0.04
    """Chance that a digit is off by one [I]."""
    no_work: Fraction = 0.10
    """Share of demonstrations that answer without the steps [I]."""
    learning_rate: PositiveFloat = 3e-3
    batch_size: PositiveInt = 64
    target_accuracy: Fraction = 0.38
    """Sampled accuracy on validation prompts at which the warm start stops: a step budget is not reproducible [I]."""
    first_check: PositiveInt = 250
    check_every: PositiveInt = 25
    decay_steps: PositiveInt = 60
    """Steps of linear decay after the target is reached."""
    max_steps: PositiveInt = 2000
    checkpoint_every: Annotated[PositiveInt, Operational] = 100

    @model_validator(mode="after")
    def _fits(self) -> "TinyBase":
        if self.hidden_size % self.heads or self.hidden_size // self.heads % 2:
            raise ValueError(f"heads: expected {self.hidden_size} to divide into {self.heads} even parts")
        if self.min_digits > self.max_digits:
            raise ValueError(f"min_digits: expected at most max_digits {self.max_digits}, got {self.min_digits}")
        return self


class ImportBase(StepConfig):
    """A policy brought in from a folder, a GGUF file or a Hub model."""

    stage: Literal["base"] = "base"
    type: Literal["import"]
    source: ExternalRef
    """A local folder or .gguf file, or `namespace/name[@revision]`."""
    gguf_file: str | None = None
    """Name of the GGUF inside a source folder or repository; its weights are dequantized."""
    license: str | None = None
    """SPDX id for the card when the source does not carry one."""
    trust_remote_code: bool = False


# --------------------------------------------------------------------------------------------- prompts


class PromptFormat(Config):
    """How a problem becomes a prompt and how a response becomes an answer. Benchmarks and prompt sets have one each."""

    template: str = "{problem}"
    """Text of the user turn (chat) or of the whole prompt (completion); `{problem}` is replaced."""
    chat: bool = True
    """Render with the policy's chat template; False is plain completion."""
    system_prompt: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    stop: tuple[str, ...] = ()
    """Strings that end a response, besides the model's own end tokens."""
    extract: Literal["boxed", "first-line"] = "boxed"
    """The answer is the last balanced box after the last `</think>`, or the first line."""

    @model_validator(mode="after")
    def _has_problem(self) -> "PromptFormat":
        if "{problem}" not in self.template:
            raise ValueError("template: expected the placeholder {problem} in it")
        return self


class RangeFilter(Config):
    """Keeps rows whose column lies in [minimum, maximum] (numbers) or among `values`."""

    column: str
    values: tuple[str | int | float, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


class PromptSelection(StepConfig):
    """What all prompt sources have in common."""

    stage: Literal["prompts"] = "prompts"
    count: PositiveInt | None = None
    """Prompts to draw (1,000 in the paper [P]); None keeps all."""
    disjoint_from: tuple[PromptsRef, ...] = ()
    """Prompt sets of earlier rounds whose problems are not drawn again."""
    decontaminate: tuple[str, ...] | Literal["all"] = "all"
    """Benchmarks whose problems (13-gram overlap, or equality when shorter) are dropped and listed."""
    on_bad_row: Literal["skip", "refuse"] = "skip"
    """Rows without a problem or an answer the grader accepts: counted and listed, or an error."""
    format: PromptFormat = PromptFormat()


class GeneratedPrompts(PromptSelection):
    """Problems from a built-in generator."""

    type: Literal["generator"]
    generator: Literal["addition"]
    min_digits: PositiveInt = 2
    max_digits: PositiveInt = 4
    spaces: bool = False
    """`3 + 8` instead of `3+8`."""
    count: PositiveInt = 256


class JsonlPrompts(PromptSelection):
    """Problems from a local JSONL file."""

    type: Literal["jsonl"]
    path: ExternalRef
    problem_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = None
    filters: tuple[RangeFilter, ...] = ()


class HubPrompts(PromptSelection):
    """Problems from any Hub dataset with a problem and an answer column."""

    type: Literal["hub"]
    dataset: DatasetRef
    config_name: str | None = None
    split: str = "train"
    problem_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = None
    filters: tuple[RangeFilter, ...] = ()


# --------------------------------------------------------------------------------------------- sampling


class Decoding(Config):
    """Sampling parameters; a null falls back to the benchmark's default."""

    temperature: NonNegative = 1.0
    """0.6 in the paper, 1.0 for Qwen3.5 [P]; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 keeps the whole vocabulary."""
    max_new_tokens: PositiveInt = 1024
    """32,768 in the paper's rollouts [P]."""


class TransformersEngine(Config):
    type: Literal["transformers"] = "transformers"
    batch_size: PositiveInt = 256
    """Samples generated together. Part of the plan, and so of the artifact: batches are never cut from what remains."""


class RolloutConfig(StepConfig):
    """K responses to each prompt, graded."""

    stage: Literal["rollout"] = "rollout"
    type: Literal["sample"] = "sample"
    prompts: PromptsRef
    policy: CheckpointRef = "policy"
    k: PositiveInt = 16
    """[P] 16 responses a prompt."""
    decoding: Decoding = Decoding()
    engine: TransformersEngine = TransformersEngine()
    reward: Literal["math"] = "math"
    limit: PositiveInt | None = None
    """First prompts only, for trying out."""


class ScoreConfig(StepConfig):
    """Token log-probs of one checkpoint on one rollouts artifact: the only producer of log-probs used in training."""

    stage: Literal["score"] = "score"
    rollouts: RolloutsRef
    checkpoint: CheckpointRef
    dtype: Literal["float32", "bfloat16"] = "float32"
    logprob_temperature: PositiveFloat = 1.0
    """Temperature of the scored softmax; the paper does not say [I]."""
    micro_batch_tokens: PositiveInt = 8192
    """Padded tokens per forward pass."""


# --------------------------------------------------------------------------------------------- training


class TrainingConfig(StepConfig):
    """What both stages of training share; the loss is what differs."""

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
    logprob_temperature: PositiveFloat = 1.0
    """Must equal that of the log-probs it is compared with."""
    micro_batch_tokens: PositiveInt = 8192
    """Padded tokens per forward pass; the result does not depend on it beyond rounding."""
    gradient_checkpointing: bool = False
    push_steps: Annotated[Literal["referenced", "all", "none"], Operational] = "referenced"
    """Which saved steps become commits: those that something else in the recipe uses, all, or only the last."""
    checkpoint_every: Annotated[PositiveInt, Operational] = 8
    """Steps between resumable checkpoints in the work directory."""

    @model_validator(mode="after")
    def _steps_in_range(self) -> "TrainingConfig":
        late = [step for step in self.save_steps if step > self.steps]
        if late:
            raise ValueError(f"save_steps: expected steps up to {self.steps}, got {late[0]}")
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


# ------------------------------------------------------------------------------------------- measuring


class ProbeConfig(StepConfig):
    """KL to base and to the round's start, and entropy, of a checkpoint on its own samples (T=1, top_p 1)."""

    stage: Literal["probe"] = "probe"
    checkpoints: Annotated[tuple[CheckpointRef, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    prompts: PromptsRef
    policy: CheckpointRef = "policy"
    base: CheckpointRef = "base"
    num_prompts: PositiveInt = 128
    k: PositiveInt = 4
    max_new_tokens: PositiveInt = 1024
    engine: TransformersEngine = TransformersEngine()
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
    engine: TransformersEngine = TransformersEngine()
    limit: PositiveInt | None = None
    """First problems only; the score says so."""


BaseConfig = Annotated[TinyBase | ImportBase, Field(discriminator="type")]
PromptsConfig = Annotated[GeneratedPrompts | JsonlPrompts | HubPrompts, Field(discriminator="type")]
AnyStep = Annotated[
    BaseConfig
    | PromptsConfig
    | RolloutConfig
    | ScoreConfig
    | TeacherConfig
    | UnlearnedConfig
    | SignalConfig
    | DistillConfig
    | ProbeConfig
    | EvaluateConfig,
    Field(discriminator="stage"),
]
