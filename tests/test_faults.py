"""Faults: killed at any point of any stage, a dead Hub, bad input. Nothing is lost and nothing comes out different."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import MICRO, cli

from erpd_hub.errors import HubError
from erpd_hub.hub.local import EmbeddedHub

KILL_AT = str(Path(__file__).parent / "kill_at.py")

# In the order of the run, so that each kill meets a run that the one before left in the middle.
POINTS = (
    "after-two-rollout-shards",  # rollouts
    "before-the-record",  # rollouts again, all shards there
    "after-a-score-shard",  # score-base
    "in-the-middle-of-a-request",  # score-base, its commit
    "after-a-training-checkpoint",  # teacher
    "after-a-saved-step",  # teacher, after it resumed
    "between-upload-and-commit",  # teacher, its first step
    "between-two-commits",  # teacher, its second step
    "between-commit-and-tag",  # teacher or score-teacher
    "between-tag-and-clean-up",
)


def test_a_run_killed_at_many_points_ends_as_an_undisturbed_one(micro, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(micro.base_home, home)
    for point in POINTS:
        cli(point, "run", MICRO, "--until", "student", home=home, script=(KILL_AT,), expect=-signal.SIGKILL)
    done = json.loads(cli("run", MICRO, "--until", "student", "--json", home=home).stdout)
    expected = {item["step"]: (item["fingerprint"], item["digest"]) for item in micro.summary["artifacts"]}
    for item in done["artifacts"]:
        assert (item["fingerprint"], item["digest"]) == expected[item["step"]], item["step"]
    assert not any((home / "work").glob("*/*")), "work directories go away with the push"


def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(micro, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(micro.base_home, home)
    command = [sys.executable, "-m", "erpd_hub.cli", "run", str(MICRO), "--until", "control"]
    for seconds in (4.5, 5.5, 6.5):
        process = subprocess.Popen(command, env={**os.environ, "ERPD_HOME": str(home)}, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
    done = json.loads(cli("run", MICRO, "--until", "control", "--json", home=home).stdout)
    expected = {item["step"]: item["digest"] for item in micro.summary["artifacts"]}
    assert {item["step"]: item["digest"] for item in done["artifacts"]}.items() <= expected.items()


def test_the_embedded_hub_killed_in_the_middle_of_a_run_comes_back(micro, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(micro.base_home, home)
    command = [sys.executable, "-m", "erpd_hub.cli", "run", str(MICRO), "--until", "student", "--json"]
    process = subprocess.Popen(command, env={**os.environ, "ERPD_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
    killed = 0
    while process.poll() is None and killed < 3:
        time.sleep(2)
        ready = home / "hub" / "server.json"
        if ready.exists():
            with contextlib.suppress(ProcessLookupError):  # the one before, not yet replaced
                os.kill(json.loads(ready.read_text())["pid"], signal.SIGKILL)
                killed += 1
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    assert killed >= 2
    expected = {item["step"]: item["digest"] for item in micro.summary["artifacts"]}
    assert {item["step"]: item["digest"] for item in json.loads(output)["artifacts"]}.items() <= expected.items()


def servers(root: Path) -> set[int]:
    """The processes whose command line names this root."""
    found = set()
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone by now
            if str(root).encode() in command_line.read_bytes().split(b"\0"):
                found.add(int(command_line.parent.name))
    return found


@pytest.mark.parametrize(("kills", "comes_up"), [(2, True), (1000, False)])
def test_a_hub_killed_while_it_starts_is_started_again(kills, comes_up, tmp_path):
    """Again and again, but not for ever: something that kills every server is named."""
    with EmbeddedHub(tmp_path / "hub") as hub, ThreadPoolExecutor(1) as pool:
        starting, killed = pool.submit(hub.ensure), set()
        while not starting.done() and len(killed) < kills:
            for pid in servers(hub.root) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        if comes_up:
            assert starting.result().startswith("http://127.0.0.1:")
        else:
            with pytest.raises(HubError, match="killed by signal 9, 5 times"):
                starting.result()


@pytest.fixture
def served(tmp_path):
    """A Hub that the test starts and kills, at an endpoint of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    servers = []

    def start():
        command = [
            sys.executable,
            "-m",
            "erpd_hub.cli",
            "hub",
            "serve",
            "--root",
            str(tmp_path / "hub"),
            "--port",
            str(port),
        ]
        servers.append(subprocess.Popen(command))
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    return servers[-1]
            time.sleep(0.05)
        raise AssertionError("the Hub did not start")

    yield f"http://127.0.0.1:{port}", start
    for server in servers:
        server.kill()
        server.wait()


def test_a_dead_hub_at_push_time_loses_nothing(served, tmp_path):
    endpoint, start = served
    home = tmp_path / "home"
    recipe = tmp_path / "prompts.yaml"
    recipe.write_text(
        f"run: p\nhub: {{endpoint: '{endpoint}'}}\n"
        "steps:\n  prompts: {type: generator, generator: addition, count: 16, decontaminate: []}\n"
    )
    server = start()
    code = (
        "import os,signal,sys\n"
        "from erpd_hub.hub import client, retry\n"
        "retry.BACK_OFF = (0.1,)\n"
        "push = client.Hub.push\n"
        f"def dead(*a, **k): os.kill({server.pid}, signal.SIGKILL); return push(*a, **k)\n"
        "client.Hub.push = dead\n"
        "from erpd_hub.cli import main; main()\n"
    )
    failed = cli("run", recipe, home=home, script=("-c", code), expect=1)
    assert "not reachable after 2 tries" in failed.stderr
    assert "the finished artifact is kept" in failed.stderr
    server.wait()
    start()
    preview = json.loads(cli("run", recipe, "--dry-run", "--json", home=home).stdout)
    assert [node["will"] for node in preview["nodes"]] == ["push"]
    done = json.loads(cli("run", recipe, "--json", home=home).stdout)
    assert [item["reused"] for item in done["artifacts"]] == [False]


def test_an_interrupted_run_says_so_and_goes_on(tmp_path):
    recipe = tmp_path / "prompts.yaml"
    recipe.write_text(
        "run: p\nsteps:\n  prompts: {type: generator, generator: addition, count: 16, decontaminate: []}\n"
    )
    code = (
        "import os, signal\n"
        "from erpd_hub.hub import client\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell has its background jobs ignore it
        "client.Hub.push = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)\n"
        "from erpd_hub.cli import main; main()\n"
    )
    home = tmp_path / "home"
    done = cli("run", recipe, home=home, script=("-c", code), expect=128 + signal.SIGINT)
    assert done.stderr.endswith("erpd-hub: interrupted; finished artifacts are kept\n")
    assert "Traceback" not in done.stderr
    preview = json.loads(cli("run", recipe, "--dry-run", "--json", home=home).stdout)
    assert [node["will"] for node in preview["nodes"]] == ["push"]


def test_a_batch_of_one_outcome_is_refused_with_its_numbers(micro):
    words = ["prompts=local/micro-r1-prompts", "policy=local/micro-r1-unlearned", "k=2", "decoding.max_new_tokens=1"]
    cli("rollout", *words, "--name", "hopeless", home=micro.home)
    done = cli(
        "teacher", "rollouts=local/hopeless-r1-rollout", "policy=local/micro-r1-base", "loss.type=ce", "steps=1",
        home=micro.home, expect=1,
    )  # fmt: skip
    assert "erpd-hub: r1/teacher: rollouts: expected right and wrong responses, got 0 right of 32 graded" in done.stderr


def test_a_loss_that_is_not_finite_names_its_step(micro):
    words = ["rollouts=local/micro-r1-rollouts", "policy=local/micro-r1-base", "loss.type=ce", "loss.beta=1"]
    done = cli(
        "teacher", *words, "steps=8", "learning_rate=1e30", "prompts_per_step=8", "--name", "inf",
        home=micro.home, expect=1,
    )  # fmt: skip
    assert "r1/teacher: teacher: expected a finite" in done.stderr
    assert "at step 2" in done.stderr
    assert "lower the learning rate" in done.stderr


def test_prompts_from_a_file_with_bad_rows(tmp_path):
    rows = [{"problem": "1+1", "answer": "2"}, {"problem": "2+2"}, {"problem": "", "answer": "3"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = ["prompts", "type=jsonl", f"path={path}", "decontaminate=[]"]
    missing = cli(*base, "problem_column=problm", home=tmp_path / "home", expect=2)
    assert "did you mean 'problem'" in missing.stderr
    refused = cli(*base, "on_bad_row=refuse", home=tmp_path / "home", expect=1)
    assert "Traceback" not in refused.stderr
    done = json.loads(cli(*base, "--json", home=tmp_path / "home").stdout)
    assert len(done["artifacts"]) == 1


def test_a_kill_before_the_leaderboard_is_made_good_by_the_next_run(micro, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(micro.base_home, home)
    words = ("run", MICRO, "--until", "evaluate", "evaluate.checkpoints=[base]")
    cli("before-the-leaderboard", *words, home=home, script=(KILL_AT,), expect=-signal.SIGKILL)
    cli(*words, home=home)
    code = (
        "from erpd_hub.hub.connecting import connect\n"
        "from erpd_hub.results.published import published_rows\n"
        "rows = published_rows(connect('local'), 'local/erpd-leaderboard')[1]['data/micro.parquet']\n"
        "print([row['checkpoint'] for row in rows])"
    )
    assert cli(home=home, script=("-c", code)).stdout.strip() == "['base']"
