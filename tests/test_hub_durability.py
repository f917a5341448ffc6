"""What the embedded Hub has stored: through SIGKILL at named moments, several writers, flipped bytes, an old schema."""

import base64
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from test_hub_server_process import REPO_ROOT, TOKEN, running, start, wait_ready

from erpd_hub.errors import HubError
from erpd_hub.hub.server import schema
from erpd_hub.hub.server.fsck import check
from erpd_hub.hub.server.gc import collect, set_aside

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


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose root has something of every kind."""
    folder = tmp_path_factory.mktemp("stored")
    with running(folder) as url:
        api = HfApi(url, token=TOKEN)
        for name in ("local/kept", "local/dropped", "local/former"):
            api.create_repo(name)
        push(url, "local/kept", "deep/down/first", large(1))
        push(url, "local/kept", "deep/down/second", large(2, 2000))
        push(url, "local/dropped", "gone", large(3))
        push(url, "local/dropped", "shared", large(1))
        api.create_tag("local/kept", tag="step-50", tag_message="half way")
        api.create_branch("local/kept", branch="side")
        api.upload_file(path_or_fileobj=b"r" * 90_000, path_in_repo="r.txt", repo_id="local/kept", revision="side")
        api.move_repo("local/former", "local/now")
        api.delete_repo("local/dropped")
    assert problems(folder / "root") == []
    return folder


@pytest.fixture
def root(stored: Path, tmp_path: Path) -> Path:
    """A copy as a killed server leaves it, without a seal."""
    root = Path(shutil.copytree(stored / "root", tmp_path / "root"))
    (root / "seal.json").unlink()
    return root


def test_any_flipped_byte_of_a_root_that_was_left_in_order_is_found(stored: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(stored / "root", tmp_path / "root"))
    drawn = random.Random(2)
    for name in ("hub.sqlite", "secret", "seal.json"):
        good = (root / name).read_bytes()
        for at in drawn.sample(range(len(good)), 15):
            flip(root / name, at, drawn.randrange(8))
            assert problems(root), f"{name}: byte {at}"
            (root / name).write_bytes(good)
    assert problems(root) == []


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_byte_of_a_blob_is_found_and_named(root: Path) -> None:
    blobs = sorted((root / "blobs").glob("*/*"))
    assert len(blobs) == 3
    for path in blobs:
        at = random.Random(path.name).randrange(path.stat().st_size)
        flip(path, at)
        (found,) = problems(root)
        assert found.startswith(f"blobs/{path.parent.name}/{path.name}: its bytes do not have the sha256")
        assert "push the file again" in found
        flip(path, at)
    blobs[0].write_bytes(blobs[0].read_bytes()[:-1])
    assert len(problems(root)) > 1, "of the file, and of the paths that have it"


def _dump(root: Path) -> list[str]:
    with closing(sqlite3.connect(root / "hub.sqlite")) as db:
        return [*db.iterdump(), str(db.execute("PRAGMA user_version").fetchone())]


def test_a_flipped_byte_of_the_database_is_found_wherever_it_matters(root: Path) -> None:
    """Anywhere in the file: found, or no value of any table is another one."""
    database = root / "hub.sqlite"
    good, dump = database.read_bytes(), _dump(root)
    drawn = random.Random(0)
    found = 0
    for at in drawn.sample(range(len(good)), 120):
        flip(database, at, drawn.randrange(8))
        if problems(root):
            found += 1
        else:
            assert _dump(root) == dump, f"byte {at}"
        database.write_bytes(good)
    assert found > 20


@pytest.mark.parametrize(
    "text",
    ["step-50", "half way", "refs/heads/side", "local", "former", "deep/down/second", "initial commit", "filter=lfs"],
)
def test_a_flipped_letter_of_any_kind_of_row_is_found(root: Path, text: str) -> None:
    database = root / "hub.sqlite"
    content = database.read_bytes()
    assert text.encode() in content
    at = content.rindex(text.encode())
    flip(database, at)
    assert problems(root), text


@pytest.mark.parametrize("table", ["repos", "refs", "commits", "moves", "links", "uploads", "totals", "trees", "blobs"])
def test_a_lost_row_is_found(root: Path, table: str) -> None:
    with closing(sqlite3.connect(root / "hub.sqlite")) as db:
        key = db.execute(f"PRAGMA table_info({table})").fetchone()[1]
    _alter(root, f"DELETE FROM {table} WHERE {key} = (SELECT {key} FROM {table} LIMIT 1)")
    assert problems(root)


def _alter(root: Path, statement: str) -> None:
    """Change rows behind the back of their totals."""
    with closing(sqlite3.connect(root / "hub.sqlite")) as db, db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement)
        for _, definition in triggers:
            db.execute(definition)


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


def test_the_command_names_what_is_wrong_and_sets_it_aside(root: Path) -> None:
    command = [sys.executable, "-m", "erpd_hub.cli", "hub", "fsck", "--root", str(root)]
    fine = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (fine.returncode, fine.stdout) == (0, "")
    damaged = root / "blobs" / (name := hashlib.sha256(large(1)).hexdigest())[:2] / name
    flip(damaged, 100)
    found = subprocess.run([*command, "--set-aside"], capture_output=True, text=True, timeout=60)
    assert (found.returncode, name in found.stdout, "Traceback" in found.stderr) == (1, True, False)
    assert (root / "damaged" / name).exists()
    with running(root.parent) as url:
        assert httpx.get(f"{url}/local/kept/resolve/main/deep/down/first.bin").status_code == 410
        push(url, "local/kept", "deep/down/first", large(1))
        assert httpx.get(f"{url}/local/kept/resolve/main/deep/down/first.bin").content == large(1)
    assert problems(root) == []


def test_garbage_is_what_no_commit_and_no_young_upload_has(root: Path) -> None:
    gone = root / "blobs" / (name := hashlib.sha256(large(3)).hexdigest())[:2] / name
    kept = {path for path in (root / "blobs").glob("*/*")} - {gone}
    assert collect(root, min_age_s=3600, dry_run=False).trees > 0
    assert gone.exists(), "young uploads stay"
    os.utime(gone, (0, 0))
    planned = collect(root, min_age_s=0, dry_run=True)
    assert gone.exists()
    assert collect(root, min_age_s=0, dry_run=False) == planned
    assert planned.bytes >= 300_000
    assert set((root / "blobs").glob("*/*")) == kept
    assert collect(root, min_age_s=0, dry_run=False) == (0, 0, 0)
    assert problems(root) == []


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


def test_garbage_is_not_collected_from_a_damaged_or_served_root(root: Path) -> None:
    command = [sys.executable, "-m", "erpd_hub.cli", "hub", "gc", "--root", str(root)]
    with running(root.parent):
        served = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (served.returncode, "a server has it open" in served.stderr) == (1, True)
    _alter(root, "UPDATE commits SET title = 'other'")
    before = sorted(root.glob("blobs/*/*"))
    with pytest.raises(HubError, match="run erpd-hub hub fsck"):
        collect(root, min_age_s=0, dry_run=False)
    assert sorted(root.glob("blobs/*/*")) == before


def _as_first_schema(root: Path) -> None:
    """The root as it was before links, uploads and totals."""
    first = ("repos", "moves", "commits", "refs", "trees", "blobs")
    with closing(sqlite3.connect(root / "hub.sqlite")) as db, db:
        rows = db.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        for kind, name in sorted(rows, reverse=True):
            if name not in (*first, "sqlite_sequence"):
                db.execute(f"DROP {kind} IF EXISTS {name}")
        db.execute("PRAGMA user_version = 1")


def test_a_root_of_the_first_schema_is_served(root: Path) -> None:
    _as_first_schema(root)
    assert problems(root) == [], "checked as it is"
    with running(root.parent) as url:
        assert httpx.get(f"{url}/local/kept/resolve/main/deep/down/first.bin").content == large(1)
        copy = [{"key": "header", "value": {"summary": "copy", "description": ""}}]
        oid = hashlib.sha256(large(1)).hexdigest()
        copy += [{"key": "lfsFile", "value": {"path": "copy.bin", "algo": "sha256", "oid": oid}}]
        body = "\n".join(map(json.dumps, copy))
        assert httpx.post(f"{url}/api/models/local/kept/commit/main", content=body).status_code == 200
    with closing(sqlite3.connect(root / "hub.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    assert problems(root) == []


def test_a_failed_upgrade_leaves_the_old_schema(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erpd_hub.hub.server.database import Database

    _as_first_schema(root)
    before = _dump(root)
    failing: list[Callable[[sqlite3.Connection], None]] = [*schema._STEPS]
    failing[-1] = lambda db: db.execute("CREATE TABLE half (x)") and db.execute("no sql")
    monkeypatch.setattr(schema, "_STEPS", tuple(failing))
    with pytest.raises(sqlite3.OperationalError):
        Database(root / "hub.sqlite")
    assert _dump(root) == before


def test_set_aside_takes_small_content_out_of_the_database(root: Path) -> None:
    sha = hashlib.sha256(large(2, 2000)).hexdigest()
    folder = set_aside(root, [sha])
    assert (folder / sha).read_bytes() == large(2, 2000)
    assert any("expected 2000 bytes" in problem for problem in problems(root))
