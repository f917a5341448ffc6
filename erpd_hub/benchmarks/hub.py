"""The embedded Hub's speed through the unmodified client: a large file's push and pull beside `cp` on the same file
system, commits of one small file each, and asking for a file that is cached already.

Each repeat copies, hashes, pushes and pulls in turn, so that a busy machine is as busy for all, and ratios are taken
within a repeat. A push makes the bytes durable, so its partner is `cp` and fsync; a pull does not, and plain `cp` is
given too. The client reads the whole file for its sha256 before it sends any of it, and the Hub hashes what arrives:
where hashing is slower than copying, that is what bounds a push, and the time of one pass is given beside it. So are
seconds of CPU, of client and Hub together, which say what the work is where other programs take the cores.
"""

import hashlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.home import home

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPO, NAME = "local/bench", "model.safetensors"
_BLOCK = 1 << 24


@dataclass(frozen=True)
class HubBench:
    megabytes: int
    """Of 10^6 bytes."""
    repeats: int
    commits: int
    resolves: int


def run(bench: HubBench) -> dict[str, Any]:
    """Measure all of it on a Hub of its own, on the file system of ERPD_HOME."""
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-hub-", dir=home()) as name, _hub(Path(name) / "hub") as api:
        folder = Path(name)
        server = _server(folder / "hub")
        repeats = [_large_file(api, folder, bench.megabytes, server) for _ in range(bench.repeats)]
        return {
            "megabytes": bench.megabytes,
            "repeats": bench.repeats,
            "load": [os.getloadavg()[0], os.cpu_count()],
            **_summary(repeats),
            "commits_per_second": _commit_rate(api, bench.commits),
            "cached_resolve_ms": _resolve_latency(api, folder / "cache", bench.resolves),
        }


@contextmanager
def _hub(root: Path) -> Iterator["HfApi"]:
    from erpd_hub.hub.local import EmbeddedHub, clear_proxy_for_loopback

    clear_proxy_for_loopback()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub import HfApi, constants

    constants.HF_HUB_DISABLE_XET = True  # plain LFS, which every client can
    with EmbeddedHub(root) as embedded:
        api = HfApi(embedded.ensure(), token=False)
        api.create_repo(REPO)
        yield api
        server = _server(root)
        os.kill(server, signal.SIGTERM)  # it would stay for a while, and write into a folder that goes away
        os.waitpid(server, 0)


def _server(root: Path) -> int:
    """Process id of the Hub."""
    return int(json.loads((root / "server.json").read_text())["pid"])


class Cost(NamedTuple):
    """Of one action, in seconds."""

    wall: float
    cpu: float


def _large_file(api: "HfApi", folder: Path, megabytes: int, server: int) -> dict[str, Cost]:
    """What the actions of one repeat cost, with content of its own."""
    source, copy, cache = folder / NAME, folder / "copy", folder / "pulled"
    _write_random(source, megabytes * 10**6)

    def durable_copy() -> None:
        plain_copy()
        _sync(copy)

    def plain_copy() -> None:
        subprocess.run(["cp", source, copy], check=True)

    def digest() -> None:
        with source.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")

    def push() -> None:
        api.upload_file(path_or_fileobj=source, path_in_repo=NAME, repo_id=REPO)

    def pull() -> None:
        api.hf_hub_download(REPO, NAME, cache_dir=cache)

    actions = {"cp_fsync": durable_copy, "sha256": digest, "push": push, "cp": plain_copy, "pull": pull}
    costs = {}
    for name, action in actions.items():
        copy.unlink(missing_ok=True)
        os.sync()  # what was written before is not this one's to wait for
        before = _cpu_seconds(server)
        costs[name] = Cost(_timed(action), _cpu_seconds(server) - before)
    shutil.rmtree(cache)
    copy.unlink(missing_ok=True)
    return costs


def _summary(repeats: list[dict[str, Cost]]) -> dict[str, Any]:
    """Medians of the seconds, and of the ratios within each repeat (1 is as fast)."""
    wall = [{name: cost.wall for name, cost in one.items()} for one in repeats]
    ratios = {
        "push_to_cp_fsync": [one["cp_fsync"] / one["push"] for one in wall],
        "push_to_sha256_and_cp_fsync": [(one["sha256"] + one["cp_fsync"]) / one["push"] for one in wall],
        "pull_to_cp_fsync": [one["cp_fsync"] / one["pull"] for one in wall],
        "pull_to_cp": [one["cp"] / one["pull"] for one in wall],
    }
    return {
        "seconds": {name: statistics.median(one[name].wall for one in repeats) for name in repeats[0]},
        "cpu_seconds": {name: statistics.median(one[name].cpu for one in repeats) for name in repeats[0]},
        "ratios": {name: statistics.median(values) for name, values in ratios.items()},
        "ratio_ranges": {name: [min(values), max(values)] for name, values in ratios.items()},
    }


def _cpu_seconds(server: int) -> float:
    """Of this process, the programs it ran, and the Hub."""
    ran = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return time.process_time() + ran.ru_utime + ran.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def _commit_rate(api: "HfApi", count: int) -> float:
    from huggingface_hub import CommitOperationAdd

    def commit() -> None:
        for index in range(count):
            file = CommitOperationAdd(f"small/{index}.json", b'{"index": %d}\n' % index)
            api.create_commit(REPO, [file], commit_message=f"file {index}")

    return count / _timed(commit)


def _resolve_latency(api: "HfApi", cache: Path, count: int) -> dict[str, float]:
    """Milliseconds of `hf_hub_download` for a file that is there already: one request, and no content."""

    def ask() -> None:
        api.hf_hub_download(REPO, "small/0.json", cache_dir=cache)

    ask()
    times = sorted(_timed(ask) * 1000 for _ in range(count))
    return {"median": statistics.median(times), "p90": times[int(0.9 * (count - 1))]}


def _timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _write_random(path: Path, size: int) -> None:
    """Bytes that nothing compresses, and that are of no other repeat; an existing file only gets a new start."""
    with path.open("r+b" if path.exists() else "wb") as stream:
        left = _BLOCK if path.stat().st_size == size else size
        while left > 0:
            stream.write(os.urandom(min(_BLOCK, left)))
            left -= _BLOCK
        stream.truncate(size)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def render(report: dict[str, Any]) -> str:
    seconds, ratios, ranges = report["seconds"], report["ratios"], report["ratio_ranges"]

    def ratio(name: str, partner: str) -> str:
        low, high = ranges[name]
        return f"{ratios[name]:.0%} of {partner} ({low:.0%} to {high:.0%})"

    load, cores = report["load"]
    latency = report["cached_resolve_ms"]

    def line(label: str, name: str, said: str = "") -> str:
        return f"  {label:<14}{seconds[name]:8.2f} s {report['cpu_seconds'][name]:8.2f} s CPU   {said}".rstrip()

    lines = [
        f"{report['megabytes']} MB, medians of {report['repeats']}; load {load:.1f} on {cores} cores",
        line("cp", "cp"),
        line("cp, fsync", "cp_fsync"),
        line("sha256, once", "sha256"),
        line("push", "push", ratio("push_to_cp_fsync", "cp with fsync")),
        f"{'':43}{ratio('push_to_sha256_and_cp_fsync', 'sha256, then cp with fsync')}",
        line("pull", "pull", ratio("pull_to_cp_fsync", "cp with fsync")),
        f"{'':43}{ratio('pull_to_cp', 'cp')}",
        f"  small commits {report['commits_per_second']:8.1f} /s",
        f"  cached resolve{latency['median']:8.1f} ms  (90 % below {latency['p90']:.1f} ms)",
    ]
    return "\n".join(lines)
