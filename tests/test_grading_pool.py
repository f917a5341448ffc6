"""The pool of grading workers: killed, dead, worn and unstartable ones."""

import json
import os
import signal
import subprocess
import sys
from collections import deque

import pytest

from erpd_hub.evaluation import grading_pool, grading_process
from erpd_hub.evaluation.grading import grade
from erpd_hub.evaluation.grading_pool import GradingPool
from erpd_hub.evaluation.grading_process import Comparison, Job


def test_a_killed_worker_is_replaced_and_the_job_tried_again() -> None:
    pool = GradingPool(1)
    try:
        assert pool.compare([(r"\frac12", "0.5")], seconds=30)[0].outcome == "equal"
        (worker,) = pool._idle
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        found = pool.compare([(r"\frac12", "0.5"), (r"\frac12", "0.6")], seconds=30)
        assert [comparison.outcome for comparison in found] == ["equal", "different"]
    finally:
        pool.close()


def test_a_job_whose_worker_died_early_is_tried_again_alone_in_a_fresh_one() -> None:
    job = Job(0, "x", "y", attempts=1)
    found, pending = [Comparison("no_worker", "none", 0.0)], deque([Job(1, "x", "z")])
    grading_pool._settle(job, Comparison("slow_gold", "none", 1.0), found, pending)
    assert pending[-1] is job, "what an earlier answer did to the worker is not the gold's fault"
    assert [one.index for one in grading_pool._next_batch(pending, 16)] == [1]
    assert [one.index for one in grading_pool._next_batch(deque([job, Job(2, "x", "z")]), 16)] == [0]
    pool = GradingPool(1)
    try:
        pool.compare([(r"\frac12", "0.5")], seconds=30)
        (kept,) = pool._idle
        assert pool._assign(deque([job]), 30, "reader first") is not kept
    finally:
        pool.close()
    job.attempts = 2
    grading_pool._settle(job, Comparison("slow_gold", "none", 1.0), found, deque())
    assert found[0].outcome == "slow_gold"


def test_a_batch_fits_into_a_pipe_whatever_its_characters_take() -> None:
    wide = deque(Job(index, "1", "\N{MATHEMATICAL BOLD SMALL X}" * 2000) for index in range(9))
    (first, second) = grading_pool._next_batch(wide, 16)
    assert len(json.dumps([first.answer, second.answer])) < 2**16
    assert len(grading_pool._next_batch(deque(Job(index, "1", "2") for index in range(99)), 16)) == 16


def test_a_worker_that_has_grown_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = "from erpd_hub.evaluation import grading_worker; grading_worker._WORN_KIB = 1; grading_worker.main()"
    command = [sys.executable, "-c", grown]

    def start() -> subprocess.Popen:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    monkeypatch.setattr(grading_process, "start_process", start)
    pool = GradingPool(1)
    found = pool.compare([(r"\frac12", "0.5"), (r"\frac12", "0.6")] * 9, seconds=30)
    assert [comparison.outcome for comparison in found] == ["equal", "different"] * 9
    assert pool._idle == []


def test_a_worker_of_a_large_process_is_kept() -> None:
    large = (
        "from erpd_hub.evaluation.grading_pool import GradingPool\n"
        "held = b'x' * (700 << 20)\n"
        "pool = GradingPool(1)\n"
        "pool.compare([(r'\\frac12', '0.5')], seconds=300)\n"
        "print(len(pool._idle))\n"
        "pool.close()"
    )
    assert subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_harness_that_cannot_start_is_ungradable(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> subprocess.Popen:
        command = [sys.executable, "-c", "import sys; sys.stdin.readline()"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    monkeypatch.setattr(grading_process, "start_process", broken)
    pool = GradingPool(1)
    assert pool.compare([("x", "y")], seconds=5)[0].outcome == "no_worker"
    monkeypatch.setattr("erpd_hub.evaluation.grading.shared_pool", lambda: pool)
    assert grade("x", r"\boxed{y}", finish_reason="stop", extract="boxed", thinking=False).label is None
