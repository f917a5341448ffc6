"""How a process that reads hostile text is started: no tokens, no network, nothing to write to, gone with its parent.

Namespaces are what the machine allows: where `unshare` cannot make them (probed once) the process has the limits and
the audit hook of `foreign/guard.py` alone. All of it limits damage; a hole in the kernel is out of its reach.
"""

import functools
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

_PASSED = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "SYSTEMROOT")
_SETUP = """
work=$1; shift
if [ -n "$work" ]; then mount --bind "$work" "$work" || exit 70; fi
mount -o remount,bind,ro / || exit 70
while read -r _ place _; do
  case "$place" in /|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*) continue;; "${work:-/}"|"${work:-/}"/*) continue;; esac
  mount -o remount,bind,ro "$place" 2>/dev/null
done < /proc/self/mounts
if [ -n "$work" ]; then cd "$work" || exit 70; fi
exec "$@"
"""


def confined(command: list[str], *, work: Path | None = None) -> list[str]:
    """The command in namespaces of its own: no network, and a file system that only `work` of can be written to."""
    if not _namespaces_work():
        return command
    return [*_unshare(), "sh", "-c", _SETUP, "sh", str(work or ""), *command]


def bare_environment(**variables: str) -> dict[str, str]:
    """Variables for such a process: no token, no proxy, no address of anything."""
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**passed, **offline, **variables}


def end_group(process: "subprocess.Popen[bytes]") -> int | None:
    """End a process that leads its session, and whatever it started; the code it had ended with, None for at work."""
    try:
        code: int | None = process.wait(timeout=0.2)  # a closed pipe comes a moment before the exit code
    except subprocess.TimeoutExpired:
        code = None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return code


@functools.cache
def _namespaces_work() -> bool:
    try:
        probe = subprocess.run(
            [*_unshare(), "sh", "-c", _SETUP, "sh", "", "true"], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return probe.returncode == 0


def _unshare() -> list[str]:
    return ["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private"]
