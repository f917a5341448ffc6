"""Stored programs through evalscope's LiveCodeBench in docker: its extraction, its way of running tests, its verdicts.

What it runs is what we ran: the same responses and the same tests, read by our reader. It needs a docker daemon at a
Unix socket and evalscope's image (python:3.11-slim), which the daemon pulls. The containers have no network.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from erpd_hub.config.benchmarks import LiveCodeBenchSource
from erpd_hub.errors import ArtifactError, ErpdError
from erpd_hub.evaluation.backends.confinement import bare_environment
from erpd_hub.evaluation.backends.environments import pinned_version, require_python
from erpd_hub.evaluation.backends.opinions import Opinion, Row, is_thinking
from erpd_hub.evaluation.backends.outputs import read_evalscope_report, review_rows
from erpd_hub.evaluation.backends.regrade import Cause, Difference, Disagreement, Regraded, Tally
from erpd_hub.evaluation.backends.replay import run_script, write_lines
from erpd_hub.evaluation.backends.sources import Stored
from erpd_hub.evaluation.benchmarks import load_problems
from erpd_hub.evaluation.code.extraction import extract_program
from erpd_hub.evaluation.code.programs import Tests

SECONDS = 6
"""A test's wall time in the container [S evalscope, LiveCodeBench]."""

CONTAINER = {
    "image": "python:3.11-slim",
    "tools_config": {"shell_executor": {}, "python_executor": {}},
    "network_enabled": False,
    "memory_limit": "2g",
    "cpu_limit": 1.0,
}
"""evalscope's container for LiveCodeBench, without the network and with less memory than its 4 GB."""

_CONTAINERS = 2
_PROBE_SECONDS = 60.0
_RUN_SECONDS = 1800.0  # of starting: the daemon may have to pull the image


def require_docker(name: str) -> None:
    """Whether evalscope could run the programs of this benchmark.

    Raises:
        ErpdError: its environment is not built, or no docker daemon answers at a Unix socket.
    """
    command = [str(require_python("evalscope")), "-s", "-c", "import docker; docker.from_env(timeout=10).ping()"]
    try:
        done = subprocess.run(
            command, env=bare_environment(**_docker(name)), capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
        answers = done.returncode == 0
    except subprocess.TimeoutExpired:
        answers = False
    if not answers:
        raise ErpdError(
            f"{name}: expected a docker daemon, in which evalscope runs programs, got none that answers; start it, or "
            "leave --backend out: our own sandbox grades programs without it"
        )


def run_programs(stored: Stored) -> dict[str, Any]:
    """evalscope's verdicts on stored programs beside ours, in the form of `Regraded.report` with `backends`.

    Raises:
        ArtifactError: no samples. ErpdError: evalscope is not built, docker does not answer, or the run failed.
    """
    tests = _tests_of(stored)
    every = list(stored.rows())
    rows = [row for row in every if row["finish_reason"] != "error"]
    if not rows:
        raise ArtifactError(f"{stored.name}: expected samples of programs, got none")
    with tempfile.TemporaryDirectory(prefix="erpd-replay-") as folder:
        work = Path(folder).resolve()
        cases = _write(work, rows, tests)
        limit = _RUN_SECONDS + (SECONDS + 2) * cases / _CONTAINERS
        run_script("evalscope", "evalscope_programs.py", work, limit, **_docker(stored.name))
        score = read_evalscope_report(work / "out")
        theirs = dict(_verdicts(work / "out"))
    given = [theirs.get((row["problem_id"], row["k"])) or Opinion(None, None, "no verdict") for row in rows]
    report = _compared(rows, given).report()
    graded = [opinion.label for opinion in given if opinion.label is not None]
    run = {
        "backend": "evalscope",
        "version": f"evalscope {pinned_version('evalscope')}",
        **score,
        "avg_by_sample": fmean(graded) if graded else None,
        "k": report["k"],
        "n": report["n"],
        "left_out": len(every) - len(rows),
        "withheld": 0,
    }
    return {**report, "backends": [run]}


def _docker(name: str) -> dict[str, str]:
    """Raises ErpdError: the daemon is not at a Unix socket; the run has no network to reach another one by."""
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        raise ErpdError(f"{name}: expected a docker daemon at a Unix socket in DOCKER_HOST, got another address")
    return {"DOCKER_HOST": host} if host else {}


def _tests_of(stored: Stored) -> Callable[[str], Tests]:
    from erpd_hub.evaluation.code.livecodebench import load_tests
    from erpd_hub.programs import tests_of

    assert stored.benchmark is not None, "programs are of a benchmark that is known"
    if isinstance(stored.benchmark.source, LiveCodeBenchSource):
        return load_tests(stored.benchmark.source, stored.dataset())
    texts = {problem.problem_id: problem.problem for problem in load_problems(stored.benchmark, None)}
    return lambda problem_id: tests_of(texts[problem_id])


def _write(work: Path, rows: Sequence[Row], tests: Callable[[str], Tests]) -> int:
    """What the script reads; returns how many tests there are to run at most."""
    numbers = {problem_id: number for number, problem_id in enumerate(dict.fromkeys(row["problem_id"] for row in rows))}
    (work / "data").mkdir()
    (work / "tests").mkdir()
    counts = {}
    for problem_id, number in numbers.items():
        found = tests(problem_id)
        counts[problem_id] = len(found.cases)
        (work / "tests" / f"{number}.json").write_text(_evaluation_sample(found), encoding="utf-8")
    asked = [(row, f"problem {numbers[row['problem_id']]}, sample {row['k']}") for row in rows]
    known = (
        {"problem_id": r["problem_id"], "k": r["k"], "tests": numbers[r["problem_id"]], "problem": p} for r, p in asked
    )
    write_lines(work / "data" / "problems.jsonl", known)
    write_lines(work / "samples.jsonl", ({"problem": prompt, "texts": [row["text"]]} for row, prompt in asked))
    spec = {"seconds": SECONDS, "batch": _CONTAINERS, "container": CONTAINER}
    (work / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    return sum(counts[row["problem_id"]] for row in rows)


def _evaluation_sample(tests: Tests) -> str:
    """Tests as evalscope's grader reads them."""
    inputs, outputs = [case.input for case in tests.cases], [case.expected for case in tests.cases]
    return json.dumps({"inputs": inputs, "outputs": outputs, "fn_name": tests.function})


def _verdicts(out: Path) -> Iterator[tuple[tuple[str, int], Opinion]]:
    """By problem and sample; the reason is what evalscope says of the first test that failed."""
    for _, row in review_rows(out):
        known, score = row["sample_score"]["sample_metadata"], row["sample_score"]["score"]
        details = (score.get("metadata") or {}).get("detailed_results") or {}
        reason = next(iter(details.get("failed_cases") or ()), None)
        label: Literal[0, 1] = 1 if score["value"]["acc"] else 0
        program = score.get("extracted_prediction") or None
        yield (known["problem_id"], known["k"]), Opinion(label, program, str(reason)[:300] if reason else None)


def _compared(rows: Sequence[Row], opinions: Sequence[Opinion]) -> Regraded:
    result = Regraded({"stored": Tally(), "evalscope": Tally()}, [])
    for row, opinion in zip(rows, opinions, strict=True):
        result.tallies["stored"].labels[row["problem_id"]].append(row["label"])
        result.tallies["evalscope"].labels[row["problem_id"]].append(opinion.label)
        if opinion.label == row["label"]:
            continue
        cause = _cause(row, opinion)
        result.tallies["evalscope"].causes[cause] += 1
        stored = (row["problem_id"], row["k"], row["gold"] or "", row["extracted"], row["verdict"], row["label"])
        result.disagreements.append(Disagreement(*stored, (Difference("evalscope", opinion, cause),)))
    return result


def _cause(row: Row, opinion: Opinion) -> Cause:
    if row["label"] is None:
        return "ungraded here"
    if opinion.label is None:
        return "no verdict"
    if row["verdict"] == "truncated":
        return "truncation"
    ours = extract_program(row["text"], thinking=is_thinking(row))
    return "execution" if (ours or "").strip() == (opinion.answer or "").strip() else "extraction"
