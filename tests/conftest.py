"""Settings that must be in place before torch and huggingface_hub are imported, and the runs that tests share."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from erpd_hub.artifacts import LineageRecord, digest_files, fingerprint, payload_files

GIVEN = ("ERPD_BENCHDATA", "ERPD_ENVIRONMENTS", "ERPD_SMOLLM2", "ERPD_UNPROTECTED_CODE")
"""What tests are told of the machine; all else that the user has set for this package or for Hubs is not for them."""
for name in [*os.environ]:
    if name.startswith(("ERPD_", "HF_", "HUGGING")) and name not in GIVEN:
        del os.environ[name]
for name in ("TRANSFORMERS_OFFLINE", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
    os.environ.pop(name, None)
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HOME"] = _HF_HOME = tempfile.mkdtemp(prefix="erpd-tests-hf-")  # nor what others have downloaded
atexit.register(shutil.rmtree, _HF_HOME, ignore_errors=True)
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"

MICRO = Path(__file__).parent / "micro.yaml"


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """No test sees or changes the user's own artifacts."""
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "erpd-home"))


def cli(*arguments, home, script=("-m", "erpd_hub.cli"), expect=0, timeout=300):
    """Run the command as a user would, in a process of its own."""
    command = [sys.executable, *script, *map(str, arguments)]
    environment = {**os.environ, "ERPD_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, cwd="/")
    assert done.returncode == expect, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


class MicroRun(NamedTuple):
    """The undisturbed run of tests/micro.yaml that many tests look at."""

    home: Path
    base_home: Path
    """A copy from just after the base, to start other runs from."""
    summary: dict[str, Any]
    stderr: str


@pytest.fixture(scope="session")
def micro_base(tmp_path_factory):
    """A home that holds the base of tests/micro.yaml and nothing else."""
    home = tmp_path_factory.mktemp("base") / "home"
    cli("run", MICRO, "--until", "base", home=home)
    time.sleep(1.5)  # the embedded Hub leaves when its last client has
    return home


@pytest.fixture(scope="session")
def finished_micro(tmp_path_factory, micro_base):
    home, base_home = tmp_path_factory.mktemp("micro") / "home", micro_base
    shutil.copytree(base_home, home)
    done = cli("run", MICRO, "--json", home=home)
    return MicroRun(home, base_home, json.loads(done.stdout), done.stderr)


@pytest.fixture
def micro(finished_micro, monkeypatch):
    """The finished run, with its home as this test's home; tests that change it copy it first."""
    monkeypatch.setenv("ERPD_HOME", str(finished_micro.home))
    return finished_micro


@pytest.fixture
def micro_copy(finished_micro, tmp_path, monkeypatch):
    """A copy of the finished run's home as this test's own."""
    home = tmp_path / "copy"
    shutil.copytree(finished_micro.home, home)
    monkeypatch.setenv("ERPD_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def hubs(tmp_path_factory):
    from moving_hubs import two_hubs

    with two_hubs(tmp_path_factory.mktemp("moving")) as found:
        yield found


@pytest.fixture
def two(hubs, monkeypatch):
    """Both of them with no repository of an earlier test, and the artifacts made."""
    return hubs.start_over(monkeypatch)


@pytest.fixture
def finished_record():
    """Writes files into a folder and returns the record of an artifact that has just them."""

    def make(folder, contents):
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        files = payload_files(folder)
        return LineageRecord(
            stage="prompts",
            stage_version=1,
            kind="prompts",
            run="t",
            round=1,
            step="prompts",
            repo_type="dataset",
            repo_id="local/t-r1-prompts",
            inputs=(),
            config={},
            identity={},
            seed=0,
            fingerprint=fingerprint("prompts", 1, inputs=[], identity={}, seed=0),
            digest=digest_files(files),
            code={},
            environment={},
            metrics={},
            files=files,
        )

    return make
