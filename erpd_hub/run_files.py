"""The summary of a finished run of this machine, by the run's name."""

import json
from typing import Any

from erpd_hub.errors import ArtifactError
from erpd_hub.home import home, run_folder
from erpd_hub.recipe_files import suggestion


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


def run_artifact(text: str) -> str:
    """The reference of `RUN:STEP`, a step or a saved step of a run of this machine; any other text as it is.

    Raises:
        ArtifactError: no such run, or no such step in it.
    """
    run, colon, step = text.partition(":")
    if not colon or "/" in run:
        return text
    summary = read_summary(run)
    made = {item["step"].removeprefix("r1/"): item for item in summary["artifacts"] if item["step"].count("/") == 1}
    named = made | {row["ref"]: row for row in summary["checkpoints"]}
    found = named.get(step.removeprefix("r1/"))
    if found is None:
        raise ArtifactError(f"{text}: expected one of {', '.join(named)}{suggestion(step, list(named))}")
    return f"{found['repo']}@{found['revision']}"
