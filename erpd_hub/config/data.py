"""Where a run starts: the base policy and the prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from erpd_hub.config.common import Fraction, StepConfig
from erpd_hub.fields import Config, DatasetRef, ExternalRef, Later, Operational, PromptsRef

Task = Literal["addition", "chain"]


class TinyBase(StepConfig):
    """A two-layer character model that learns a flawed task: a policy to improve on two CPU cores."""

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
    task: Annotated[Task, Later] = "addition"
    """`addition`, 20 to 40 tokens a response; `chain`, `chain_steps` additions one after the other, 24 tokens each at 2
    digits: there carry_error is the chance of each carry and digit_error of each column, in all of them [I]."""
    chain_steps: Annotated[PositiveInt, Later] = 40
    grow_steps: Annotated[PositiveInt, Later] = 300
    """Steps of the warm start over which its chains grow to their full length [I]."""
    lazy: Annotated[Fraction, Later] = 0.0
    """Share of demonstrations whose first token announces a method that drops every carry, so that the outcome is a
    function of the state, which MSE can then fit [I]. The others announce the right one; at 0 none says anything."""
    learning_rate: PositiveFloat = 3e-3
    batch_size: PositiveInt = 64
    """Demonstrations of a step; of chains shorter than chain_steps as many more as makes up for it."""
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
        if self.task == "chain" and self.lazy:
            raise ValueError(f"lazy: expected 0 with the task chain, got {self.lazy}")
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
    generator: Task
    min_digits: PositiveInt = 2
    max_digits: PositiveInt = 4
    chain_steps: Annotated[PositiveInt, Later] = 40
    """Additions of a `chain` problem, which all of them are modulo 10 to the max_digits."""
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


BaseConfig = Annotated[TinyBase | ImportBase, Field(discriminator="type")]
PromptsConfig = Annotated[GeneratedPrompts | JsonlPrompts | HubPrompts, Field(discriminator="type")]
