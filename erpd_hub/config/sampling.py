"""How responses are drawn: decoding, the engines, rollouts."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from erpd_hub.config.common import Fraction, StepConfig
from erpd_hub.config.formats import Decoding, PromptFormat
from erpd_hub.fields import (
    CheckpointRef,
    Config,
    ExternalRef,
    Later,
    LocalOnly,
    Operational,
    PromptsRef,
    UserCode,
    check_function_path,
)

EngineDtype = Literal["auto", "float32", "bfloat16"]
"""`auto`: bfloat16 where the machine is fast at it, else float32; what it came to stands in `rollout.json`."""


class TransformersEngine(Config):
    """In this process, exactly reproducible: where there is no vLLM, and for what is small."""

    type: Literal["transformers"] = "transformers"
    dtype: EngineDtype = "auto"
    batch_tokens: PositiveInt = 32768
    """Tokens of the samples generated together, with room for their longest responses. Part of the plan, and so of the
    artifact: batches are never cut from what remains."""


class VLLMEngine(Config):
    """vLLM in the stage's process, for which `python` may name another environment: every sample in flight at once."""

    type: Literal["vllm"]
    dtype: EngineDtype = "auto"
    tensor_parallel: Annotated[PositiveInt, Operational] = 1
    """GPUs an engine is spread over; the others hold further engines."""
    gpu_memory_utilization: Annotated[Fraction, Operational] = 0.9
    max_num_seqs: Annotated[PositiveInt | None, Operational] = None
    """Samples that are decoded together; None is vLLM's own choice."""
    enforce_eager: Annotated[bool, Operational] = False
    """Without CUDA graphs: a faster start, slower tokens."""


class ServerEngine(Config):
    """Any OpenAI-compatible server, such as a fleet of `vllm serve`, that takes and returns token ids."""

    type: Literal["server"]
    urls: Annotated[tuple[str, ...], LocalOnly, Field(min_length=1)]
    """Base URLs ending in /v1; never recorded. A key, where one is needed, comes from ERPD_SERVER_KEY."""
    model: Annotated[str | None, LocalOnly] = None
    """Name it serves the policy under; None takes the only model there is."""
    concurrency: Annotated[PositiveInt, Operational] = 256
    """Requests in flight at each URL."""
    timeout: Annotated[PositiveFloat, Operational] = 7200.0
    """Seconds for one sample."""
    retries: Annotated[int, Field(ge=0), Operational] = 3
    """Further attempts at one sample before the stage stops, with the finished samples kept."""
    patience: Annotated[PositiveFloat, Operational] = 300.0
    """Seconds without a server that answers before the stage stops."""

    @field_validator("urls")
    @classmethod
    def _plain(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return plain_urls(urls)


def plain_urls(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Base URLs without their last slash: http or https, no credentials (they would end up in messages), each once."""
    for url in urls:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("expected no user name or password in a URL; a key goes into ERPD_SERVER_KEY")
        plain = url.isascii() and url.isprintable() and " " not in url and not parts.query and not parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or not plain:
            raise ValueError(f"expected base URLs such as http://node1:8000/v1, got {url!r}")
    bare = tuple(url.rstrip("/") for url in urls)
    if len(set(bare)) < len(bare):
        raise ValueError("expected each server once, got one of them twice; concurrency says how many requests it gets")
    return bare


def _default_type(value: Any) -> Any:
    """`engine: {batch_tokens: 1024}` is the transformers engine, `engine: vllm` that engine as it comes."""
    if isinstance(value, str):
        return {"type": value}
    return {"type": "transformers", **value} if isinstance(value, Mapping) else value


EngineConfig = Annotated[
    TransformersEngine | VLLMEngine | ServerEngine, Field(discriminator="type"), BeforeValidator(_default_type)
]


def check_reward(text: str) -> str:
    """`math`, `unit_tests`, or the import path of a function."""
    if text in ("math", "unit_tests"):
        return text
    try:
        return check_function_path(text)
    except ValueError as error:
        raise ValueError(f"expected math, unit_tests or {str(error).removeprefix('expected ')}") from None


class RolloutConfig(StepConfig):
    """K responses to each prompt, graded."""

    stage: Literal["rollout"] = "rollout"
    type: Literal["sample"] = "sample"
    prompts: PromptsRef
    policy: CheckpointRef = "policy"
    k: PositiveInt = 16
    """[P] 16 responses a prompt."""
    decoding: Decoding = Decoding()
    extend_to: PositiveInt | None = None
    """Continue the samples that ended by length, from their token ids, up to this many new tokens [P]."""
    engine: EngineConfig = TransformersEngine()
    reward: Annotated[str, AfterValidator(check_reward), UserCode] = "math"
    """`math` compares the final answer with the gold; `unit_tests` runs the program in the response on the tests that
    came with its prompt, and all of them have to pass [P: code]; `package.module:function` is a reward function as
    TRL's trainers take it, whose rewards are 0, 1 or None (`erpd_hub.rewards`)."""
    reward_seconds: Annotated[PositiveFloat, Later] = 60.0
    """One call of such a function may take."""
    limit: PositiveInt | None = None
    """First prompts only, for trying out."""

    @model_validator(mode="after")
    def _extends(self) -> "RolloutConfig":
        check_extension(self.extend_to, self.decoding, self.engine)
        return self


class ImportedRollouts(StepConfig):
    """Responses that another program drew, as the batch to train on."""

    stage: Literal["rollout"] = "rollout"
    type: Literal["import"]
    source: ExternalRef
    """A file of JSON lines or parquet, or a folder of such files."""
    format: Literal["jsonl", "trl", "verl"]
    """`jsonl`: rows named as in a rollouts artifact. `trl`: prompt, completion and a column for each reward function,
    as `log_completions` writes them. `verl`: input, output, gts, score, as `trainer.rollout_data_dir` gets them."""
    policy: CheckpointRef = "policy"
    """Its tokenizer is the one of the token ids. That it drew these responses is the user's word."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our name of a column to the file's, where the format's own does not fit: `{gold: solution, reward: accuracy}`."""
    retokenize: bool = False
    """Make the token ids from the text, for rows without: they may be others than those that were drawn, so the card
    says so."""
    regrade: bool = True
    """Grade rows that have a gold answer as `math` does; otherwise, and for rows without, the file's reward counts."""
    reward_above: float | None = None
    """A file's reward above it is right, any other wrong; None takes 0 and 1 and no other number."""
    on_bad_row: Literal["skip", "refuse"] = "skip"
    """Rows that are no sample: counted and listed in `rejected.jsonl`, or an error."""
    prompt_format: PromptFormat = PromptFormat()
    """How answers are extracted when graded, and how text prompts are rendered when tokenized."""
    decoding: Decoding | None = None
    """How they were drawn, where that is known; only that makes their log-probs comparable with the policy's."""
    license: str | None = None
    """SPDX id for the card."""
    limit: PositiveInt | None = None
    """First rows only, for trying out."""


RolloutsConfig = Annotated[RolloutConfig | ImportedRollouts, Field(discriminator="type")]


def check_extension(extend_to: int | None, decoding: Decoding | None, engine: EngineConfig) -> None:
    """An extension must be longer than what it extends, and drawn as that was."""
    if extend_to is not None and decoding is not None and extend_to <= decoding.max_new_tokens:
        raise ValueError(f"extend_to: expected more than max_new_tokens {decoding.max_new_tokens}, got {extend_to}")
    penalised = decoding is not None and decoding.presence_penalty and not isinstance(engine, TransformersEngine)
    if extend_to is not None and penalised:
        raise ValueError(
            f"extend_to: expected none with a presence penalty, got {extend_to}: vLLM takes what goes on for a "
            "part of the prompt, whose tokens it does not penalise; raise decoding.max_new_tokens"
        )
