"""Whether the Hub answers, and as whom it is reached; live, whether it takes a file and gives the same one back."""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from erpd_hub.artifacts import hash_file
from erpd_hub.doctor.check import Check
from erpd_hub.errors import ErpdError
from erpd_hub.home import home
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.rights import whoami


def check_hub(endpoint: str, live: bool, size: float) -> Iterator[Check]:
    """Reachable, and as whom: the name is shown, the token is not; `live` pushes and pulls `size` GB too."""
    try:
        hub = connect(endpoint)
        hub.patient = False
        account = str(whoami(hub)["name"])
    except ErpdError as error:
        yield Check("Hub", "broken", str(error), "check the endpoint and the network, or use --endpoint local")
        return
    embedded = "the embedded Hub is up; it needs no token"
    yield Check("Hub", "ok", embedded if hub.embedded is not None else f"{hub.identity} is reached as {account}")
    if live:
        yield from _live(hub, account, size)


def _live(hub: Hub, account: str, size: float) -> Iterator[Check]:
    """Create a private repository, push, pull, compare, delete: what a run does, with its speed.

    The repository and all files are gone afterwards, whatever fails.
    """
    from huggingface_hub import CommitOperationAdd

    repo = f"{account}/erpd-doctor-{os.urandom(4).hex()}"
    step = "create a private repository"
    with tempfile.TemporaryDirectory(dir=home(), prefix="doctor-") as folder:
        path = Path(folder) / "probe.bin"
        digest = _write_random(path, round(size * 1e9))
        try:
            hub.ask(lambda: hub.api.create_repo(repo, repo_type="model", private=True))
            step = f"push {size:g} GB"
            started = time.monotonic()
            addition = CommitOperationAdd("probe.bin", path)
            hub.ask(lambda: hub.api.create_commit(repo, operations=[addition], commit_message="doctor"))
            pushed = time.monotonic() - started
            step, started = f"pull {size:g} GB", time.monotonic()
            back = hub.ask(lambda: hub.api.hf_hub_download(repo, "probe.bin", cache_dir=Path(folder) / "cache"))
            pulled = time.monotonic() - started
            same = hash_file(Path(back)).sha256 == digest
        except (ErpdError, OSError) as error:
            yield Check(
                "live", "broken", f"cannot {step}: {error}", "check the token's right to write, quota and network"
            )
            return
        finally:
            left = _deleted(hub, repo)
    yield Check("live", "ok" if same else "broken",
                f"pushed {size:g} GB at {size * 1e3 / pushed:,.0f} MB/s, pulled at {size * 1e3 / pulled:,.0f} MB/s, "
                f"{'the same bytes' if same else 'OTHER BYTES came back'}",
                "" if same else "a proxy or the storage alters files; do not run against this endpoint")  # fmt: skip
    yield left


def _deleted(hub: Hub, repo: str) -> Check:
    try:
        hub.ask(lambda: hub.api.delete_repo(repo, repo_type="model", missing_ok=True))
    except ErpdError as error:
        return Check("live clean-up", "broken", f"{repo} could not be deleted: {error}", "delete it by hand")
    return Check("live clean-up", "ok", "the repository is deleted again")


def _write_random(path: Path, size: int) -> str:
    """A file of random bytes, which no storage can deduplicate; its sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        while size > 0:
            block = os.urandom(min(size, 1 << 24))
            digest.update(block)
            stream.write(block)
            size -= len(block)
    return digest.hexdigest()
