"""Teacher losses: one frozen model each, told apart by `type`; the formulas are in `erpd_hub.losses`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat

from erpd_hub.config.common import Fraction, NonNegative
from erpd_hub.fields import Config, FunctionPath

Need = Literal["reference", "old", "critic"]
Advantage = Literal["none", "group", "centred", "critic"]
"""Of a sample's tokens: none; (R - mean) / std of its prompt's samples; R - mean; from a critic's values."""


class LossConfig(Config):
    """What a teacher loss is made from."""

    type: str
    needs: ClassVar[frozenset[Need]] = frozenset()
    """Log-probs of the reference policy or of the one that sampled, or a critic's values."""
    advantage: ClassVar[Advantage] = "none"
    right_only: ClassVar[bool] = False
    """Trained on right responses alone."""

    @property
    def required(self) -> frozenset[Need]:
        return self.needs

    @property
    def advantage_kind(self) -> Advantage:
        return self.advantage

    @property
    def parameters(self) -> dict[str, Any]:
        """Keyword arguments of the loss function."""
        return self.model_dump(exclude={"type"})


class CELoss(LossConfig):
    """Eq. 2: binary cross-entropy of the implicit sequence reward against the outcome."""

    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})
    type: Literal["ce"]
    beta: PositiveFloat = 0.05
    """[P] 0.001 to 0.05 at about 20k tokens; a `sum` saturates at 4 / beta nats, however long (docs/method.md)."""
    aggregate: Literal["sum", "mean"] = "sum"
    """Of token log-ratios over the sequence (Eq. 3) [P: both were tuned]."""
    kl_weight: NonNegative = 0.0
    """Weight of k3 KL(teacher || reference), mean over a sequence's tokens [P Fig. 6 has a curve "KL weight 2"; the
    coefficient's meaning there is open, U]. The tokens are the sampler's, uncorrected [S verl]: at a log ratio d one is
    pulled by kl_weight (1 - e^-d) / length, so by no more than kl_weight / length however far it rises."""


class MSELoss(LossConfig):
    """Eq. 10: unlearn and recover, w(R) (pi(a|s) - R)^2."""

    type: Literal["mse"]
    negative_weight: NonNegative = 1.0
    """[P Table 9] weight of tokens of wrong responses."""


class SFTLoss(LossConfig):
    """-log pi on right responses: recovery by imitation [P Table 9]."""

    right_only: ClassVar[bool] = True
    type: Literal["sft"]


class ClippedLoss(LossConfig):
    """A ratio to the policy that sampled, clipped; advantages from the prompt's samples."""

    needs: ClassVar[frozenset[Need]] = frozenset({"old"})
    advantage: ClassVar[Advantage] = "group"
    clip_low: Fraction = 0.2
    """[P] of GRPO."""
    clip_high: NonNegative = 0.28
    """[P] of GRPO."""


class GRPOLoss(ClippedLoss):
    """Eq. 5 with group-normalised advantages."""

    type: Literal["grpo"]


class DrGRPOLoss(ClippedLoss):
    """GRPO without division by the group's deviation or by a response's length [S TRL, verl]."""

    advantage: ClassVar[Advantage] = "centred"
    type: Literal["dr_grpo"]
    clip_low: Fraction = 0.2
    """[I] as GRPO."""
    clip_high: NonNegative = 0.28
    """[I] as GRPO."""


class PPOLoss(ClippedLoss):
    """Eq. 5 with generalised advantages of a critic, lambda = 1 - 1 / (alpha l) for a response of l tokens [P]."""

    needs: ClassVar[frozenset[Need]] = frozenset({"old", "critic"})
    advantage: ClassVar[Advantage] = "critic"
    type: Literal["ppo"]
    clip_low: Fraction = 0.2
    """[S2 VAPO]; the paper's are GRPO's."""
    clip_high: NonNegative = 0.28
    """[S2 VAPO]."""
    lambda_alpha: PositiveFloat = 0.05
    """[S2 VAPO]."""
    whiten: bool = True
    """Whiten the advantages over the batch [S verl]."""

    @property
    def parameters(self) -> dict[str, Any]:
        return {"clip_low": self.clip_low, "clip_high": self.clip_high}


class SAPOLoss(LossConfig):
    """A sigmoid gate on the ratio in place of the clip."""

    needs: ClassVar[frozenset[Need]] = frozenset({"old"})
    advantage: ClassVar[Advantage] = "group"
    type: Literal["sapo"]
    tau_positive: PositiveFloat = 1.0
    """[S] SAPO's own."""
    tau_negative: PositiveFloat = 1.05
    """[P]."""


class GSPOLoss(ClippedLoss):
    """Ratios of whole sequences, clipped."""

    type: Literal["gspo"]
    clip_low: Fraction = 3e-4
    """[S verl]."""
    clip_high: NonNegative = 4e-4
    """[S verl]."""


class CISPOLoss(ClippedLoss):
    """The clipped ratio as a weight of the log-prob, without gradient of its own."""

    type: Literal["cispo"]
    clip_low: Fraction = 0.2
    """[I] as GRPO; verl clips both sides, TRL not below [S]."""
    clip_high: NonNegative = 0.28
    """[I] as GRPO: the weight ends at 1.28. TRL's bound is the weight itself [S], so its number is not this one."""


class VESPOLoss(LossConfig):
    """A smooth weight of the sequence's ratio."""

    needs: ClassVar[frozenset[Need]] = frozenset({"old"})
    advantage: ClassVar[Advantage] = "group"
    type: Literal["vespo"]
    k_positive: PositiveFloat = 2.0
    """[S authors' code], as the next three."""
    lambda_positive: PositiveFloat = 3.0
    k_negative: PositiveFloat = 3.0
    lambda_negative: PositiveFloat = 2.0


class TOPRLoss(LossConfig):
    """Right responses as they are, wrong ones tapered by their ratio."""

    needs: ClassVar[frozenset[Need]] = frozenset({"old"})
    type: Literal["topr"]
    ratio_level: Literal["sequence", "token"] = "sequence"
    """[S2] the paper's; `token` is that of two public codes [S]."""


class CustomLoss(LossConfig):
    """A function of one's own: `function(batch: TokenBatch, **parameters) -> LossOutput` (`erpd_hub.losses`)."""

    type: Literal["custom"]
    function: FunctionPath
    """`package.module:function`; the hash of its file is part of the artifact."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[Literal["reference", "old"], ...] = ()
    """Log-probs it needs beside those of the policy in training."""
    advantages: Literal["none", "group", "centred"] = "none"

    @property
    def required(self) -> frozenset[Need]:
        return frozenset(self.inputs)

    @property
    def advantage_kind(self) -> Advantage:
        return self.advantages

    @property
    def parameters(self) -> dict[str, Any]:
        return self.arguments


TeacherLoss = Annotated[
    CELoss
    | MSELoss
    | SFTLoss
    | GRPOLoss
    | SAPOLoss
    | PPOLoss
    | DrGRPOLoss
    | GSPOLoss
    | CISPOLoss
    | VESPOLoss
    | TOPRLoss
    | CustomLoss,
    Field(discriminator="type"),
]
