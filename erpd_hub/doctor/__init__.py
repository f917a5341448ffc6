"""Whether this machine is ready: versions, devices, memory, disk, kernels, the Hub. `--live` pushes and pulls for real.

Each check says what it found and, where that is not as it should be, what to do. Never prints a token.
"""

from dataclasses import asdict
from typing import Any

from erpd_hub.doctor.endpoint import check_hub
from erpd_hub.doctor.machine import check_home, check_machine, check_sandbox
from erpd_hub.doctor.packages import check_kernels, check_packages

SCHEMA = "erpd-hub/doctor/v1"


def diagnose(endpoint: str = "local", *, live: bool = False, size: float = 1.0) -> dict[str, Any]:
    """All checks, in the order in which a run would meet them.

    Args:
        size: GB that `live` pushes and pulls.
    """
    checks = [
        *check_packages(),
        *check_machine(),
        *check_kernels(),
        *check_sandbox(),
        *check_home(),
        *check_hub(endpoint, live, size),
    ]
    return {
        "schema": SCHEMA,
        "ok": all(check.state != "broken" for check in checks),
        "checks": [asdict(check) for check in checks],
    }
