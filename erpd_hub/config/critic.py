"""The critic of PPO: a value model that is fitted to the outcomes of a fixed batch."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from erpd_hub.config.training import TrainingConfig
from erpd_hub.fields import RolloutsRef


class CriticConfig(TrainingConfig):
    """Value pre-training with lambda 1 and gamma 1: V of the state before each response token, by mean squared error to
    the outcome [P Sec. 4.1, S2 VC-PPO]. Its artifact is the value model together with its values on the rollouts.

    `logprob_temperature` means nothing to it.
    """

    stage: Literal["critic"] = "critic"
    rollouts: RolloutsRef
    learning_rate: PositiveFloat = 2e-6
    """[S2 VAPO] twice that of its policy."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the prompts that are not trained on: the explained variance there says how much the critic only
    remembers [I]."""

    @model_validator(mode="after")
    def _whole_weights(self) -> "CriticConfig":
        if self.lora is not None:
            raise ValueError("lora: expected none for a critic, whose head is new, got an adapter")
        return self
