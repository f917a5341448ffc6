"""Second opinions on stored samples: other graders sample by sample, other harnesses whole, and where they differ.

`regrade` and `evaluate --backend` print what this module reports.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.backends.environments import Harness, require_python
from erpd_hub.evaluation.backends.opinions import SECONDS, Foreign, GraderName
from erpd_hub.evaluation.backends.programs import require_docker, run_programs
from erpd_hub.evaluation.backends.regrade import regrade
from erpd_hub.evaluation.backends.replay import run_backend
from erpd_hub.evaluation.backends.sources import Stored, require_answers
from erpd_hub.evaluation.benchmarks import Benchmark


def check_backends(backends: Sequence[Harness], benchmarks: Sequence[Benchmark]) -> None:
    """Whether the harnesses can run these benchmarks on this machine; asked before anything is sampled.

    Raises:
        ConfigError: programs for another harness than evalscope. ErpdError: an environment is not built, or there are
            programs and no docker.
    """
    for harness in backends:
        require_python(harness)
        programs = next((benchmark for benchmark in benchmarks if benchmark.grader == "code"), None)
        if programs is not None and harness != "evalscope":
            raise ConfigError(f"--backend {harness}: expected benchmarks with gold answers, got programs "
                              f"({programs.name}); evalscope runs those")  # fmt: skip
        if programs is not None:
            require_docker(programs.name)


def second_opinions(
    stored: Stored,
    graders: Sequence[GraderName],
    backends: Sequence[Harness],
    *,
    harnesses: Mapping[Harness, Foreign],
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """What others make of stored samples, as a JSON object (see `Regraded.report`) with `backends`: their own runs.

    Args:
        harnesses: Those among graders and backends, `opened`.
        seconds: Wall time of one sample in a harness.

    Raises:
        ConfigError: programs for whoever compares answers. ErpdError: a harness failed, or there are programs and no
            docker.
    """
    about = {"benchmark": stored.name, "fingerprint": stored.fingerprint}
    if stored.is_programs and backends and not graders:
        check_backends(backends, [stored.benchmark] if stored.benchmark else [])
        return {**about, **run_programs(stored)}
    require_answers(stored)
    result = regrade(stored.rows(), graders, extract=stored.extract, harnesses=harnesses)
    runs = [run_backend(name, stored, grader=harnesses[name], seconds=seconds) for name in backends]
    return {**about, **result.report(), "backends": runs}
