"""What `fsck`, `gc` and a server's start say of a root: flipped bytes, lost rows, garbage, backups, an old schema."""

import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from hub_process import REPO_ROOT, TOKEN, running
from huggingface_hub import HfApi
from test_hub_durability import flip, large, problems, push

from erpd_hub.errors import HubError
from erpd_hub.hub.server import possession, repos, schema
from erpd_hub.hub.server.database import Database
from erpd_hub.hub.server.gc import collect, set_aside
from erpd_hub.hub.server.signing import Signer


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
    (root / "blobs" / "zz").mkdir()
    shutil.copy(blobs[1], root / "blobs" / "zz")
    assert f"blobs/zz/{blobs[1].name}: is no blob; remove it" in problems(root)


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
        file = f"{url}/local/kept/resolve/main/deep/down/first.bin"
        assert httpx.get(file).status_code == 410
        push(url, "local/kept", "deep/down/first", large(1))
        assert httpx.get(file).content == large(1)
    assert problems(root) == []


def test_garbage_is_what_no_commit_and_no_young_upload_has(root: Path) -> None:
    gone = root / "blobs" / (name := hashlib.sha256(large(3)).hexdigest())[:2] / name
    kept = {path for path in (root / "blobs").glob("*/*")} - {gone}
    (part := root / "parts" / "of-an-upload").parent.mkdir(exist_ok=True)
    part.touch()
    assert collect(root, min_age_s=3600, dry_run=False).trees > 0
    assert gone.exists() and part.exists(), "young uploads stay"
    os.utime(gone, (0, 0))
    planned = collect(root, min_age_s=0, dry_run=True)
    assert gone.exists()
    assert collect(root, min_age_s=0, dry_run=False) == planned
    assert planned.bytes >= 300_000
    assert set((root / "blobs").glob("*/*")) == kept
    assert not part.exists()
    assert collect(root, min_age_s=0, dry_run=False) == (0, 0, 0)
    assert problems(root) == []


def test_garbage_is_what_was_deleted_for_good_once_no_repository_has_it(root: Path) -> None:
    """Commits still name it: here of two repositories, the one deleted and the other without its link."""
    blob = root / "blobs" / (name := hashlib.sha256(large(1)).hexdigest())[:2] / name
    others = collect(root, min_age_s=0, dry_run=True).blobs
    database = Database(root / "hub.sqlite")
    with database.write() as db:
        kept = repos.find_repo(db, "model", "local", "kept")
        assert kept is not None
        possession.unlink(db, kept, name)
    database.close()
    assert collect(root, min_age_s=0, dry_run=False).blobs == others + 1
    assert not blob.exists()
    assert problems(root) == []


def test_garbage_is_not_collected_from_a_damaged_or_served_root(root: Path) -> None:
    command = [sys.executable, "-m", "erpd_hub.cli", "hub", "gc", "--root", str(root)]
    with running(root.parent):
        served = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (served.returncode, "a server has it open" in served.stderr) == (1, True)
    before = sorted(root.glob("blobs/*/*"))
    for change in ("DELETE FROM links", "UPDATE commits SET title = 'other'"):
        _alter(root, change)
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
        value = {"path": "copy.bin", "algo": "sha256", "oid": hashlib.sha256(large(1)).hexdigest()}
        copy = [{"key": "header", "value": {"summary": "copy"}}, {"key": "lfsFile", "value": value}]
        body = "\n".join(map(json.dumps, copy))
        assert httpx.post(f"{url}/api/models/local/kept/commit/main", content=body).status_code == 200
    with closing(sqlite3.connect(root / "hub.sqlite")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
    assert problems(root) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM refs WHERE name = 'refs/heads/main'", "has no branch main"),
        ("DELETE FROM commits WHERE oid IN (SELECT parent FROM commits)", "its parent .* is missing"),
        ("DELETE FROM commits WHERE oid IN (SELECT target FROM refs)", "points to .*, which is missing"),
    ],
)
def test_a_row_that_a_root_without_totals_has_lost_is_found(root: Path, statement: str, what: str) -> None:
    _as_first_schema(root)
    _alter(root, statement)
    assert any(re.search(what, problem) for problem in problems(root))


def test_a_failed_upgrade_leaves_the_old_schema(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_first_schema(root)
    before = _dump(root)
    failing: list[Callable[[sqlite3.Connection], None]] = [*schema._STEPS]
    failing[-1] = lambda db: db.execute("CREATE TABLE half (x)") and db.execute("no sql")
    monkeypatch.setattr(schema, "_STEPS", tuple(failing))
    with pytest.raises(sqlite3.OperationalError):
        Database(root / "hub.sqlite")
    assert _dump(root) == before


def test_what_the_last_server_did_not_leave_so_is_told_at_the_start_and_stays_on_record(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(shutil.copytree(stored / "root", tmp_path / "root"))
    flip(root / "secret", 3)
    Database(root / "hub.sqlite").close()
    assert "secret: is not as the last server left it" in caplog.text
    (found,) = problems(root)
    assert "secret" in found and "remove the file altered" in found
    (root / "altered").unlink()
    assert problems(root) == []


def test_a_missing_secret_is_named(stored: Path, tmp_path: Path) -> None:
    """Of a root that was left in order, and of one whose server was killed."""
    root = Path(shutil.copytree(stored / "root", tmp_path / "root"))
    (root / "secret").unlink()
    for seal in (root / "seal.json", root / "altered"):
        (found,) = problems(root)
        assert found.startswith("secret: is missing; restore it")
        seal.unlink(missing_ok=True)
    Signer(root)
    assert problems(root) == []
    (root / "secret").write_bytes(b"short")
    assert problems(root)[0].startswith("secret: expected 32 bytes")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="mounts in a namespace of its own")
def test_a_backup_on_a_read_only_mount_is_checked(stored: Path, tmp_path: Path) -> None:
    """Also one of a killed server, whose log is not in its database yet."""
    root = Path(shutil.copytree(stored / "root", tmp_path / "root"))
    database = Database(root / "hub.sqlite")
    assert not (root / "seal.json").exists(), "or a killed server's root would look altered"
    with database.write() as db:
        db.execute("UPDATE repos SET modified_ms = modified_ms + 1")
    shutil.copytree(root, tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm"))
    database.close()
    code = """import sys; from pathlib import Path; from erpd_hub.hub.server import fsck, lifecycle
for root in map(Path, sys.argv[1:]): print(fsck.check(root, served=lifecycle.is_served(root)))"""
    mounted = 'mount --bind -o ro "$1" "$1" 2>&1 && ! touch "$1/x" 2>/dev/null || exit 9; shift; exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mounted, "sh", str(tmp_path)]
    command += [sys.executable, "-c", code, str(root), str(tmp_path / "killed")]
    done = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode in (1, 9) and "Report" not in done.stdout + done.stderr and "Traceback" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stdout}{done.stderr}")
    assert done.stdout.count("problems=[], checked={'blobs'") == 2, done.stdout + done.stderr


def test_set_aside_takes_small_content_out_of_the_database(root: Path) -> None:
    sha = hashlib.sha256(large(2, 2000)).hexdigest()
    old = os.umask(0o022)  # of the shell, not of the server
    folder = set_aside(root, [sha])
    os.umask(old)
    assert [path.stat().st_mode & 0o77 for path in (folder, folder / sha)] == [0, 0]
    assert (folder / sha).read_bytes() == large(2, 2000)
    assert any("expected 2000 bytes" in problem for problem in problems(root))
