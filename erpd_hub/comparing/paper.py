"""The paper's experiments as data: reported numbers, the recipe and step that measure each, the tiny twin's claims.

The numbers are in `paper.yaml`, transcribed from arXiv 2605.25582. What is uncertain about an experiment (values that
are not stated, columns or rows that are inferred) is in its notes with an evidence tag.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field

from erpd_hub.errors import ConfigError
from erpd_hub.fields import Config
from erpd_hub.recipe_files import suggestion

Metric = Literal[
    "avg",
    "kl_to_base",
    "entropy",
    "mean_length",
    "explained_variance",
    "mean_squared_error",
    "gap",
    "low_tail",
    "credit",
]
"""Of an evaluation, a probe, or a step's own record.

`explained_variance` is that of a teacher's last step, or over all rollouts, of a critic's values or of the
probabilities of a checkpoint that was scored on them; `mean_squared_error` that of these probabilities from the
outcome, which is MSE's loss; `gap`, the log-prob of right minus that of wrong responses (nats a token), that of a
checkpoint scored on all rollouts; `low_tail` is how far the lowest 1 % on right responses lies below the median, in
standard deviations: of a signal's log-ratios, or of a critic's values; `credit` is a signal's `credit_at_departure`
(`erpd_hub.credit`).
"""
LENGTH = "_length"
"""After a benchmark's name in `Experiment.also`: tokens of a mean response on it."""
NOT_THE_PAPERS = ("control:", "ours:")
"""How claims begin that the paper does not make."""
SELECTION_BENCHMARK = "hmmt_feb_2025"
"""[P] What the paper selects models on: biased, so in no mean."""


def _alternatives(text: object) -> object:
    return tuple(part.strip() for part in text.split("|")) if isinstance(text, str) else text


class Row(Config):
    """One row of a table."""

    ref: Annotated[tuple[str, ...], BeforeValidator(_alternatives)]
    """The checkpoint in the recipe; of several the one that is best on the selection benchmark."""
    tiny: str
    """Its counterpart in the twin."""
    reported: tuple[float | None, ...]
    """In the order of the experiment's columns; percent for benchmarks."""


class Claim(Config):
    """What one comparison of two checkpoints of the twin would have to show."""

    says: str
    more: str
    """A step, or a checkpoint as in references."""
    less: str | float
    """Likewise, or a number."""
    metric: Metric = "avg"
    expect: Literal["greater", "no_gain"] = "greater"
    """Whether `more` is expected to have more than `less`, or no more."""


class Experiment(Config):
    """A table or figure."""

    title: str
    claim: str
    """What it claims, in a sentence."""
    models: dict[str, str] = Field(default_factory=dict)
    """Model to recipe; the first is what is taken where none is asked for. None where only the twin asks it."""
    tiny: str
    """Recipe of the twin that runs on two CPU cores."""
    columns: tuple[str, ...]
    """Benchmarks and metrics of the rows."""
    notes: tuple[str, ...] = ()
    rows: dict[str, dict[str, Row]] = Field(default_factory=dict)
    """By model and name."""
    also: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    """Reported beside the columns: by model, row and column. `mean` is the paper's own mean over benchmarks, `hours`
    are cumulative, `BENCHMARK_length` is a mean response's, which is measured with its score."""
    claims: tuple[Claim, ...]


@cache
def experiments() -> dict[str, Experiment]:
    """All experiments in the order of the file: the paper's tables, its figures, what cuts across them."""
    data = yaml.safe_load((files("erpd_hub.comparing") / "paper.yaml").read_text())
    return {name: Experiment.model_validate(about) for name, about in data.items()}


def get_experiment(name: str) -> Experiment:
    """Raises ConfigError: there is none of that name."""
    known = experiments()
    if name not in known:
        raise ConfigError(
            f"{name}: expected one of the paper's experiments ({', '.join(known)}){suggestion(name, list(known))}"
        )
    return known[name]


def recipes_of(name: str) -> str:
    """What to ask for instead of a recipe where (a part of) the name is that of an experiment; empty otherwise."""
    asked = next((part for part in name.split("+") if part in experiments()), None)
    if asked is None:
        return ""
    item = experiments()[asked]
    return f"{asked} is an experiment: its recipes are {', '.join([*item.models.values(), item.tiny])}"


def recipe_of(name: str, model: str | None, *, tiny: bool) -> tuple[str, str]:
    """The model and the recipe that an experiment is measured with; `tiny` takes an overlay such as `long` as model.

    Raises:
        ConfigError: no such experiment, or not on this model.
    """
    experiment = get_experiment(name)
    known = {key.lower(): key for key in experiment.models}
    if tiny:
        if str(model).lower() in known:
            raise ConfigError(f"--model {model}: the twin is one for all models; leave it out beside --tiny")
        return model or "tiny", experiment.tiny if model in (None, "tiny") else f"{experiment.tiny}+{model}"
    if not known:
        raise ConfigError(f"{name}: is ours and has a twin only; add --tiny")
    chosen = known.get((model or next(iter(experiment.models))).lower())
    if chosen is None:
        names = list(experiment.models)
        raise ConfigError(f"--model: expected one of {', '.join(names)}, got {model!r}{suggestion(str(model), names)}")
    return chosen, experiment.models[chosen]
