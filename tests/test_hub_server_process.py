"""The embedded Hub as a process: announcing itself, leaving when unused, refusing a served root, surviving SIGKILL."""

import fcntl
import gc
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import httpx
import pytest
from hub_process import TOKEN, content_id, running, start, until, wait_ready
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from erpd_hub.hub.server.__main__ import MAX_CONNECTIONS
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.fsck import check

HOLD_SHARED = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
time.sleep(60)
"""


def test_sigterm_leaves_cleanly_and_the_data_stays(tmp_path: Path) -> None:
    with running(tmp_path) as url:
        assert url.startswith("http://127.0.0.1:")
        HfApi(url, token=TOKEN).create_repo("local/kept")
        for path in (tmp_path / "root").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
    assert not (tmp_path / "ready.json").exists()
    with running(tmp_path) as url:
        assert HfApi(url, token=TOKEN).repo_exists("local/kept")


def test_more_connections_than_it_takes_are_told_to_come_again(tmp_path: Path) -> None:
    with running(tmp_path) as url, ExitStack() as held:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        for _ in range(MAX_CONNECTIONS):
            held.enter_context(socket.create_connection(address))
        assert httpx.get(f"{url}/api/models").status_code == 503
        held.close()
        until(lambda: httpx.get(f"{url}/api/models").status_code == 200)


def test_a_served_root_is_refused(tmp_path: Path) -> None:
    with running(tmp_path):
        second = start(tmp_path / "root", tmp_path / "second.json")
        assert second.wait(timeout=20) == 2
        errors = second.stderr.read().decode().strip()
        assert "another server is serving it" in errors
        assert len(errors.splitlines()) == 1
        assert not (tmp_path / "second.json").exists()


def test_the_server_leaves_when_its_last_client_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "clients.lock"
    client = subprocess.Popen([sys.executable, "-c", HOLD_SHARED, str(lock)], stdout=subprocess.PIPE)
    assert client.stdout is not None
    client.stdout.readline()
    process = start(tmp_path / "root", tmp_path / "ready.json", "--until-unused", str(lock))
    url = wait_ready(process, tmp_path / "ready.json")
    time.sleep(5.7)  # the server's grace has passed; the client alone keeps it
    assert httpx.get(f"{url}/api/models").status_code == 200
    client.kill()
    assert process.wait(timeout=10) == 0
    assert not (tmp_path / "ready.json").exists()
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_ready_file_of_another_server_is_left_alone(tmp_path: Path) -> None:
    with running(tmp_path):
        (tmp_path / "ready.json").write_text(json.dumps({"pid": os.getppid(), "port": 1, "url": "http://elsewhere"}))
    assert (tmp_path / "ready.json").exists()


def test_a_full_disk_refuses_the_file_and_serves_on(tmp_path: Path) -> None:
    process = start(tmp_path / "root", tmp_path / "ready.json", max_file=1_500_000)
    api = HfApi(wait_ready(process, tmp_path / "ready.json"), token=TOKEN)
    repo = api.create_repo("local/full").repo_id
    for path in ("large.bin", "large.txt"):
        files = [CommitOperationAdd("small.txt", b"x"), CommitOperationAdd(path, b"x" * 2_000_000)]
        with pytest.raises((HfHubHTTPError, RuntimeError)) as error:
            api.create_commit(repo, files, commit_message="too much")
        assert "507" in str(error.getrepr(style="short"))
    assert api.list_repo_files(repo) == [".gitattributes"]
    assert not list((tmp_path / "root" / "incoming").iterdir())
    api.upload_file(path_or_fileobj=b"x" * 1_000_000, path_in_repo="fits.bin", repo_id=repo)
    process.terminate()
    assert process.wait(timeout=20) == 0


FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
import httpx
from hub_process import start, wait_ready

def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)): pass
        except OSError: pass

disk, other = Path(sys.argv[1]), Path(sys.argv[2])
for folder, size in ((disk, "4m"), (other, "16k")):
    folder.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]): sys.exit(9)
root, ready = disk / "root", disk / "server.json"
process = start(root, ready)
url = wait_ready(process, ready)
for name in ("kept", "gone"):
    httpx.post(f"{url}/api/repos/create", json={"name": name, "type": "model"}).raise_for_status()
process.kill()
process.wait()
fill(disk)
fill(other)
embedded = start(root, other / "ready.json", "--until-unused", str(root / "clients.lock"))
refusal = embedded.communicate()[1].decode()
process = start(root, other / "ready.json")
while b" at http" not in (line := process.stderr.readline()): assert line
url = line.split()[-1].decode()
told = [httpx.get(f"{url}/api/models/local/kept").status_code]
told.append(httpx.request("DELETE", f"{url}/api/repos/delete", json={"name": "gone", "type": "model"}).status_code)
process.terminate()
process.wait()
print(json.dumps([told, embedded.returncode, refusal, os.listdir(other)]))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="mounts in a namespace of its own")
def test_on_a_full_disk_the_next_server_reads_and_deletes(tmp_path: Path) -> None:
    """Also where it cannot say where it is; one that a run starts for itself then names the remedy."""
    command = ["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(tmp_path / "disk"), str(tmp_path / "other")]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode == 9 or "unshare" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    told, code, refusal, left = json.loads(done.stdout)
    assert (told, code, left) == ([200, 200], 2, ["filler"])
    assert "its disk is full" in refusal and "free some space there" in refusal


def confirmed(folder: Path) -> set[str]:
    """The commits that the hammers in a folder have printed, whole lines only."""
    texts = [path.read_text() for path in folder.glob("hammer-*.out")]
    return {line for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")}


def test_sigkill_during_commits_leaves_only_whole_ones(tmp_path: Path) -> None:
    process = start(tmp_path / "root", tmp_path / "ready.json")
    url = wait_ready(process, tmp_path / "ready.json")
    HfApi(url, token=TOKEN).create_repo("local/hammered")
    hammer = [sys.executable, str(Path(__file__).with_name("hammer.py")), url, TOKEN]
    workers = []
    for worker in range(3):
        with (tmp_path / f"hammer-{worker}.out").open("w") as output:
            workers.append(subprocess.Popen([*hammer, str(worker)], stdout=output, stderr=subprocess.DEVNULL))
    deadline = time.monotonic() + 60
    while len(confirmed(tmp_path)) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for committing in workers:
        committing.kill()
        committing.wait()
    assert check(tmp_path / "root", served=False).problems == []
    done = {line.strip() for line in confirmed(tmp_path)}
    with running(tmp_path) as url:
        api = HfApi(url, token=TOKEN)
        commits = api.list_repo_commits("local/hammered")
        assert len(done) >= 12
        assert done <= {commit.commit_id for commit in commits}
        files = list(api.list_repo_tree("local/hammered", recursive=True))
        paths = [file.path for file in files if hasattr(file, "blob_id") and file.path.startswith("w")]
        assert len(paths) == 3 * (len(commits) - 1), "a commit is visible in part"
        for path in paths:
            head = httpx.get(f"{url}/local/hammered/resolve/main/{path}")
            assert content_id(head.content, lfs=path.endswith(".bin")) == head.headers["etag"].strip('"')
    assert not list((tmp_path / "root" / "incoming").iterdir())
    for blob in (tmp_path / "root" / "blobs").glob("*/*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_bursts_of_requests_leave_no_open_files(tmp_path: Path) -> None:
    """Worker threads come and go, and each has a connection of its own to the database."""
    database = Database(tmp_path / "hub.sqlite")
    together = Barrier(20)  # or fewer threads would do

    def ask(_: int) -> None:
        together.wait()
        database.read().execute("SELECT 1")

    opened = []
    for _ in range(4):
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(ask, range(20)))
        gc.collect()
        names = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        opened.append(sum("hub.sqlite" in name for name in names))
    assert opened[-1] == opened[0]
    database.close()
