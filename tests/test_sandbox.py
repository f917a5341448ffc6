"""The sandbox: what programs may do, what hostile ones get, and what is left of them, under every set of layers."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import hostile_programs
import pytest
from hostile_programs import ANSWER, LIMITS, PROGRAMS, SLEEP, scene

import erpd_hub.errors
from erpd_hub.errors import StageError
from erpd_hub.evaluation.code import sandbox as module
from erpd_hub.evaluation.code.protection import Protection, protection, try_layers
from erpd_hub.evaluation.code.sandbox import Limits, Sandbox
from erpd_hub.evaluation.code.syscalls import filter_program

NAMESPACES = frozenset({"user", "mount", "net", "ipc", "uts", "pid"})
LEFT_OUT = {"all": frozenset(), "no namespaces": NAMESPACES, "no seccomp": frozenset({"seccomp"})}
ENDED = {  # where anything but one outcome would be news
    "memory at once": "memory",
    "memory bit by bit": "memory",
    "output without end": "output limit",
    "a loop": "timeout",
    "a loop in C": "timeout",
    "a loop in a thread": "timeout",
    "no signal helps": "timeout",
    "a loop at its end": "timeout",
    "a loop on deletion": "timeout",
    "nested source": "compile error",
    "a crash": "runtime error",
    "read a file": "runtime error",
    "connect": "runtime error",
    "connect to a local socket": "runtime error",
    "write a file": "runtime error",
}


@pytest.fixture(scope="module")
def warm():
    with Sandbox() as sandbox:
        yield sandbox


def processes(owner: int | None = None) -> set[int]:
    """Supervisors of a process, ours unless said otherwise, and their programs, which have the same command line."""
    mark = b'"owner": %d,' % (owner or os.getpid())
    return {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and mark in _command(path)}


def all_gone_but(kept: set[int], owner: int | None = None) -> bool:
    """Whether nothing else is left, once the kernel has finished with what was killed."""
    for _ in range(200):
        if processes(owner) <= kept:
            return True
        time.sleep(0.05)
    return False


def _command(path: Path) -> bytes:
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_program_reads_and_prints(warm: Sandbox) -> None:
    run = warm.run("print(int(input()) + int(input()))", stdin="40\n2\n")
    assert (run.status, run.stdout, run.result, run.detail) == ("ok", "42\n", "", "")
    assert 0 < run.cpu_seconds < 1
    assert run.memory_bytes > 1 << 20


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())))", "6\n"),
        ("import sys\nfor line in sys.stdin: print(line.strip())", "1\n2\n3\n"),
        ("import os\nprint(os.read(0, os.fstat(0).st_size).split())", "[b'1', b'2', b'3']\n"),
        ("print(open(0).read().split())", "['1', '2', '3']\n"),
        ("print(sorted(Counter('aab').items()), gcd(4, 6), inf, heappop([1]))", "[('a', 2), ('b', 1)] 2 inf 1\n"),
        ("from __future__ import annotations\nif __name__ == '__main__': print(pow(2, 5, 7))", "4\n"),
        ("import threading\nthreading.Thread(target=lambda: print('late')).start()", "late\n"),
        ("import atexit, sys\natexit.register(lambda: print('end'))\nsys.exit(3)", "end\n"),
        ("import sys\nsys.stdout.write('no newline')", "no newline"),
        ("def f(n): return 0 if n == 0 else 1 + f(n - 1)\nprint(f(40000))", "40000\n"),
        ("import decimal, fractions, zoneinfo, asyncio, multiprocessing\nprint('imported')", "imported\n"),
        ("import random\nprint(random.random(), hash('a') == hash('a'))", "0.8444218515250481 True\n"),
        ("print('\\u00e9', '\\ud800')", "\u00e9 ?\n"),
    ],
)
def test_programs_people_write(warm: Sandbox, program: str, printed: str) -> None:
    run = warm.run(program, stdin="1\n2\n3\n")
    assert (run.status, run.stdout) == ("ok", printed), run.detail


@pytest.mark.parametrize("without", LEFT_OUT.values(), ids=LEFT_OUT)
def test_numpy_is_there(without: frozenset[str]) -> None:
    pytest.importorskip("numpy")
    standing = protection(without)
    if standing.level == "none":
        pytest.skip(f"this machine cannot do without {sorted(without)}: {standing.text}")
    with Sandbox(standing.layers) as sandbox:
        run = sandbox.run("import numpy as np\nprint((np.eye(2) @ np.eye(2)).sum(), np.arange(3).sum())")
        assert (run.status, run.stdout) == ("ok", "2.0 3\n"), run.detail


def test_a_function_is_called_with_json(warm: Sandbox) -> None:
    program = "class Solution:\n    def f(self, a: List[int], b):\n        print('noise')\n        return tuple(a), b"
    run = warm.run(program, stdin='[1, 2]\n{"k": "v"}', function="f")
    assert (run.status, json.loads(run.result)) == ("ok", [[1, 2], {"k": "v"}])
    assert json.loads(warm.run("def f(x): return x * 2", stdin="21", function="f").result) == 42
    assert warm.run("def g(x): return 1", stdin="1", function="f").status == "runtime error"


def test_what_is_equal_to_a_number_is_returned_as_one(warm: Sandbox) -> None:
    program = "from fractions import Fraction\ndef f(x): return [Fraction(x), Fraction(x, 4), {'a': Fraction(0)}]"
    assert json.loads(warm.run(program, stdin="3", function="f").result) == [3, 0.75, {"a": 0}]
    for value in ("{1, 2}", "Fraction(1, 3)", "object()", "1j"):
        run = warm.run(f"from fractions import Fraction\ndef f(x): return {value}", stdin="3", function="f")
        assert (run.status, run.result) == ("runtime error", ""), value


def test_numbers_of_numpy_are_returned(warm: Sandbox) -> None:
    pytest.importorskip("numpy")
    program = "import numpy as np\ndef f(x): return [np.int64(x), np.float32(0.5), np.arange(3).sum() > 1]"
    assert json.loads(warm.run(program, stdin="3", function="f").result) == [3, 0.5, True]


@pytest.mark.parametrize("function", [None, "f"])
def test_a_program_is_a_module(warm: Sandbox, function: str | None) -> None:
    program = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
    )
    program += "def f(x): return P(x).x\nif __name__ == '__main__': print(f(int(input())))"
    run = warm.run(program, stdin="7", function=function)
    assert (run.status, run.stdout, run.result) == ("ok", *(("7\n", "") if function is None else ("", "7"))), run.detail


def test_a_run_leaves_nothing_for_the_next(warm: Sandbox) -> None:
    warm.run("import builtins, sys, json\nopen('kept', 'w').write('x')\nbuiltins.len = json.dumps = lambda *a: 7")
    run = warm.run("import os, json\nprint(len('ab'), json.dumps([1]), os.path.exists('kept'))")
    assert run.stdout == "2 [1] False\n"


def test_time_is_cpu_time_and_wall_time(warm: Sandbox) -> None:
    busy = warm.run("while True: pass", limits=Limits(seconds=0.2))
    assert (busy.status, busy.cpu_seconds < 2) == ("timeout", True)
    assert warm.run(SLEEP, limits=Limits(wall_seconds=0.2)).status == "timeout"


def test_what_was_raised_is_told_without_our_folders(warm: Sandbox) -> None:
    run = warm.run("x = 1\nraise ValueError('told')")
    assert (run.status, run.detail) == ("runtime error", "ValueError: told (line 2)")
    assert warm.run("x = (").detail.startswith('File "program.py", line 1')
    assert warm.run("x" * (2 << 20)).status == "compile error"


@pytest.mark.parametrize("without", LEFT_OUT.values(), ids=LEFT_OUT)
def test_hostile_programs_get_nothing(without: frozenset[str]) -> None:
    standing = protection(without)
    if standing.level == "none":
        pytest.skip(f"this machine cannot do without {sorted(without)}: {standing.text}")
    before = processes()
    with scene() as place, Sandbox(standing.layers) as sandbox:
        runs = hostile_programs.run_all(sandbox, place)
        assert [name for name, run in runs.items() if ANSWER in run.stdout + run.detail + run.result] == []
        assert [name for name, run in runs.items() if run.stdout.strip() == ANSWER] == []
        assert {name: runs[name].status for name in ENDED} == ENDED
        assert place.traces() == []
        assert sandbox.run("print(input())", stdin="still here").stdout == "still here\n"
    assert all_gone_but(before)


def test_hostile_functions_return_nothing_but_their_own(warm: Sandbox) -> None:
    early = "import os\nfor f in range(64):\n    try: os.write(f, b'[1]')\n    except OSError: pass\n"
    solution = "class Solution:\n    def f(self, x):\n        {}"
    assert warm.run(solution.format("import os; os._exit(0)"), stdin="1", function="f").result == ""
    assert warm.run(early + solution.format("return 2"), stdin="1", function="f").result == "[1]2"
    assert warm.run(solution.format("print('[1]')"), stdin="1", function="f").result == "null"
    assert warm.run(solution.format("return {1, 2}"), stdin="1", function="f").status == "runtime error"


def test_the_parents_end_is_everybodys(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, threading, time\n"
        "from erpd_hub.evaluation.code.sandbox import Sandbox\n"
        "s = Sandbox()\ns.run('print(1)')\n"
        f"threading.Thread(target=s.run, args=({SLEEP!r},), daemon=True).start()\n"
        "time.sleep(0.3)\nprint(os.getpid(), flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert all_gone_but(set(), int(done.stdout))


def test_a_supervisor_that_was_killed_is_replaced() -> None:
    with Sandbox() as sandbox:
        assert sandbox.run("print(1)").stdout == "1\n"
        sandbox._process._process.kill()
        assert sandbox.run("print(2)").stdout == "2\n"


def test_levels_and_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Protection(("user", "mount", "net", "pid", "seccomp"), {}).level == "full"
    assert Protection(("seccomp", "landlock"), {}).level == "partial"
    assert Protection(("seccomp",), {}).level == Protection(("nobody", "processes"), {}).level == "none"
    assert Protection((), {"net": "why"}).missing == "net: why"
    assert re.fullmatch(r"none: ; numpy (none|\d[\w.]+)", Protection((), {"net": "why"}).text)
    monkeypatch.delenv("ERPD_UNPROTECTED_CODE", raising=False)
    with pytest.raises(StageError, match="programs would have your rights"):
        Sandbox(("processes",)).run("print(1)")
    monkeypatch.setenv("ERPD_UNPROTECTED_CODE", "1")
    with Sandbox(("processes",)) as sandbox:
        assert sandbox.run("print(1)").stdout == "1\n"


def test_this_machine_protects_fully_wherever_the_libraries_lie() -> None:
    """Where namespaces are to be had, no other layer may be the reason why a program's root cannot be made."""
    if try_layers(("user", "mount", "pid", "net", "seccomp")) is None:
        assert protection().level == "full"
        assert "mount" in protection().layers


REFUSING = 'for n in user mnt net pid ipc uts; do echo 0 > /proc/sys/user/max_${n}_namespaces; done; exec "$@"'
ASKED = (
    "from erpd_hub.evaluation.code.protection import protection\n"
    "from erpd_hub.evaluation.code.sandbox import Sandbox\n"
    "print(protection().level, sorted(protection().refused))\n"
    "run = Sandbox().run\n"
    "print(run('print(input())', stdin='works').stdout.strip())\n"
    "print(run('print(open(\"/etc/passwd\").read())').status, run('import os; os.fork()').status)\n"
    "try:\n    Sandbox(('user', 'net', 'nobody', 'seccomp')).run('print(1)')\n"
    "except Exception as error:\n    print(str(error).partition(', got')[0])\n"
)


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        # as in a container that forbids namespaces
        (["sh", "-c", REFUSING, "sh"], "partial ['ipc', 'mount', 'net', 'nobody', 'pid', 'user', 'uts']"),
        ([], "full ['nobody']"),  # root of a container where nobody else is known
    ],
    ids=["no namespaces", "no other user"],
)
def test_what_the_kernel_refuses_is_left_out(prefix: list[str], said: str) -> None:
    if subprocess.run(["unshare", "-Ur", *prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here to try this in")
    if os.geteuid() != 0:
        pytest.skip("whoever is not root has no other user to lose")
    command = ["unshare", "-Ur", *prefix, sys.executable, "-c", ASKED]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        said,
        "works",
        "runtime error runtime error",
        "sandbox: expected a trivial program to run",
    ], done.stderr[-2000:]


def test_a_layer_that_does_not_stand_is_named() -> None:
    layers = tuple(layer for layer in protection().layers if layer != "user")
    failure = try_layers(layers)  # root can do without a user namespace, nobody else can
    assert (failure is None) == (os.geteuid() == 0)


FORKS = """
import os, time
n = 0
try:
    while n < 2000:
        n += 1
        if os.fork() == 0:
            time.sleep(60)
except OSError:
    pass
print(n)
"""


def test_processes_are_bounded_for_root_without_a_filter_or_another_user() -> None:
    standing = protection(frozenset({"seccomp", "nobody"}))
    if "pid_max" not in standing.layers or standing.level == "none":
        pytest.skip(f"kernel.pid_max is not a namespace's own here: {standing.text}")
    before, whole = processes(), Path("/proc/sys/kernel/pid_max").read_text()
    with Sandbox(standing.layers) as sandbox:
        assert int(sandbox.run(FORKS).stdout) <= 400
        assert sandbox.run("print(1)").stdout == "1\n"
    assert all_gone_but(before)
    assert Path("/proc/sys/kernel/pid_max").read_text() == whole


def test_what_a_program_leaves_ends_without_a_pid_namespace() -> None:
    standing = protection(frozenset({"pid"}))
    if standing.level == "none":
        pytest.skip(f"this machine cannot do without a pid namespace: {standing.text}")
    before = processes()
    with Sandbox(standing.layers) as sandbox:
        assert sandbox.run(FORKS).status == "ok"
        assert sandbox.run("print(1)").stdout == "1\n"
    assert all_gone_but(before)


def test_filter_knows_its_machines() -> None:
    assert filter_program("sparc", signals=True, changes=True) is None
    for machine in ("x86_64", "aarch64"):
        program = filter_program(machine, signals=True, changes=False)
        assert program is not None
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can only be taken on by root")
@pytest.mark.parametrize("without", [frozenset(), NAMESPACES], ids=["all", "no namespaces"])
def test_the_same_as_an_unprivileged_user(tmp_path_factory: pytest.TempPathFactory, without: frozenset[str]) -> None:
    python = _python_for_nobody()
    package = _package(tmp_path_factory.mktemp("package", numbered=True))
    command = [python, "-B", str(package / "hostile_programs.py"), *without]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(package)}, user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "programs would have your rights" in done.stderr:
        pytest.skip(f"an unprivileged user cannot do without {sorted(without)} here")
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert (said["works"], said["told"], said["traces"], said["user"]) == ("42\n", [], [], 65534)
    assert {name: said["status"][name] for name in ENDED} == ENDED


def _python_for_nobody() -> str:
    """An interpreter that other users may run."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        asked = [python, "-c", "import sys; print(sys.version_info >= (3, 11))"]
        try:
            done = subprocess.run(asked, user=65534, group=65534, extra_groups=[], capture_output=True, check=False)
        except OSError:
            continue
        if done.stdout.strip() == b"True":
            return python
    pytest.skip("no Python that another user may run")


def _package(folder: Path) -> Path:
    """What the sandbox needs, where other users may read it."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_mode & 0o5 != 0o5:
            parent.chmod(parent.stat().st_mode | 0o5)
    shutil.copytree(Path(module.__file__).parent, folder / "erpd_hub" / "evaluation" / "code")
    for empty in (folder / "erpd_hub", folder / "erpd_hub" / "evaluation"):
        (empty / "__init__.py").touch()
    shutil.copy(erpd_hub.errors.__file__, folder / "erpd_hub")
    shutil.copy(hostile_programs.__file__, folder)
    return folder


def test_a_sandbox_leaves_no_process() -> None:
    before = processes()
    with Sandbox() as sandbox:
        assert sandbox.run("print(input())", stdin="x", limits=LIMITS).stdout == "x\n"
    assert all_gone_but(before)
    assert set(PROGRAMS) > set(ENDED)
