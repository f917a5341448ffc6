"""The measured results as documents: one page and one JSON file an experiment, and an overview of a folder of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import write_json
from erpd_hub.comparing.over_seeds import markdown, overview, page_name
from erpd_hub.comparing.paper import experiments
from erpd_hub.errors import ConfigError

OVERVIEW = "README.md"


def write_pages(found: Mapping[str, Any], folder: Path) -> None:
    """Write a report over seeds, and the overview of all reports in the folder anew.

    Args:
        found: Of `reproduction.report_over_seeds`.
        folder: Made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = page_name(found)
    write_json(folder / f"{name}.json", json.dumps(found, indent=1) + "\n")  # whole or not: it may hold days of seeds
    (folder / f"{name}.md").write_text(markdown(found))
    (folder / OVERVIEW).write_text(overview_page(folder))


def read_report(folder: Path, experiment: str, model: str) -> dict[str, Any] | None:
    """The report of an experiment that a folder has; the folder is made where there is none, so that it can be written.

    Raises:
        ConfigError: it is no folder, or its file no report.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder}: expected a folder, got {error.strerror}; name another") from None
    path = folder / f"{page_name({'experiment': experiment, 'model': model})}.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: expected a report, got {error}; remove it, or take another folder") from None
    if not isinstance(found, dict) or not {"seeds", "claims", "checkpoints", "fingerprints"} <= set(found):
        raise ConfigError(f"{path}: expected a report over seeds, got other JSON; remove it, or take another folder")
    return found


def overview_page(folder: Path) -> str:
    """The overview of a folder of reports, in the order of the paper."""
    order = {name: place for place, name in enumerate(experiments())}
    found = [
        json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if path.stem.startswith(tuple(order))
    ]
    reports = [item for item in found if isinstance(item, dict) and item.get("experiment") in order]
    reports.sort(key=lambda found: (order[found["experiment"]], found["model"] != "tiny"))
    return _HEAD + overview(reports)


_HEAD = """# The paper's claims on the tiny twins

Written by `erpd-hub reproduce EXPERIMENT --tiny --seeds SEEDS --output DIR`, never by hand; seeds are added to those
that a page has. A claim is *shown* or *opposite* where the 95 % interval of its difference (Student's, over seeds) lies
on one side of zero; *not measured* where fewer than three seeds have both checkpoints. An interval is for one claim: of
twenty claims about nothing, one would be shown or opposite. The settings were chosen on other seeds. Each page names
the artifacts behind its numbers by fingerprint: the command makes the same ones again on a machine of the same kind,
and where the processor is of another kind other bits of the same plan.

"""
