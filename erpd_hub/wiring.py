"""Which of a step's input roles are in use, and as what they are handed over."""

from collections.abc import Iterator

from erpd_hub import config as c
from erpd_hub.nodes import Edge, benchmarks_of
from erpd_hub.references import PathRef, StepRef, parse_reference

UsesLogprobs = c.SignalConfig | c.TeacherConfig | c.DistillConfig
"""Steps that name checkpoints of which they take the log-probs on their rollouts."""


def scored_roles(config: UsesLogprobs) -> tuple[str, ...]:
    """Roles that name a checkpoint but are handed over as its log-probs."""
    if isinstance(config, c.SignalConfig):
        return ("numerator", "denominator", "old")
    return ("reference", "old") if isinstance(config, c.TeacherConfig) else ("old",)


def unused_roles(config: c.StepConfig) -> tuple[str, ...]:
    """Roles that this config does not need, so that nothing is computed for them."""
    if isinstance(config, c.TeacherConfig):
        return tuple({"reference", "old"} - config.loss.required)
    if isinstance(config, c.UnlearnedConfig):
        return ("teacher",) if config.candidates else ("candidates",)
    if isinstance(config, c.SignalConfig):
        return ("numerator", "denominator") if config.strategy == "auto" else ("gate",)
    if isinstance(config, c.DistillConfig):
        return (*(("old",) if config.signal is not None else ()), *(() if config.needs_anchor else ("anchor",)))
    return ()


def compares(config: c.StepConfig) -> bool:
    """Whether a training uses log-probs that are scored in this run."""
    if isinstance(config, c.TeacherConfig):
        return bool({"reference", "old"} & config.loss.required)
    if not isinstance(config, c.DistillConfig):
        return False
    return config.signal is None or isinstance(parse_reference(config.signal), StepRef)


def benchmark_edges(config: c.StepConfig) -> Iterator[Edge]:
    """Benchmarks that live on a Hub or in a file; those that are generated need no input."""
    optional = isinstance(config, c.PromptSelection)
    for benchmark in benchmarks_of(config):
        if (reference := benchmark.reference) is not None:
            kind = "external" if isinstance(reference, PathRef) else "dataset"
            yield Edge(f"benchmark:{benchmark.name}", (kind,), reference, optional=optional, files=benchmark.files)
