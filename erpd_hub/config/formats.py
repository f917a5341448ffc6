"""How a problem is asked and how a response is drawn: what prompt sets, rollouts and benchmarks have in common."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer, model_validator

from erpd_hub.config.common import NonNegative
from erpd_hub.fields import Config, Later


class Decoding(Config):
    """Sampling parameters; what an evaluation does not say is as in the benchmark."""

    temperature: NonNegative = 1.0
    """0.6 in the paper, 1.0 for Qwen3.5 [P]; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 keeps the whole vocabulary."""
    max_new_tokens: PositiveInt = 1024
    """32,768 in the paper's rollouts [P]."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2), Later] = 0.0
    """Taken off the logit of each token that the response has already; 1.5 behind the reported numbers of Qwen3.5 [S
    model card]."""

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a penalty of 0: files and hashes of artifacts have decoding as it was before there was one."""
        return {name: value for name, value in dump(self).items() if name != "presence_penalty" or value}

    def changed(self, other: "Decoding | None") -> "Decoding":
        """With what another one says, and only that: `{max_new_tokens: 8192}` leaves the temperature as it is."""
        said = {} if other is None else {name: getattr(other, name) for name in other.model_fields_set}
        return self.model_copy(update=said)


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
