"""Our benchmarks as a custom-tasks folder for lighteval: a file that imports nothing of ours, its data beside it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.artifacts import InputRecord
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.backends.environments import FOREIGN
from erpd_hub.evaluation.benchmarks import Benchmark, check_state, get_benchmark, load_problems, problems_hash
from erpd_hub.prompts import prompt_messages


class Handed(NamedTuple):
    """Which problems a harness was handed."""

    about: dict[str, Any]
    """As the metrics of an evaluation say it."""
    dataset: InputRecord | None
    """None for a generated benchmark."""


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
    entries = []
    for benchmark in benchmarks:
        (out / benchmark.name).mkdir()
        handed = write_problems(benchmark, endpoint, out / benchmark.name / "train.jsonl")
        entries.append(_entry(benchmark, handed))
    (out / "tasks.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    shutil.copy(FOREIGN / "lighteval_tasks.py", out)
    return [f"erpd_{benchmark.name}" for benchmark in benchmarks]


def _entry(benchmark: Benchmark, handed: Handed) -> dict[str, object]:
    return {
        "name": benchmark.name,
        "k": benchmark.k,
        "max_new_tokens": benchmark.decoding.max_new_tokens,
        "stop": list(benchmark.format.stop),
        "version": benchmark.version,
        "dataset": handed.dataset and {"repo_id": handed.dataset.repo_id, "revision": handed.dataset.revision},
        **handed.about,
    }


def write_problems(benchmark: Benchmark, endpoint: str, path: Path, *, limit: int | None = None) -> Handed:
    """Write problems that have a gold as JSON lines: problem_id, problem (the whole prompt), gold. Others than those
    that the benchmark's entry was checked with are warned about."""
    from erpd_hub.benchmark_rows import find_dataset

    found = find_dataset(benchmark, endpoint)
    every = load_problems(benchmark, found.fetch() if found else None)
    state = check_state(benchmark, every)
    with path.open("w", encoding="utf-8") as stream:
        for problem in every[:limit]:
            if problem.gold:
                prompt = prompt_messages(problem.problem, benchmark.format)[-1]["content"]
                row = {"problem_id": problem.problem_id, "problem": prompt, "gold": problem.gold}
                stream.write(json.dumps(row) + "\n")
    about = {"problems_sha256": problems_hash(every[:limit]), "problems_state": state, "limit": limit}
    return Handed(about, found.record if found else None)
