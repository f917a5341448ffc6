"""Programs and other harnesses: refused where they cannot run, and through evalscope's sandbox where a daemon answers.

The daemon here is `docker_daemon`: everything up to docker is evalscope's own. Runs where evalscope is built.
"""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from conftest import cli
from docker_daemon import DockerDaemon, docker_daemon
from test_livecodebench import row as problem

from erpd_hub.config.benchmarks import LiveCodeBenchSource
from erpd_hub.errors import ConfigError, ErpdError
from erpd_hub.evaluation.backends.environments import find_python
from erpd_hub.evaluation.backends.opinions import Opinion
from erpd_hub.evaluation.backends.programs import _cause, require_docker, run_programs
from erpd_hub.evaluation.backends.second import check_backends, second_opinions
from erpd_hub.evaluation.backends.sources import Stored
from erpd_hub.evaluation.benchmarks import get_benchmark

needs_evalscope = pytest.mark.skipif(
    find_python("evalscope") is None, reason="its environment is not built: make test-evalscope"
)

DOUBLE = "class Solution:\n    def double(self, x):\n        return {}"
SAMPLES = {
    ("c", 0): ("print(int(input()) * 2)", "correct"),
    ("c", 1): ("print(2)", "wrong"),
    ("c", 2): ("print(int(input()) * 2)", "truncated"),
    ("b", 0): (DOUBLE.format("x * 2"), "correct"),
    ("b", 1): (DOUBLE.format("x + 1"), "wrong"),
    ("b", 2): ("print('TEST_PASSED'); exit()", "wrong"),
}


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    rows = [problem("c", "2025-02-01T00:00:00"), problem("b", "2025-02-02T00:00:00", function="double")]
    (tmp_path / "test6.jsonl").write_text("".join(json.dumps(item) + "\n" for item in rows))
    source = LiveCodeBenchSource(type="livecodebench", files=("test6.jsonl",))
    benchmark = replace(get_benchmark("livecodebench_v6"), source=source)
    samples = [
        {
            "benchmark": benchmark.name, "problem_id": problem_id, "k": k, "gold": "sha256:0",
            "text": f"It is\n```python\n{program}\n```", "extracted": program, "verdict": verdict,
            "label": int(verdict == "correct"), "finish_reason": "length" if verdict == "truncated" else "stop",
        }
        for (problem_id, k), (program, verdict) in SAMPLES.items()
    ]  # fmt: skip
    return Stored(benchmark.name, "boxed", benchmark, lambda: iter(samples), None, lambda: tmp_path)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerDaemon:
    with docker_daemon(tmp_path) as opened:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
        yield opened


def test_what_is_not_built_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    keys = ["-b", "addition-1digit", "-k", "1", "--url", "http://127.0.0.1:9/v1", "--backend", "lighteval"]
    refused = cli("evaluate", "endpoint:m", *keys, home=tmp_path / "home", expect=1)
    assert "lighteval: its environment is not built; run: erpd-hub backends build lighteval" in refused.stderr
    assert not (tmp_path / "home" / "hub").exists()


def test_programs_are_no_answers(stored: Stored) -> None:
    with pytest.raises(ConfigError, match="expected answers to compare with golds, got programs"):
        second_opinions(stored, ["exact"], [], harnesses={})


def test_a_program_inside_an_open_think_block_is_what_another_harness_reads_otherwise() -> None:
    row = {"text": "```python\nprint(2)\n```", "extracted": None, "verdict": "no_answer", "label": 0}
    assert _cause(row, Opinion(1, "print(2)", None)) == "extraction"
    assert _cause({**row, "extracted": "print(2)", "verdict": "wrong"}, Opinion(1, "print(2)", None)) == "execution"


@needs_evalscope
def test_without_docker_evalscope_gets_no_programs(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert stored.benchmark is not None
    with pytest.raises(ErpdError, match=r"livecodebench_v6: expected a docker daemon.*got none.*our own sandbox"):
        check_backends(["evalscope"], [stored.benchmark])
    with pytest.raises(ErpdError, match="expected a docker daemon"):
        second_opinions(stored, [], ["evalscope"], harnesses={})
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    with pytest.raises(ErpdError, match="expected a docker daemon at a Unix socket"):
        require_docker("livecodebench_v6")


@needs_evalscope
def test_evalscope_runs_the_programs_and_each_difference_is_known(stored: Stored, daemon: DockerDaemon) -> None:
    """A truncated program counts there, and so does one that prints what its own checker prints."""
    failed = {**next(stored.rows()), "k": 3, "finish_reason": "error", "text": "", "label": None}
    stored = replace(stored, rows=lambda rows=stored.rows: chain(rows(), [failed]))
    report = second_opinions(stored, [], ["evalscope"], harnesses={})
    (run,) = report["backends"]
    assert run["left_out"] == 1
    assert run["avg"] == pytest.approx(4 / 6, abs=5e-5) and run["avg_by_sample"] == pytest.approx(4 / 6)
    assert [item["avg"] for item in report["graders"]] == pytest.approx([2 / 6, 4 / 6])
    found = {(item["problem_id"], item["k"]): item["differences"][0]["cause"] for item in report["disagreements"]}
    assert found == {("c", 2): "truncation", ("b", 2): "execution"}
    hosts = [body["HostConfig"] for body in daemon.created]
    assert {(host["NetworkMode"], host["Memory"]) for host in hosts} == {("none", 2 << 30)}
    assert not any(host.get("Privileged") or host.get("Binds") for host in hosts)


@needs_evalscope
def test_evalscope_in_a_container_that_runs_nothing_says_so(stored: Stored, daemon: DockerDaemon) -> None:
    daemon.broken = True
    with pytest.raises(ErpdError, match="does not run programs"):
        run_programs(stored)
