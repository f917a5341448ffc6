"""The summary of a finished run of this machine, by the run's name."""

import json
from typing import Any

from erpd_hub.errors import ArtifactError
from erpd_hub.home import home, run_folder
from erpd_hub.recipe import suggestion


def read_summary(run: str) -> dict[str, Any]:
    """What the last run of a name had to show (`summary.summarise_run`).

    Raises:
        ArtifactError: no such run.
    """
    path = run_folder(run) / "summary.json"
    if not path.is_file():
        runs = sorted(item.parent.name for item in (home() / "runs").glob("*/summary.json"))
        raise ArtifactError(f"{run}: expected a finished run of this machine ({', '.join(runs) or 'there is none'})"
                            f"{suggestion(run, runs)}")  # fmt: skip
    found: dict[str, Any] = json.loads(path.read_text())
    return found
