"""What every step of a recipe has. Evidence tags in field notes: [P] the paper says so, [S] read in a source,
[D] derived, [I] our choice."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from erpd_hub.fields import Config, LocalOnly, Operational

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Dtype = Literal["float32", "bfloat16"]
Attention = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"]
Layout = Literal["auto", "packed", "padded", "single"]
"""How sequences lie in a batch: several in one row, one a row with padding, or one alone; `auto` is the fastest one
that a probe on the model at hand finds exact."""


class StepConfig(Config):
    """What every step has."""

    stage: str
    seed: Annotated[int | None, Operational] = None
    """Overrides the recipe's seed; the seed in force is part of the fingerprint in its own right."""
    python: Annotated[str | None, LocalOnly] = None
    """Interpreter of another environment that runs this stage, so that conflicting packages never meet."""


class Compute(Config):
    """How a policy is computed."""

    dtype: Dtype = "float32"
    """Of the matrix products; the output head is fp32 in either case and weights keep the dtype they are stored in
    (training: always fp32 masters). bfloat16 is for GPUs."""
    attn_implementation: Attention = "sdpa"


class Numerics(Compute):
    """How log-probs are computed, in scoring and in training alike: two ways differ by as much as the signal."""

    logprob_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the softmax [I, the paper does not say]. At that of the rollouts, as in verl [S], ratios are those
    of the policy that sampled; a plan and `score` warn of another."""
    layout: Layout = "auto"
    micro_batch_tokens: PositiveInt = 8192
    """Tokens of a forward pass, padding included; the result does not depend on it beyond rounding."""

    def other_temperature(self, drawn: float) -> str | None:
        """What is wrong with these log-probs of responses drawn at a temperature; None where nothing is. Greedy
        responses have none that log-probs could be computed at."""
        if drawn in (0, self.logprob_temperature):
            return None
        return (
            f"logprob_temperature: expected {drawn:g}, at which the responses were drawn, got "
            f"{self.logprob_temperature:g}: ratios are then not those of the policy that sampled; set "
            f"scoring.logprob_temperature: {drawn:g}"
        )
