"""Python, every dependency of ours against its pin, and the kernels that some architectures are slow without."""

import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec

from packaging.requirements import Requirement

from erpd_hub.doctor.check import Check, State

MIN_PYTHON = (3, 11)


def check_packages() -> Iterator[Check]:
    """Python, then every dependency of ours with its extra."""
    yield _python()
    extras = ["", *(metadata("erpd-hub").get_all("Provides-Extra") or [])]
    for requirement in map(Requirement, requires("erpd-hub") or []):
        marker = requirement.marker
        extra = next((name for name in extras if marker is None or marker.evaluate({"extra": name})), None)
        if requirement.name != "erpd-hub" and extra not in (None, "test", "space"):
            yield package(requirement, extra)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= MIN_PYTHON
    return Check("python", "ok" if good else "broken", found, "" if good else "expected 3.11 or newer")


def package(requirement: Requirement, extra: str) -> Check:
    """One dependency; `extra` is empty for one of the core."""
    name, pin = requirement.name, requirement.specifier
    label = f"{name} ({extra})" if extra else name
    install = f"pip install 'erpd-hub[{extra}]'" if extra else "pip install --upgrade erpd-hub"
    try:
        found = version(name)
    except PackageNotFoundError:
        state: State = "note" if extra else "broken"
        where = " into an environment of its own, named by a step's `python`" if extra == "vllm" else ""
        return Check(label, state, "not installed", f"needed for {extra or 'everything'}: {install}{where}")
    if pin.contains(found, prereleases=True):
        return Check(label, "ok", f"{found} ({pin})" if pin else found)
    return Check(label, "broken", f"{found}, expected {pin}", install)


def check_kernels() -> Iterator[Check]:
    """Compiled kernels that an architecture is slow without; none is needed for a right result."""
    wanted = {
        "flash_attn": ("long sequences under attn_implementation=flash_attention_2; sdpa needs none",
                       "pip install --no-build-isolation flash-attn"),
        "fla": ("Qwen3.5's linear attention", "pip install 'erpd-hub[linear-attention]'"),
        "causal_conv1d": ("Qwen3.5's linear attention", "pip install --no-build-isolation causal-conv1d"),
    }  # fmt: skip
    for module, (purpose, remedy) in wanted.items():
        there = find_spec(module) is not None
        yield Check(f"kernels {module}", "ok" if there else "note", "installed" if there else "not installed",
                    "" if there else f"for {purpose}: {remedy}")  # fmt: skip
