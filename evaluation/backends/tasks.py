"""Our benchmarks as a custom-tasks folder for lighteval: a file that imports nothing of ours, its data beside it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.backends.environments import FOREIGN
from erpd_hub.evaluation.benchmarks import Benchmark, get_benchmark, load_problems
from erpd_hub.prompts import prompt_messages


def write_tasks(endpoint: str, names: Sequence[str], out: Path) -> list[str]:
    """Write `lighteval_tasks.py`, `tasks.json` and a folder of problems for each benchmark; returns the tasks' names.

    Problems without a gold are left out: lighteval would count them wrong.

    Raises:
        ConfigError: no such benchmark, one of programs, or a folder that is not empty.
    """
    benchmarks = [get_benchmark(name) for name in names]
    for benchmark in benchmarks:
        if benchmark.grader != "math":
            raise ConfigError(f"{benchmark.name}: expected a benchmark with gold answers, got one of programs")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: expected a folder that is empty or not there, got files")
    out.mkdir(parents=True, exist_ok=True)
    for benchmark in benchmarks:
        (out / benchmark.name).mkdir()
        write_problems(benchmark, endpoint, out / benchmark.name / "train.jsonl")
    entries = [_entry(benchmark) for benchmark in benchmarks]
    (out / "tasks.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    shutil.copy(FOREIGN / "lighteval_tasks.py", out)
    return [f"erpd_{benchmark.name}" for benchmark in benchmarks]


def _entry(benchmark: Benchmark) -> dict[str, object]:
    return {
        "name": benchmark.name,
        "k": benchmark.k,
        "max_new_tokens": benchmark.decoding.max_new_tokens,
        "stop": list(benchmark.format.stop),
        "version": benchmark.version,
    }


def write_problems(benchmark: Benchmark, endpoint: str, path: Path, *, limit: int | None = None) -> None:
    """Write problems that have a gold as JSON lines: problem_id, problem (the whole prompt), gold."""
    with path.open("w", encoding="utf-8") as stream:
        for problem in load_problems(benchmark, _dataset(benchmark, endpoint))[:limit]:
            if problem.gold:
                prompt = prompt_messages(problem.problem, benchmark.format)[-1]["content"]
                row = {"problem_id": problem.problem_id, "problem": prompt, "gold": problem.gold}
                stream.write(json.dumps(row) + "\n")


def _dataset(benchmark: Benchmark, endpoint: str) -> Path | None:
    """The benchmark's dataset at its pinned revision, from the endpoint; None for a generated one."""
    from erpd_hub.hub.client import connect
    from erpd_hub.references import PathRef

    reference = benchmark.reference
    if reference is None:
        return None
    if isinstance(reference, PathRef):
        return Path(reference.path).expanduser()
    hub = connect(endpoint)
    sha = hub.resolve("dataset", reference.repo_id, reference.revision)
    if sha is None:
        raise ConfigError(f"{benchmark.name}: expected dataset {reference} on {endpoint}, found none")
    return hub.pull("dataset", reference.repo_id, sha, only=benchmark.files)
