"""What the embedded Hub has stored: through SIGKILL at named moments, a full disk, several writers."""

import base64
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
from hub_process import REPO_ROOT, TOKEN, running, start, wait_ready
from huggingface_hub import CommitOperationAdd, HfApi

from erpd_hub.hub.server.fsck import check
from erpd_hub.hub.server.gc import collect

SERVER = "erpd_hub.hub.server"
MOMENTS = [
    f"{SERVER}.blobs:Incoming.write:after",
    f"{SERVER}.blobs:Incoming.keep:before",
    f"{SERVER}.possession:note_upload:after",
    f"{SERVER}.repos:move_ref:after",
    f"{SERVER}.routes_commit:Draft.finish:after",
]
"""On the way of a commit with a large file, in their order; the last is after the transaction, before the answer."""


def problems(root: Path, *, served: bool = False) -> list[str]:
    return [str(problem) for problem in check(root, served=served).problems]


def large(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def push(url: str, repo: str, path: str, content: bytes) -> str:
    """A large and a small file in one commit."""
    files = [CommitOperationAdd(f"{path}.bin", content), CommitOperationAdd(f"{path}.txt", path.encode())]
    return HfApi(url, token=TOKEN).create_commit(repo, files, commit_message=path).oid


def test_a_kill_at_any_moment_of_a_commit_leaves_a_whole_state(tmp_path: Path) -> None:
    root, ready = tmp_path / "root", tmp_path / "ready.json"
    with running(tmp_path) as url:
        HfApi(url, token=TOKEN).create_repo("local/killed")
    for number, moment in enumerate(MOMENTS):
        command = [sys.executable, str(Path(__file__).with_name("dying_server.py")), moment]
        process = subprocess.Popen([*command, "--root", root, "--ready-file", ready], cwd=REPO_ROOT, stderr=-1)
        url = wait_ready(process, ready)
        with suppress(Exception):
            _push_plainly(url, "local/killed", f"f{number}", large(number))
        assert process.wait(timeout=30) == -signal.SIGKILL, moment
        assert problems(root) == [], moment
    with running(tmp_path) as url:
        api = HfApi(url, token=TOKEN)
        assert len(api.list_repo_commits("local/killed")) == 2, "only the last moment is after the transaction"
        for number in range(len(MOMENTS)):
            push(url, "local/killed", f"f{number}", large(number))
        commits = api.list_repo_commits("local/killed")
        assert len(commits) == 1 + len(MOMENTS), "a retry made a commit twice, or none"
        assert len(api.list_repo_files("local/killed")) == 1 + 2 * len(MOMENTS)
    assert problems(root) == []
    assert not list((root / "incoming").iterdir())


def _push_plainly(url: str, repo: str, path: str, content: bytes) -> None:
    """As a client that does not try again."""
    item = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    body = {"operation": "upload", "transfers": ["basic"], "objects": [item], "hash_algo": "sha256"}
    batch = httpx.post(f"{url}/{repo}.git/info/lfs/objects/batch", json=body).json()
    httpx.put(batch["objects"][0]["actions"]["upload"]["href"], content=content).raise_for_status()
    rows = [
        {"key": "header", "value": {"summary": path, "description": ""}},
        {"key": "file", "value": {"path": f"{path}.txt", "content": base64.b64encode(path.encode()).decode()}},
        {"key": "lfsFile", "value": {"path": f"{path}.bin", "algo": "sha256", **item}},
    ]
    httpx.post(f"{url}/api/models/{repo}/commit/main", content="\n".join(map(json.dumps, rows))).raise_for_status()


def test_a_disk_that_fills_up_refuses_commits_and_keeps_the_others(tmp_path: Path) -> None:
    """Small files, which go into the database: its log cannot grow any more."""
    process = start(tmp_path / "root", tmp_path / "ready.json", max_file=1_000_000)
    url = wait_ready(process, tmp_path / "ready.json")
    assert httpx.post(f"{url}/api/repos/create", json={"name": "full", "type": "model"}).status_code == 200
    answers = [_commit_small(url, "local/full", number) for number in range(30)]
    assert set(answers) == {200, 507}
    done = [f"f{number}" for number, answer in enumerate(answers) if answer == 200]
    assert problems(tmp_path / "root", served=True) == []
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert problems(tmp_path / "root") == []
    with running(tmp_path) as url:
        rows = httpx.get(f"{url}/api/models/local/full/tree/main").json()
        assert {row["path"] for row in rows} == {".gitattributes", *done}
        assert _commit_small(url, "local/full", 30) == 200


def _commit_small(url: str, repo: str, number: int) -> int:
    content = base64.b64encode(random.Random(number).randbytes(50_000)).decode()
    rows = [{"key": "header", "value": {"summary": "s", "description": ""}}]
    rows += [{"key": "file", "value": {"path": f"f{number}", "content": content}}]
    body = "\n".join(map(json.dumps, rows))
    return httpx.post(f"{url}/api/models/{repo}/commit/main", content=body, timeout=60).status_code


def test_eight_writing_processes_lose_no_commit_and_readers_see_whole_trees(tmp_path: Path) -> None:
    with running(tmp_path) as url:
        HfApi(url, token=TOKEN).create_repo("local/busy")
        command = [sys.executable, str(Path(__file__).with_name("pushing.py")), url, "local/busy"]
        writers = [subprocess.Popen([*command, str(n), "4"], stdout=subprocess.PIPE, text=True) for n in range(8)]
        seen = set()
        while any(writer.poll() is None for writer in writers):
            seen.add(_read_whole(url, "local/busy"))
        oids = [line for writer in writers for line in writer.communicate()[0].split()]
        assert [writer.returncode for writer in writers] == [0] * 8
        commits = [commit.commit_id for commit in HfApi(url, token=TOKEN).list_repo_commits("local/busy")]
        assert len(seen) > 1, "the reader was too late"
        assert problems(tmp_path / "root", served=True) == []
    assert len(set(oids)) == 32
    assert sorted(commits[:-1]) == sorted(oids)


def _read_whole(url: str, repo: str) -> str:
    """Two files that every commit changes to the same, and as many others as there were commits."""
    info = httpx.get(f"{url}/api/models/{repo}").json()
    names = [row["rfilename"] for row in info["siblings"]]
    tree = httpx.get(f"{url}/api/models/{repo}/tree/{info['sha']}?recursive=1").json()
    assert {row["path"] for row in tree if row["type"] == "file"} == set(names)
    ids = {row["path"]: row["oid"] for row in tree}
    assert ids.get("left") == ids.get("right")
    return info["sha"]


def test_an_interrupted_upload_is_kept_for_its_next_try(tmp_path: Path) -> None:
    content = [large(7), large(8, 2000)]
    with running(tmp_path) as url:
        HfApi(url, token=TOKEN).create_repo("local/later")
        for part in content:
            _upload_only(url, "local/later", part)
    collect(tmp_path / "root", min_age_s=3600, dry_run=False)
    with running(tmp_path) as url:
        assert [_upload_only(url, "local/later", part) for part in content] == [False, False]
    time.sleep(0.01)
    assert collect(tmp_path / "root", min_age_s=0, dry_run=False).blobs == 2


def _upload_only(url: str, repo: str, content: bytes) -> bool:
    """Upload without a commit; whether the Hub wanted it."""
    item = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
    body = {"operation": "upload", "transfers": ["basic"], "objects": [item], "hash_algo": "sha256"}
    (offer,) = httpx.post(f"{url}/{repo}.git/info/lfs/objects/batch", json=body).json()["objects"]
    if wanted := "actions" in offer:
        httpx.put(offer["actions"]["upload"]["href"], content=content).raise_for_status()
    return wanted


def test_a_flipped_byte_of_the_log_of_a_killed_server_is_found(tmp_path: Path) -> None:
    root, ready = tmp_path / "root", tmp_path / "ready.json"
    process = subprocess.Popen([sys.executable, "-m", SERVER, "--root", root, "--ready-file", ready], cwd=REPO_ROOT)
    url = wait_ready(process, ready)
    HfApi(url, token=TOKEN).create_repo("local/logged")
    push(url, "local/logged", "f", large(5, 1000))
    process.kill()
    process.wait()
    log = root / "hub.sqlite-wal"
    good = log.read_bytes()
    assert problems(root) == []
    assert log.read_bytes() == good, "a check changes nothing"
    drawn = random.Random(1)
    for at in drawn.sample(range(len(good)), 25):
        flip(log, at, drawn.randrange(8))
        assert any("hub.sqlite-wal" in problem for problem in problems(root)), at
        log.write_bytes(good)
