"""The judge: a language model that says whether an answer which the rule turned down is the gold written otherwise."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from erpd_hub.config.benchmarks import Definitions
from erpd_hub.config.common import Fraction, NonNegative, StepConfig
from erpd_hub.config.sampling import plain_urls
from erpd_hub.fields import Config, DetailsRef, LocalOnly, Operational

_OURS = ("model", "messages", "n", "stream", "temperature", "max_tokens", "max_completion_tokens")
_SECRET = re.compile(
    r"(?:.*[^a-z])?(?:api_?keys?|keys?|token|secrets?|password|passwd|credentials?|bearer|cookies?|auth|authorization"
    r"|headers?)"
)
"""Names, in snake case, of fields that hold what must not be recorded; `max_thinking_tokens` does not."""
_KEY_NAME = re.compile(r"ERPD_JUDGE_KEY|[A-Z][A-Z0-9_]*_API_KEY")


class JudgeSettings(Config):
    """Which judge, how it is asked, how much of it, and when to stop."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    """Name the endpoint serves it under."""
    url: Annotated[str, LocalOnly]
    """Base URL of an OpenAI-compatible endpoint, ending in /v1; never recorded."""
    key_env: Annotated[str, LocalOnly] = "ERPD_JUDGE_KEY"
    """Environment variable that holds the endpoint's key. Only such names are taken as keys have, so that a recipe from
    somebody else cannot send other secrets of the environment to its URL."""
    send_problem: bool = True
    """Whether the judge sees the problem beside gold and answer [I]: what "the larger root" is depends on it."""
    temperature: NonNegative | None = 0.0
    """[S evalscope] None leaves it out, for models that refuse the field."""
    max_tokens: PositiveInt = 2048
    """Of a reply, thinking included; the verdict takes ten."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that limit."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, such as `{reasoning_effort: low}` or a response_format."""
    audit: NonNegativeInt = 100
    """Answers the rule takes for right that the judge is asked about too; they change no score."""
    max_canary_acceptance: Fraction = 0.0
    """Share of injected wrong answers that the judge may accept before its score is marked."""
    concurrency: Annotated[PositiveInt, Operational] = 8
    """Requests in flight."""
    timeout: Annotated[PositiveFloat, Operational] = 120.0
    """Seconds for one reply."""
    retries: Annotated[NonNegativeInt, Operational] = 3
    """Further attempts at one answer that gets no reply, while the endpoint answers others; then it is unjudged."""
    patience: Annotated[PositiveFloat, Operational] = 600.0
    """Seconds without any reply before the stage stops, with what is judged kept."""
    max_calls: Annotated[PositiveInt | None, Operational] = 20_000
    """Requests of one artifact, over all its attempts."""
    max_total_tokens: Annotated[PositiveInt | None, Operational] = None
    """Tokens of one artifact, prompts and replies."""
    max_cost: Annotated[PositiveFloat | None, Operational] = None
    """Money for one artifact, in the currency of the prices."""
    input_price: Annotated[NonNegative, Operational] = 0.0
    """Of a million prompt tokens."""
    output_price: Annotated[NonNegative, Operational] = 0.0
    """Of a million reply tokens."""

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        if "@" in url:
            raise ValueError("expected no user name or password in a URL; the key goes into an environment variable")
        return plain_urls((url,))[0]

    @field_validator("key_env")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if not _KEY_NAME.fullmatch(name):  # what was given may be the key itself, so it is not repeated
            raise ValueError(
                "expected the name of an environment variable that holds a key, ERPD_JUDGE_KEY or one ending in "
                "_API_KEY, got something else; export the key under such a name"
            )
        return name

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(set(options) & set(_OURS)):
            raise ValueError(f"expected fields that are not set otherwise, got {', '.join(ours)}; leave them out")
        if (name := next(_secret_names(options), None)) is not None:  # its value may be the secret, so it is left out
            raise ValueError(
                f"expected nothing secret, as options are recorded, got {name!r}; the key goes into ERPD_JUDGE_KEY"
            )
        return options

    @model_validator(mode="after")
    def _priced(self) -> "JudgeSettings":
        if self.max_cost is not None and not self.input_price and not self.output_price:
            raise ValueError("max_cost: expected input_price and output_price with it, got neither")
        return self


def _secret_names(value: Any) -> Iterator[str]:
    """Names at any depth that look as if a key or header stood under them."""
    if isinstance(value, dict):
        yield from (str(name) for name in value if _SECRET.fullmatch(_snake(str(name))))
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for item in inside:
        yield from _secret_names(item)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class JudgeConfig(StepConfig):
    """Details with a judge's opinion on what the rule turned down; made from `evaluate.judge`."""

    stage: Literal["judge"] = "judge"
    details: DetailsRef
    benchmark: str
    definitions: Definitions = Field(default_factory=dict)
    judge: JudgeSettings
