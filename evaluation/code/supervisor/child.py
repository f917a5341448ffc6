"""The child: gives up every right, then is the program."""

import atexit
import importlib
import json
import os
import random
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any, NoReturn

import isolation

EXIT_RAISED, EXIT_MEMORY, EXIT_SYNTAX = 81, 82, 83
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_STACK_BYTES = 128 << 20
_RECURSION = 50_000  # as LiveCodeBench sets it
_PRELUDE = """
from string import *
from re import *
from datetime import *
from collections import *
from heapq import *
from bisect import *
from copy import *
from math import *
from random import *
from statistics import *
from itertools import *
from functools import *
from operator import *
from io import *
from sys import *
from json import *
from builtins import *
from typing import *
import bisect, collections, copy, datetime, functools, heapq, io, itertools, json, math, operator, random, re
import statistics, string, sys
"""
"""What LiveCodeBench lets every program take for granted."""


_OFTEN_IMPORTED = ("array", "cmath", "decimal", "fractions", "queue")
"""What programs import besides the prelude."""


def preload() -> CodeType:
    """Import what programs use once for all of them; the prelude, compiled."""
    for name in _OFTEN_IMPORTED:
        importlib.import_module(name)
    prelude = compile(_PRELUDE, "<prelude>", "exec")
    exec(prelude, {})  # noqa: S102
    return prelude


def become_nobody(request: dict[str, Any], settings: dict[str, Any], files: list[int], kept: int) -> str:
    """Take on the program's files, lose every right, set every limit; the program's text.

    Args:
        files: source, stdin, stdout, stderr and result.
        kept: One more file that stays open.

    Raises:
        OSError: a layer does not stand: `<layer>\\n<why>`.
    """
    layers = settings["layers"]
    os.setsid()
    with isolation.naming("ipc"):
        if "ipc" in layers:
            isolation.call("unshare", isolation.NAMESPACES["ipc"])
    with isolation.naming("mount"):
        if "mount" in layers:
            isolation.fresh_work(request["disk_bytes"])
        else:
            os.chdir("/")
    source = os.pread(files[0], request["source_bytes"], 0).decode()
    for standard, file in enumerate(files[1:4]):
        os.dup2(file, standard)
    _close_all_but(files[4], kept)
    _set_limits(request)
    with isolation.naming("nobody"):
        if "nobody" in layers:
            os.setgroups([])
            os.setresgid(isolation.NOBODY, isolation.NOBODY, isolation.NOBODY)
            os.setresuid(isolation.NOBODY, isolation.NOBODY, isolation.NOBODY)
    isolation.drop_capabilities()
    isolation.call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    isolation.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    isolation.no_new_privileges()
    with isolation.naming("landlock"):
        if "landlock" in layers:
            isolation.restrict_files(settings["libraries"], settings["packages"])
    with isolation.naming("seccomp"):
        if "seccomp" in layers:
            isolation.install_filter(bytes.fromhex(settings["filter"]))
    return source


def run(source: str, prelude: CodeType, function: str | None, result: int) -> NoReturn:
    """Run the program on standard input, or call its function with the arguments there; never returns."""
    code = 0
    try:
        names = _ready(prelude, "__main__" if function is None else "solution")
        arguments = [] if function is None else [json.loads(line) for line in sys.stdin.read().split("\n")]
        try:
            program = compile(source, "program.py", "exec")
        except (SyntaxError, ValueError, RecursionError):
            _say_what_was_raised()
            code = EXIT_SYNTAX
        else:
            exec(program, names)  # noqa: S102
            if function is not None:
                _answer(names, source, function, arguments, result)
        _finish()
    except SystemExit:
        _finish()
    except MemoryError:
        code = EXIT_MEMORY
    except BaseException:
        _say_what_was_raised()
        code = EXIT_RAISED
        _finish()
    finally:
        os._exit(code)


def _ready(prelude: CodeType, module: str) -> dict[str, Any]:
    """Standard streams and a module of its own, with the names of the prelude."""
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    random.seed(0)  # the same program gives the same output
    sys.modules[module] = ModuleType(module)  # where dataclasses and others look for the names of a class's module
    names = sys.modules[module].__dict__
    names["__builtins__"] = __builtins__
    exec(prelude, names)  # noqa: S102
    sys.setrecursionlimit(_RECURSION)
    return names


def _answer(names: dict[str, Any], source: str, function: str, arguments: list[Any], result: int) -> None:
    owner = names["Solution"]() if "class Solution" in source else None
    method: Callable[..., Any] = names[function] if owner is None else getattr(owner, function)
    os.write(result, json.dumps(method(*arguments), default=_as_number).encode())


def _as_number(value: Any) -> int | float:
    """The number that a value of numpy's, or a fraction, is equal to: LiveCodeBench compares what is returned by ==.

    Raises:
        TypeError: it is equal to none.
    """
    for kind in (int, float):
        if kind(value) == value:
            return kind(value)
    raise TypeError(f"expected what JSON can hold, got {type(value).__name__}")


def _say_what_was_raised() -> None:
    """The exception and the program's line, without our own frames and folders."""
    kind, error, frames = sys.exc_info()
    lines = [frame.lineno for frame in traceback.extract_tb(frames) if frame.filename == "program.py"]
    told = "".join(traceback.format_exception_only(kind, error))[-400:]
    os.write(2, f"{told.strip()}{f' (line {lines[-1]})' if lines else ''}\n".encode("utf-8", "replace"))


def _finish() -> None:
    """What the interpreter does at its end: wait for threads, run what was registered, flush."""
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter itself calls it
    atexit._run_exitfuncs()
    sys.stdout.flush()


def _set_limits(request: dict[str, Any]) -> None:
    cpu = int(request["seconds"]) + 2  # the supervisor is more exact; this holds where it cannot look
    limits = {
        resource.RLIMIT_AS: request["memory_bytes"],
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: request["output_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    if request["processes"] is not None:
        limits[resource.RLIMIT_NPROC] = request["processes"]
    for limit, value in limits.items():
        _lower(limit, value)
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, stack))


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _close_all_but(*kept: int) -> None:
    """Besides the standard files."""
    start = 3
    for file in sorted(kept):
        if start < file:  # an empty range that starts at 0 would be taken for all
            os.closerange(start, file)
        start = file + 1
    os.closerange(start, 4096)
