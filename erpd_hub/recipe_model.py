"""What a recipe says besides its steps, as types: the run, its Hub, how log-probs are scored, its rounds."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt

from erpd_hub import config as c
from erpd_hub.config.benchmarks import BenchmarkEntry
from erpd_hub.fields import CheckpointRef, Config, as_tuple
from erpd_hub.references import NAME


class HubSettings(Config):
    """Which Hub the artifacts live on."""

    endpoint: str = "local"
    """`local` (the embedded Hub, started on demand) or a URL such as https://huggingface.co."""
    upstream: str | None = None
    """A second endpoint that is read for what the first one lacks."""
    private: bool = True


SHARED_NUMERICS = ("dtype", "logprob_temperature", "attn_implementation", "layout")
"""What scoring and training must have in common; micro-batches need not."""


class Scoring(c.Numerics):
    """How log-probs are scored, the same for every checkpoint of the run, and how the steps of training compute them
    unless they say otherwise."""

    noise_samples: NonNegativeInt = 32
    """See ScoreConfig: responses that are scored a second time to measure the noise floor."""


class FactsSettings(Config):
    """What a plan needs to know of the base where it is not at hand. Planning only: in no artifact."""

    shape: str | None = None
    """A known shape such as `qwen3-4b`; None goes by the base itself or by its name."""
    mean_length: PositiveInt | None = None
    """Tokens of a mean response; None takes what a source says of the shape, else half of the limit."""


class Round(Config):
    policy: CheckpointRef | None = None
    """The round's start; by default the base, then the previous round's last student."""
    steps: dict[str, c.StepConfig]


class Recipe(Config):
    run: Annotated[str, Field(pattern=rf"^{NAME}$")]
    namespace: Annotated[str, Field(pattern=r"^[\w][\w.-]*$")] = "local"
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    threads: PositiveInt | None = None
    """CPU threads of torch; one is fastest for tiny models, and runs are bit-identical at a fixed number."""
    hub: HubSettings = HubSettings()
    scoring: Scoring = Scoring()
    facts: FactsSettings = FactsSettings()
    defaults: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By stage: keys that its steps take over where they do not say otherwise, also of a step's `type`."""
    selection: tuple[str, ...] = ()
    """Benchmarks on which settings of this run were chosen, besides those of its own gates and selections: marked, and
    in no headline mean."""
    benchmarks: dict[str, BenchmarkEntry] = Field(default_factory=dict)
    """The user's own, by name: those written here and those of `benchmark_files`, YAML of the same form."""
    benchmark_files: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    rounds: tuple[Round, ...]
    origin: str = ""
    """What the recipe was read from (a shipped name or a file name), for messages."""
    command: str = ""
    """The words after `erpd-hub` that make this run, for cards; empty where no such command is known."""
