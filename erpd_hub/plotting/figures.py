"""The paper's figures of a run as files: which there are, drawing them, and the captions beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.errors import ConfigError, require_extra
from erpd_hub.plotting import curves, efficiency, phases, tokens
from erpd_hub.plotting.drawing import Drawn, Figure, Skipped
from erpd_hub.plotting.reading import RunData
from erpd_hub.plotting.style import available, plain, styled, write

SCHEMA = "erpd-hub/figures/v1"
FORMATS = ("png", "svg")
CAPTIONS = "captions.md"


class Entry(NamedTuple):
    title: str
    draw: Figure


FIGURES = {
    "2b": Entry("Fig. 2b: teacher to student", efficiency.pairs),
    "4": Entry("Fig. 4: teachers on a fixed batch", curves.teachers),
    "5": Entry("Fig. 5: unlearn and recover", curves.unlearning),
    "6": Entry("Fig. 6: score against KL", efficiency.paths),
    "7": Entry("Fig. 7: fixed and evolving denominator", phases.denominators),
    "8": Entry("Fig. 8: online and offline phases", phases.switching),
    "10": Entry("Fig. 10: outliers by position", tokens.outliers),
}
"""By their number in the paper."""


def chosen(text: str | None) -> list[str]:
    """The figures that a list with commas names, in the paper's order; all without one.

    Raises:
        ConfigError: one that there is not.
    """
    return list(FIGURES) if text is None else _listed("--figures", text.replace("fig", ""), tuple(FIGURES))


def formats(text: str) -> list[str]:
    """Raises ConfigError: a format that there is not."""
    return _listed("--format", text, FORMATS)


def _listed(option: str, text: str, known: Sequence[str]) -> list[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not names or (unknown := next((name for name in names if name not in known), None)):
        raise ConfigError(f"{option}: expected some of {', '.join(known)}, got {unknown if names else text!r}")
    return [name for name in known if name in names]


def write_figures(
    run: RunData, folder: Path, *, kinds: Sequence[str] = FORMATS, names: Sequence[str] = tuple(FIGURES)
) -> dict[str, Any]:
    """Draw figures into a folder and say of each what it shows, or why there is none.

    Raises:
        ErpdError: there is nothing to draw with.
    """
    if not available():
        raise require_extra("train", "plot")
    drawn, skipped = [], []
    for name in names:
        entry = FIGURES[name]
        with styled():
            found = entry.draw(run)
            if isinstance(found, Skipped):
                skipped.append({"figure": name, "why": found.why})
            else:
                drawn.append(_written(run, folder, name, entry, found, kinds))
    report = {"schema": SCHEMA, "run": run.name, "seed": run.seed, "benchmark": run.benchmark,
              "benchmarks_not_drawn": list(run.others), "figures": drawn, "skipped": skipped}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CAPTIONS).write_text(_captions(report), encoding="utf-8")
    return report


def _written(run: RunData, folder: Path, name: str, entry: Entry, found: Drawn, kinds: Sequence[str]) -> dict[str, Any]:
    title = f"{entry.title}; run {run.name}, seed {run.seed}"
    found.figure.suptitle(plain(title), fontsize=9)
    artifacts = ", ".join(found.artifacts)
    paths = write(
        found.figure, folder / f"fig{name}", kinds, title=title, description=f"{found.caption} From {artifacts}."
    )
    return {"figure": name, "title": title, "files": [path.name for path in paths], "caption": found.caption,
            "artifacts": list(found.artifacts), "missing": list(found.missing)}  # fmt: skip


def _captions(report: dict[str, Any]) -> str:
    lines = [f"# Figures of the run {report['run']}, seed {report['seed']}", ""]
    if report["benchmark"]:
        others = report["benchmarks_not_drawn"]
        lines += [
            f"Scores are on {report['benchmark']}" + (f"; not drawn: {', '.join(others)}." if others else "."),
            "",
        ]
    for item in report["figures"]:
        lines += [f"## {item['title']}", "", f"{', '.join(item['files'])}. {item['caption']}", ""]
        lines += [f"Missing: {why}." for why in item["missing"]] + ([""] if item["missing"] else [])
        lines += ["From:", "", *(f"- {place}" for place in item["artifacts"]), ""]
    if report["skipped"]:
        lines += ["## Not drawn", "", *(f"- Fig. {item['figure']}: {item['why']}" for item in report["skipped"]), ""]
    return "\n".join(lines)
