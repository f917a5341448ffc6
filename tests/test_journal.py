"""The journal of finished samples, and sampling through it: with a local engine that is handed everything at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import FORMAT, context, make_policy

from erpd_hub.config import Decoding
from erpd_hub.errors import StageError
from erpd_hub.prompts import Problem
from erpd_hub.samples import read_rows, shard_paths
from erpd_hub.sampling import plan
from erpd_hub.sampling.collect import collect
from erpd_hub.sampling.engine import Completion
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.journal import Journal
from erpd_hub.sampling.transformers_engine import LocalEngine
from erpd_hub.stage_context import StageContext

PROBLEMS = [Problem(text, "addition", text, "7") for text in ("3+4", "1+2", "12+5", "20+31")]
SAMPLES = {
    1: Completion([5, 6, 7], [-0.5, -1.25, -2.0], "stop", "abc"),
    2: Completion([8] * 1000, None, "length", "π" * 500),
    3: Completion(None, None, "stop", "no ids: \ud800"),
    2**62: Completion([], [], "length", ""),
}


def write(folder: Path, replica: int = 0, keys=tuple(SAMPLES)) -> None:
    journal = Journal(folder, replica)
    for key in keys:
        journal.append(key, SAMPLES[key])
    journal.close()


def test_what_was_appended_is_read_again(tmp_path) -> None:
    write(tmp_path)
    journal = Journal(tmp_path)
    assert {key: journal.read(key) for key in SAMPLES} == SAMPLES
    assert [journal.num_tokens(key) for key in SAMPLES] == [3, 1000, 0, 0]
    assert len(journal) == 4
    assert 4 not in journal


def test_a_cut_anywhere_loses_only_what_it_cut(tmp_path) -> None:
    """As a kill in mid-write leaves it: after the next append everything whole is there, once."""
    write(tmp_path / "whole", keys=(1, 3))
    content = (tmp_path / "whole" / "journal-0.bin").read_bytes()
    write(tmp_path / "first", keys=(1,))
    first = (tmp_path / "first" / "journal-0.bin").stat().st_size
    for length in range(len(content) + 1):
        path = tmp_path / "torn" / "journal-0.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content[:length])
        journal = Journal(path.parent)
        assert (1 in journal) == (length >= first)
        assert (3 in journal) == (length == len(content))
        journal.append(2, SAMPLES[2])
        journal.close()
        assert 2 in Journal(path.parent)
        assert Journal(path.parent).read(2) == SAMPLES[2]


@pytest.mark.parametrize("damage", [b"\x00" * 64, b"\xff" * 64])
def test_bytes_that_a_crash_left_are_no_record(tmp_path, damage: bytes) -> None:
    write(tmp_path, keys=(1,))
    path = tmp_path / "journal-0.bin"
    path.write_bytes(path.read_bytes() + damage)
    assert len(Journal(tmp_path)) == 1


def test_journals_of_all_replicas_are_one(tmp_path) -> None:
    write(tmp_path, replica=0, keys=(1,))
    write(tmp_path, replica=1, keys=(2, 3))
    other = (tmp_path / "journal-1.bin").read_bytes() + b"being written"
    (tmp_path / "journal-1.bin").write_bytes(other)
    journal = Journal(tmp_path, 0)
    assert {key: journal.read(key) for key in (1, 2, 3)} == {key: SAMPLES[key] for key in (1, 2, 3)}
    assert (tmp_path / "journal-1.bin").read_bytes() == other  # its owner may be at it


# ------------------------------------------------------------------------------------------- sampling


class AllAtOnce(LocalEngine):
    """Each sample by itself, the last one first, as an engine gives them that schedules for itself."""

    reproducible = False
    unseeded = False
    asked = 0
    fail: tuple[int, ...] = ()
    """Seeds of requests that fail."""

    def generate(self, requests, decoding, stop):
        self.asked += len(requests)
        for index in reversed(range(len(requests))):
            if requests[index].seed in self.fail:
                yield index, Completion(None, None, "error", "no such luck")
                continue
            for _, completion in super().generate([requests[index]], decoding, stop):
                yield index, completion


def make_job(folder: Path, shares: StageContext | None = None, *, max_new_tokens=10, earlier=None) -> Job:
    engine = LocalEngine(*make_policy())
    prompts = plan.render_prompts(PROBLEMS, FORMAT, engine.tokenizer)
    draws = plan.all_draws(prompts, "addition", 3, 0)
    decoding = Decoding(max_new_tokens=max_new_tokens)
    return Job(draws, "addition", decoding, FORMAT, earlier, folder / "out", shares or context(folder))


def run(folder: Path, shares: StageContext | None = None, **changes) -> tuple[AllAtOnce, list[dict]]:
    engine = AllAtOnce(*make_policy())
    engine.fail = changes.pop("fail", ())
    collect(make_job(folder, shares, **changes), lambda: engine)
    return engine, list(read_rows(folder / "out"))


def test_rows_come_in_the_plans_order_with_their_grades(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plan, "SHARD_TOKENS", 60)
    engine, rows = run(tmp_path)
    assert [(row["problem_id"], row["k"]) for row in rows] == [(p.problem_id, k) for p in PROBLEMS for k in range(3)]
    assert len(shard_paths(tmp_path / "out")) > 1
    assert all(row["verdict"] == "truncated" for row in rows if row["finish_reason"] == "length")
    assert all(len(row["sampler_logprobs"]) == len(row["response_ids"]) for row in rows)
    assert engine.asked == 12
    again, rows_again = run(tmp_path)
    assert (again.asked, rows_again) == (0, rows)


def test_a_failed_sample_stops_the_stage_and_the_others_are_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ERPD_PROGRESS", str(tmp_path / "progress.json"))
    bad = make_job(tmp_path).draws[4].seed
    with pytest.raises(StageError, match=r"1 samples failed after all retries \(1\+2#1: no such luck\), 11 are kept"):
        run(tmp_path, fail=(bad,))
    assert not shard_paths(tmp_path / "out")
    engine, rows = run(tmp_path)
    assert (engine.asked, len(rows)) == (1, 12)
    state = json.loads((tmp_path / "progress.json").read_text())
    assert (state["samples"], state["graded"]) == (12, 12), "the score so far is of all there are"


def test_replicas_take_whole_prompts_and_the_last_call_joins_them(tmp_path) -> None:
    asked = []
    for replica in range(3):
        engine, rows = run(tmp_path, StageContext(0, tmp_path / "work", replica, 3))
        asked.append(engine.asked)
        assert rows == []
    assert asked == [6, 3, 3]
    engine, rows = run(tmp_path)
    assert engine.asked == 0
    assert rows == run(tmp_path / "alone")[1]


def test_an_extension_continues_what_ended_by_length(tmp_path) -> None:
    _, short = run(tmp_path / "short")
    engine, rows = run(
        tmp_path / "long", max_new_tokens=20, earlier=plan.Earlier(tmp_path / "short" / "out", max_new_tokens=10)
    )
    assert 0 < engine.asked == sum(row["finish_reason"] == "length" for row in short) < 12
    for before, after in zip(short, rows, strict=True):
        assert after["response_ids"][: len(before["response_ids"])] == before["response_ids"]
        assert len(after["sampler_logprobs"]) == len(after["response_ids"])
        assert before["finish_reason"] == "length" or before == after


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_journal import AllAtOnce, make_job, make_policy
from erpd_hub.errors import ErpdError
from erpd_hub.sampling.collect import collect

class Dying(AllAtOnce):
    def generate(self, requests, decoding, stop):
        for place, pair in enumerate(super().generate(requests, decoding, stop)):
            if place == 5:
                os.kill(os.getpid(), getattr(signal, sys.argv[3]))
            yield pair
    def close(self):
        super().close()
        print("closed", flush=True)
try:
    collect(make_job(Path(sys.argv[2])), lambda: Dying(*make_policy()))
except ErpdError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_stop_or_kill_in_the_middle_loses_nothing_that_was_finished(tmp_path, name: str) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), name]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if name == "SIGKILL":
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 1, done.stderr
        assert "closed\nsampling: stopped by a signal with 7 samples to go, 5 kept; run it again" in done.stdout
    engine, rows = run(tmp_path)
    assert engine.asked == 7
    assert rows == run(tmp_path / "alone")[1]
