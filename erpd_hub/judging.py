"""The judged copy of an evaluation, as a node of a plan."""

from collections.abc import Iterator
from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.evaluation.benchmarks import get_benchmark
from erpd_hub.nodes import Edge, Node
from erpd_hub.wiring import benchmark_edges

SUFFIX = "-judged"


def judged(details: Node, config: c.EvaluateConfig) -> Iterator[Node]:
    """The node beside an evaluation that has a judge. What is graded by running it has no answer to judge."""
    single = details.config
    assert isinstance(single, c.EvaluateConfig)
    (name,) = single.benchmarks
    if config.judge is None or get_benchmark(name, single.definitions).grader == "code":
        return
    judge = c.JudgeConfig(
        details=details.step, benchmark=name, definitions=single.definitions, judge=config.judge, seed=config.seed
    )
    yield replace(
        details,
        name=details.name + SUFFIX,
        config=judge,
        inputs=(Edge("details", ("details",), details.name), *benchmark_edges(judge)),
        folder=details.folder + SUFFIX,
    )
