"""Where a run starts: the base policy and the prompts."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from erpd_hub.config.benchmarks import Definitions, with_ad_hoc
from erpd_hub.config.common import Fraction, StepConfig
from erpd_hub.config.formats import PromptFormat
from erpd_hub.fields import Config, DatasetRef, ExternalRef, Later, Operational, PromptsRef, as_tuple

Task = Literal["addition", "chain", "program"]
TINY_FORMAT = PromptFormat(template="{problem}?")
"""How the tiny policies are asked, in their training and by whoever wants an answer of them."""
_CODE_FORMAT = PromptFormat(
    template="{problem}\n\nSolve it in Python, and enclose the whole program in ```python and ``` at the end."
)


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
    digits: there carry_error is the chance of each carry and digit_error of each column, in all of them [I].
    `program`, one line of Python a response: there carry_error is the share that forget to add, digit_error the chance
    of each digit to be off, and no_work the share that do not compile [I]."""
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
        if self.task != "addition" and self.lazy:
            raise ValueError(f"lazy: expected 0 with the task {self.task}, got {self.lazy}")
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
    """Benchmarks whose problems (equal, or half of one's runs of 5 words that no other has) are dropped and listed;
    `all` are those with an answer to compare: name the ones with programs, which are large."""
    definitions: Definitions = Field(default_factory=dict)
    on_bad_row: Literal["skip", "refuse"] = "skip"
    """Rows without a problem or an answer the grader accepts: counted and listed, or an error."""
    format: PromptFormat = PromptFormat()

    @model_validator(mode="before")
    @classmethod
    def _names_datasets(cls, data: Any) -> Any:
        asked = data.get("decontaminate") if isinstance(data, Mapping) else None
        return data if asked == "all" else with_ad_hoc(data, "decontaminate")


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


REWARD_KEYWORDS = (
    "prompts", "completions", "completion_ids", "problem_id", "source", "problem", "gold", "answer", "trainer_state",
    "log_extra", "log_metric",
)  # fmt: skip
"""What every reward function is called with (`rewards`, `reward_worker`)."""


def _check_columns(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name in REWARD_KEYWORDS:
            raise ValueError(
                f"expected names that a reward function is not called with anyway, got {name!r}; leave it out, or give "
                "the dataset's column another name"
            )
    return names


Columns = Annotated[tuple[str, ...], BeforeValidator(as_tuple), AfterValidator(_check_columns), Later]
"""Columns of the source that are kept with each problem: keywords of a reward function of one's own, by their names."""


class JsonlPrompts(PromptSelection):
    """Problems from a local JSONL file."""

    type: Literal["jsonl"]
    path: ExternalRef
    problem_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = None
    filters: tuple[RangeFilter, ...] = ()
    columns: Columns = ()


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
    columns: Columns = ()


class CodePrompts(PromptSelection):
    """Programming problems with unit tests, from JSON lines as AReaL-boba-2's code set has them [P]."""

    type: Literal["code"]
    dataset: DatasetRef = "inclusionAI/AReaL-boba-2-RL-Code"
    files: Annotated[tuple[str, ...], Field(min_length=1)] = ("train/train.jsonl",)
    """Only these of the dataset are downloaded; read line by line."""
    problem_column: str = "question"
    """[S] AReaL's preprocessing; `prompt` in files that went through it."""
    tests_column: str = "input_output"
    id_column: str = "query_id"
    max_test_bytes: PositiveInt = 500 * 1024
    """Rows with larger tests are bad rows [S: AReaL's own limit]."""
    filters: tuple[RangeFilter, ...] = ()
    format: PromptFormat = _CODE_FORMAT


BaseConfig = Annotated[TinyBase | ImportBase, Field(discriminator="type")]
PromptsConfig = Annotated[GeneratedPrompts | JsonlPrompts | HubPrompts | CodePrompts, Field(discriminator="type")]
