"""The measured results as documents: a page, a picture and a JSON file an experiment, and an overview of them all."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from erpd_hub.artifacts import write_json
from erpd_hub.comparing.joining import join, renew
from erpd_hub.comparing.over_seeds import markdown, overview, page_name
from erpd_hub.comparing.paper import Experiment, experiments
from erpd_hub.errors import ConfigError
from erpd_hub.plotting.over_seeds import plot_over_seeds
from erpd_hub.plotting.style import available
from erpd_hub.refusals import explain

OVERVIEW = "README.md"
_FIELDS = {
    *("schema", "experiment", "title", "claim", "model", "overrides", "plan", "seeds", "runs", "machines"),
    *("notes", "claims", "checkpoints", "fingerprints"),
}
"""What a report over seeds has at least."""

_BySeed = list[float | None]


class _Claim(BaseModel, strict=True):
    by_seed: _BySeed | None = None
    """None in a report of an earlier version, which is refused for what it cannot answer."""


class _Checkpoint(BaseModel, strict=True):
    """A list for each of `over_seeds.METRICS`."""

    avg: _BySeed
    kl_to_base: _BySeed
    entropy: _BySeed
    mean_length: _BySeed


class _Lists(BaseModel, strict=True):
    """The lists of a report over seeds, each with one entry a seed."""

    seeds: list[int]
    runs: list[str]
    machines: list[str | None]
    claims: list[_Claim]
    checkpoints: list[_Checkpoint]
    fingerprints: dict[str, list[str | None]]

    @model_validator(mode="after")
    def _one_a_seed(self) -> "_Lists":
        lists: list[tuple[str, Sized | None]] = [("runs", self.runs), ("machines", self.machines)]
        lists += [("claims.by_seed", claim.by_seed) for claim in self.claims]
        lists += [(f"checkpoints.{name}", values) for row in self.checkpoints for name, values in row]
        lists += [(f"fingerprints.{step}", tags) for step, tags in self.fingerprints.items()]
        for name, values in lists:
            if values is not None and len(values) != len(self.seeds):
                raise ValueError(f"{name}: expected one entry for each of {len(self.seeds)} seeds, got {len(values)}")
        return self


def renew_report(folder: Path, about: Experiment, head: Mapping[str, Any]) -> dict[str, Any] | None:
    """The folder's report of an experiment with the claims as they are now; its pages are written anew.

    Args:
        head: What the report must be of, as `joining.renew` takes it.

    Returns:
        None where the folder has no such report.

    Raises:
        ConfigError: it is of another plan, or cannot answer a claim without measuring.
    """
    folder_of_pages(folder)
    with _alone_in(folder):
        found = read_report(folder, head["experiment"], head["model"])
        if found is None:
            return None
        renewed = renew(found, about, head)
        write_pages(renewed, folder)
        return renewed


def add_to_report(folder: Path, about: Experiment, one: Mapping[str, Any]) -> dict[str, Any]:
    """Add a newly measured seed to the report that the folder has by now: others may have written to it meanwhile.

    Args:
        one: A report of one seed; where the folder's has it too, the folder's stays.

    Raises:
        ConfigError: as of `renew_report`.
    """
    folder_of_pages(folder)
    with _alone_in(folder):
        found = read_report(folder, one["experiment"], one["model"])
        if found is None:
            found = dict(one)
        else:
            found = renew(found, about, one)
            if one["seeds"][0] not in found["seeds"]:
                found = join(found, one)
        write_pages(found, folder)
        return found


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def write_pages(found: Mapping[str, Any], folder: Path) -> None:
    """Write a report over seeds, and the overview of all reports in the folder anew.

    Args:
        found: Of `reproduction.report_over_seeds`.
        folder: Made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = page_name(found)
    write_json(folder / f"{name}.json", json.dumps(found, indent=1) + "\n")  # whole or not: it may hold days of seeds
    picture = folder / f"{name}.png"
    picture.unlink(missing_ok=True)
    if available():
        plot_over_seeds(found["checkpoints"], picture, title=found["title"])
    (folder / f"{name}.md").write_text(markdown(found, picture.name if picture.exists() else None))
    (folder / OVERVIEW).write_text(overview_page(folder))


def folder_of_pages(folder: Path) -> None:
    """Make the folder where there is none, so that it can be written before days of measuring.

    Raises:
        ConfigError: it is no folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder}: expected a folder, got {error.strerror}; name another") from None


def read_report(folder: Path, experiment: str, model: str) -> dict[str, Any] | None:
    """The report of an experiment that a folder has.

    Raises:
        ConfigError: a file of a report's name in it is no report.
    """
    name = page_name({"experiment": experiment, "model": model})
    found = _reports(folder)
    if name not in found and (folder / f"{name}.json").exists():
        raise ConfigError(
            f"{folder / name}.json: expected a report over seeds as this version writes it, got other JSON; remove it, "
            "or take another folder"
        )
    return found.get(name)


def _reports(folder: Path) -> dict[str, dict[str, Any]]:
    """The folder's reports by the names of their pages; other JSON is passed over.

    Raises:
        ConfigError: a file of an experiment's name is no JSON, or a damaged report.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        if any(f"{path.stem}-".startswith(f"{name}-") for name in experiments()):
            try:
                content = json.loads(path.read_text())
            except ValueError as error:
                raise ConfigError(
                    f"{path}: expected a report, got {error}; remove it, or take another folder"
                ) from None
            if isinstance(content, dict) and set(content) >= _FIELDS and str(content["experiment"]) in experiments():
                try:
                    _Lists.model_validate(content)
                except ValidationError as error:
                    said = explain(_Lists, error.errors(), content, f"{path}: ")[0]
                    raise ConfigError(f"{said}; remove it, or take another folder") from None
                found[path.stem] = content
    return found


def overview_page(folder: Path) -> str:
    """The overview of a folder of reports, in the order of the paper."""
    order = {name: place for place, name in enumerate(experiments())}
    reports = sorted(
        _reports(folder).values(), key=lambda found: (order[found["experiment"]], found["model"] != "tiny")
    )
    return _HEAD + overview(reports)


_HEAD = """# The paper's claims on the tiny twins

Written by `erpd-hub reproduce EXPERIMENT --tiny --seeds SEEDS --output DIR`, never by hand; seeds are added to those
that a page has. A claim is *shown* or *opposite* where the 95 % interval of its difference (Student's, over seeds) lies
on one side of zero; one of no gain is *shown* where it ends below a gain of one point (of a metric in units of its
own: below zero), *opposite* where it lies above zero. *Not measured*: fewer than three seeds have both checkpoints. An
interval is for one claim: of twenty claims about nothing, one would be shown or opposite. Claims with `control:` or
`ours:` are not the paper's; some ask what another page asks too. The settings were chosen on other seeds, unless a
page's notes say otherwise.

Each page names the artifacts behind its numbers by fingerprint, which is that of the plan: the command makes the same
ones again on a machine of the same kind, and on another processor other bits of the same plan. The row *made on* says
which it was, `-` where that was not recorded.

"""
