"""A run on several processes, end to end: two sampling replicas, one of which is killed, two training processes,
sharded scoring; and what the ways to launch refuse."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MICRO, cli

from erpd_hub.config import Decoding, OnlineConfig, RolloutConfig, ScoreConfig, TeacherConfig, VLLMEngine
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.hub.connecting import connect
from erpd_hub.launching import launch as launch_module
from erpd_hub.launching.launch import run_stage
from erpd_hub.launching.machine import ask_driver, visible_gpus
from erpd_hub.launching.options import Launch
from erpd_hub.launching.processes import alone
from erpd_hub.launching.sharing import accelerate_config
from erpd_hub.launching.worker import Job, read_answer
from erpd_hub.lineage import locate, verify
from erpd_hub.samples import read_rows
from erpd_hub.stage_context import StageContext

RECIPE = """
run: launched
threads: 1
steps:
  prompts: {type: generator, generator: addition, count: 16, min_digits: 1, max_digits: 1,
            format: {template: "{problem}?"}, decontaminate: []}
  rollouts: {stage: rollout, prompts: prompts, policy: local/micro-r1-base, k: 8, decoding: {max_new_tokens: 24},
             engine: {batch_tokens: 512}}
  teacher: {rollouts: rollouts, init: local/micro-r1-base, loss: {type: mse}, learning_rate: 1e-3, steps: 3,
            prompts_per_step: 8, save_steps: [2]}
  score: {rollouts: rollouts, checkpoint: teacher}
"""


@pytest.fixture(scope="module")
def launched(micro_base, tmp_path_factory):
    """The recipe on two processes, one of which is killed while it samples, and then again; and in one process."""
    folder = tmp_path_factory.mktemp("launched")
    recipe = folder / "launched.yaml"
    recipe.write_text(RECIPE)
    for name in ("one", "two"):
        shutil.copytree(micro_base, folder / name)
    killed = _kill_a_replica(("run", recipe, "--until", "score", "--gpus", "2"), folder / "two")
    done = cli("--verbose", "run", recipe, "--until", "score", "--gpus", "2", "--json", home=folder / "two")
    cli("run", recipe, "--until", "score", home=folder / "one")
    return {"folder": folder, "killed": killed, "summary": json.loads(done.stdout), "stderr": done.stderr}


def _kill_a_replica(arguments, home):
    """Run, kill one of the two sampling processes as soon as there are samples, and return what the run says."""
    command = [sys.executable, "-m", "erpd_hub.cli", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "ERPD_HOME": str(home)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any((home / "work").glob("*/out/data/*.parquet")) and (workers := _workers(home)):
            os.kill(workers[-1], signal.SIGKILL)
            break
        time.sleep(0.01)
    _, said = process.communicate(timeout=120)
    return process.returncode, said, _workers(home)


def _workers(home):
    """Ids of the replicas that sample for a home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "erpd_hub.launching.worker" in words and any(w.startswith(str(home)) and "job-" in w for w in words):
            found.append(int(entry.parent.name))
    return sorted(found)


def test_a_killed_replica_stops_the_run_in_one_line_and_the_other_with_it(launched):
    code, said, left = launched["killed"]
    assert code == 1
    assert "was killed by SIGKILL; what is finished is kept and the same command goes on" in said
    assert "Traceback" not in said
    assert left == []


def test_the_next_run_goes_on_and_every_stage_ran_as_two(launched, monkeypatch):
    monkeypatch.setenv("ERPD_HOME", str(launched["folder"] / "two"))
    hub = connect("local")
    for step, processes in (("rollouts", 2), ("teacher", 2), ("score", 2), ("prompts", None)):
        place = locate(hub, f"local/launched-r1-{step}")
        record = hub.lineage(place.repo_type, place.repo_id, place.revision)
        assert record.environment.get("processes") == processes, step
        assert str(launched["folder"]) not in record.to_json()
        times = hub.file(place.repo_type, place.repo_id, place.revision, "metrics.jsonl").read_text().splitlines()
        attempts = [line for line in map(json.loads, times) if "stage_seconds" in line]
        assert {line["gpus"] for line in attempts} == {processes or 1}
        assert len(attempts) == (2 if step == "rollouts" else 1), "the interrupted attempt counts too"
    assert not [finding for finding in verify(hub, locate(hub, "local/launched-r1-score")) if finding.problems]
    assert "2 CPU processes rehearse --gpus 2" in launched["stderr"]
    assert "[r1/rollouts 2/2]" in launched["stderr"]
    assert "[r1/score 1/2] scored train-00000.parquet" in launched["stderr"]


def test_several_processes_come_to_what_one_comes_to(launched, monkeypatch):
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("ERPD_HOME", str(launched["folder"] / name))
        hub = connect("local")
        folders = {}
        for step in ("rollouts", "teacher", "score"):
            place = locate(hub, f"local/launched-r1-{step}")
            folders[step] = hub.pull(place.repo_type, place.repo_id, place.revision)
        found.append(folders)
    one, two = found
    assert list(read_rows(one["rollouts"])) == list(read_rows(two["rollouts"])), "each sample has a seed of its own"
    losses = [
        [json.loads(line)["loss"] for line in (folders["teacher"] / "dynamics.jsonl").read_text().splitlines()]
        for folders in found
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    for row, other in zip(read_rows(one["score"]), read_rows(two["score"]), strict=True):
        assert (row["problem_id"], row["k"]) == (other["problem_id"], other["k"])
        assert row["logprobs"] == pytest.approx(other["logprobs"], abs=1e-3)


# ------------------------------------------------------------------------------------------ refusals


def job(tmp_path, config=None, **inputs) -> Job:
    config = config or ScoreConfig(rollouts="a/b", checkpoint="a/c")
    (tmp_path / "work").mkdir(exist_ok=True)
    return Job("r1/step", config, tmp_path / "out", inputs, StageContext(0, tmp_path / "work"), threads=1)


def test_a_job_survives_its_file(tmp_path):
    config = RolloutConfig(
        prompts="prompts", engine=VLLMEngine(type="vllm", tensor_parallel=2), python="other-env/bin/python"
    )
    whole = job(tmp_path, config, prompts=tmp_path, policies=(tmp_path, tmp_path / "b"), by_name={"x": None})
    whole = whole.replica(1, 4)
    assert Job.load(whole.dump(tmp_path / "job.json")) == whole


def test_an_error_of_a_worker_is_the_stages_own_line(tmp_path):
    config = ScoreConfig(rollouts="a/b", checkpoint="a/c", python=sys.executable)
    with pytest.raises(ArtifactError, match=r"^rollouts: expected data/train-\*.parquet in it, got none$"):
        run_stage(job(tmp_path, config, rollouts=tmp_path, checkpoint=tmp_path), Launch(), tmp_path / "l")
    error = {"error": {"class": "StageError", "message": "ValueError: x", "has_traceback": True}}
    (tmp_path / "answer").write_text(json.dumps(error))
    with pytest.raises(StageError, match=r"^ValueError: x; all it said: /log$"):
        read_answer(tmp_path / "answer", Path("/log"))


def test_an_environment_without_this_package_says_how_to_install_it(tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = str(tmp_path / "env" / "bin" / "python")
    with pytest.raises(ConfigError, match=r"r1/step.python: expected erpd-hub .* -m pip install 'erpd-hub=="):
        run_stage(job(tmp_path, ScoreConfig(rollouts="a/b", checkpoint="a/c", python=python)), Launch(), tmp_path / "l")
    with pytest.raises(ConfigError, match="expected a Python interpreter, got /absent/python"):
        config = ScoreConfig(rollouts="a/b", checkpoint="a/c", python="/absent/python")
        run_stage(job(tmp_path, config), Launch(), tmp_path / "l")


def test_gpus_are_shared_out_in_groups(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5, 6,7")
    assert visible_gpus() == ("3", "5", "6", "7")
    launch = Launch.from_options(4, None)
    engine = VLLMEngine(type="vllm", tensor_parallel=2)
    assert launch.groups(RolloutConfig(prompts="p", engine=engine)) == 2
    assert launch.groups(RolloutConfig(prompts="p")) == 4
    assert launch.groups(TeacherConfig(rollouts="r", steps=1, loss={"type": "mse"})) == 1
    with pytest.raises(ConfigError, match=r"tensor_parallel: expected a divisor of --gpus 4, got 3"):
        launch.groups(RolloutConfig(prompts="p", engine=VLLMEngine(type="vllm", tensor_parallel=3)))
    with pytest.raises(ConfigError, match=r"--gpus: expected at most 4"):
        Launch.from_options(8, None)
    with pytest.raises(ConfigError, match=r"--launch: expected accelerate:FILE"):
        Launch.from_options(None, "accelerate:/absent.yaml")


@pytest.mark.parametrize(("backend", "way"), [("own", "_train"), ("trl", "_elsewhere")])
def test_several_gpus_train_together_what_is_not_of_one_process(tmp_path, monkeypatch, backend, way):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config = OnlineConfig(prompts="p", steps=1, backend=backend, kl_to_start=False)
    for name in ("_train", "_elsewhere"):
        monkeypatch.setattr(launch_module, name, lambda *_, name=name: name)
    job = Job("r1/online", config, tmp_path / "out", {}, StageContext(0, tmp_path / "work"))
    assert run_stage(job, Launch.from_options(2, None), tmp_path) == way


def test_auto_is_ddp_where_the_smallest_gpu_holds_the_training_as_the_driver_says(tmp_path, monkeypatch):
    shape = {"hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49_152, "intermediate_size": 1536,
             "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "config.json").write_text(json.dumps(shape))
    config = OnlineConfig(prompts="p", steps=1, decoding=Decoding(max_new_tokens=512))
    training = replace(job(tmp_path, config), inputs={"init": tmp_path / "init"})
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(driver.parent), prepend=os.pathsep)
    for memories, kind in ((("81559 MiB", "40960 MiB"), "ddp"), (("81559 MiB", "2048 MiB"), "fsdp2"), ((), "fsdp2")):
        driver.write_text("#!/bin/sh\n" + "".join(f"echo {said}\n" for said in memories))
        assert ask_driver("memory.total") == list(memories)
        assert accelerate_config(training, Launch(2, ("0", "1"))).kind == kind


def test_several_machines_need_a_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    file = tmp_path / "two.yaml"
    file.write_text("distributed_type: MULTI_GPU\nnum_machines: 2\n")
    launch = Launch.from_options(2, f"accelerate:{file}")
    config = TeacherConfig(rollouts="r", steps=1, loss={"type": "mse"})
    with pytest.raises(ConfigError, match="expected a SLURM job for num_machines 2"):
        run_stage(job(tmp_path, config), launch, tmp_path / "l")


def test_the_slurm_script_submits_every_step_in_order(tmp_path):
    script = tmp_path / "run.slurm"
    script.write_text(cli("run", MICRO, "seed=3", "--gpus", "4", "--launch", "slurm", home=tmp_path).stdout)
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text('#!/bin/bash\necho "$PART|$STEPS|$*" >> "$LOG"\nwc -l < "$LOG"\n')
    sbatch.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{sbatch.parent}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "NODES": "2",
    }
    environment.pop("SLURM_JOB_ID", None)
    subprocess.run(["bash", str(script)], env=environment, check=True, capture_output=True)
    jobs = [line.split("|") for line in (tmp_path / "log").read_text().splitlines()]
    assert jobs[0][:2] == ["sample", "r1/base r1/prompts r1/rollouts r1/score-base"]
    assert jobs[1][:2] == ["train", "r1/teacher"]
    assert "--nodes=2" in jobs[1][2]
    assert "--dependency=afterok:1" in jobs[1][2]
    assert jobs[-1][:2] == ["sample", "r1/probe r1/evaluate"]
    assert "seed=3 --gpus" in script.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_children_go_with_the_process_that_started_them(tmp_path, number):
    """Also with one that is killed: nothing may write into a work directory that the next run uses."""
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from erpd_hub.launching.processes import Command, alone, run_together\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "folder = Path(sys.argv[1])\n"
        "sleep = [sys.executable, '-c', 'import time; print(\"up\", flush=True); time.sleep(600)']\n"
        "with alone(folder / 'lock') as lock:\n"
        "    run_together([Command(str(i), sleep, os.environ, folder / f'{i}.log') for i in range(2)], lock)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"{i}.log").exists() for i in range(2)) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    parent.send_signal(number)
    parent.communicate(timeout=30)
    started = time.monotonic()
    with alone(tmp_path / "lock"):  # the children hold it too
        assert time.monotonic() - started < 20
    assert parent.returncode != 0
