"""Log-probs of checkpoints on rollouts, and the token signal that is made of two of them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, model_validator

from erpd_hub.config.common import NonNegative, Numerics, StepConfig
from erpd_hub.fields import CheckpointRef, Config, GateRef, Operational, RolloutsRef


class ScoreConfig(StepConfig, Numerics):
    """Token log-probs of one checkpoint on one rollouts artifact: the only producer of log-probs used in training."""

    stage: Literal["score"] = "score"
    rollouts: RolloutsRef
    checkpoint: CheckpointRef
    noise_samples: NonNegativeInt = 32
    """[I] Responses, spread evenly over the rollouts, that are scored again in another layout and in the other dtype:
    what the noise floor of a signal is measured on. No more than a sixteenth of the rollouts, or 8; 0 measures none."""


Strategy = Literal[1, 2, 3]


class SignalChoice(Config):
    """What one strategy would be made of."""

    numerator: CheckpointRef
    denominator: CheckpointRef = "policy"


def _numbered(value: Any) -> Any:
    """`choices.1` of a command line is a text, and so is a key in JSON."""
    if not isinstance(value, Mapping):
        return value
    return {int(key) if isinstance(key, str) and key.isdigit() else key: item for key, item in value.items()}


class SignalConfig(StepConfig):
    """The raw token signal r = log numerator - log denominator on the rollouts' own tokens."""

    stage: Literal["signal"] = "signal"
    rollouts: RolloutsRef
    strategy: Strategy | Literal["auto"] | None = None
    """A preset that says what numerator and denominator may be [P Fig. 3] and fills in those that the recipe leaves out
    where its round leaves no choice (`presets`). 1: a strong teacher against the policy. 2: a recovered teacher against
    an unlearned checkpoint. 3: the round's teacher or `policy` against an earlier, weaker student; which of the two
    numerators the paper took is not stated [I], so nothing is filled in. None: any two. `auto`: the one of `choices`
    that the gate calls for; what only the others need is not made."""
    gate: GateRef | None = None
    """Of `auto`: the gate step that decides."""
    choices: Annotated[dict[Strategy, SignalChoice], BeforeValidator(_numbered), Operational] = Field({})
    """Of `auto`: numerator and denominator by strategy."""
    numerator: CheckpointRef | None = None
    """A checkpoint, `policy`, or `none`, which drops the term [P Table 7]."""
    denominator: CheckpointRef = "policy"
    """As the numerator, but not `none` too."""
    old: CheckpointRef = "policy"
    """Policy that the student's clip and KL refer to; of an ensemble's second signal it may be the first's student
    [I: the paper does not say whether the anchor moves]."""
    on_noise: Literal["warn", "refuse", "ignore"] = "warn"
    """What follows from a signal that does not stand above its noise floor."""
    noise_ratio: NonNegative = 3.0
    """[I] How many times the noise floor the signal's standard deviation must at least be. At 3 a ninth of the variance
    that whitening scales to one is noise, and the signal correlates 0.94 with the exact one; bf16 scoring (noise of
    about 0.07) of a teacher as near as the paper's (log-ratio sd 0.14 to 0.30 at a KL of 0.01 to 0.045 [D]) lies at 2
    to 4."""

    @model_validator(mode="after")
    def _two_sides(self) -> "SignalConfig":
        if self.strategy == "auto":
            return self
        if self.gate is not None or self.choices:
            raise ValueError(f"strategy: expected auto with a gate and choices, got {self.strategy}")
        if self.numerator is None:
            raise ValueError("numerator: missing; this key has no default")
        if self.numerator == self.denominator == "none":
            raise ValueError("numerator and denominator: expected at least one checkpoint, got none twice")
        if self.strategy is not None:
            _check_strategy(self.strategy, self.numerator, self.denominator)
        return self

    @model_validator(mode="after")
    def _gate_decides(self) -> "SignalConfig":
        if self.strategy != "auto":
            return self
        if self.gate is None:
            raise ValueError("gate: expected a gate step with strategy auto, got none")
        if self.numerator is not None:
            raise ValueError(f"numerator: expected it in choices with strategy auto, got {self.numerator!r}")
        if 1 not in self.choices or len(self.choices) == 1:
            shown = ", ".join(map(str, self.choices)) or "none"
            raise ValueError(f"choices: expected strategy 1 and at least one of 2 and 3, got {shown}")
        for strategy, choice in self.choices.items():
            try:
                _check_strategy(strategy, choice.numerator, choice.denominator)
            except ValueError as error:
                raise ValueError(f"choices.{strategy}.{error}") from None
        return self


def _check_strategy(strategy: Strategy, numerator: str, denominator: str) -> None:
    """Raises ValueError: a side is not what the strategy says."""
    for role, value, refused in zip(
        ("numerator", "denominator"), (numerator, denominator), _REFUSED[strategy], strict=True
    ):
        if value in refused:
            raise ValueError(f"{role}: strategy {strategy} expects {refused[value]}, got {value!r}")
    if strategy == 1 and denominator != "policy":
        raise ValueError(f"denominator: strategy 1 expects policy, got {denominator!r}")
    if numerator == denominator:
        raise ValueError(f"denominator: expected another checkpoint than the numerator, got {numerator!r}")


_TEACHER = dict.fromkeys(("policy", "base", "none"), "a trained teacher")
_UNLEARNED = dict.fromkeys(("policy", "none"), "an unlearned checkpoint")
_STUDENT = dict.fromkeys(("policy", "none"), "an earlier, weaker student")
_REFUSED: dict[int, tuple[dict[str, str], dict[str, str]]] = {
    1: (_TEACHER, {}),
    2: (_TEACHER, _UNLEARNED),
    3: ({"none": "the round's teacher or policy", "base": "the round's teacher or policy"}, _STUDENT),
}
"""By strategy: reserved words that are refused as numerator and as denominator, each with what is expected there."""
