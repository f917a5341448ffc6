"""The scores that lighteval and evalscope write, read back from their folders. Files are data; nothing is unpickled."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erpd_hub.errors import ArtifactError


def read_lighteval_results(out: Path, task: str) -> dict[str, Any]:
    """AVG@K and its error as lighteval's newest results file has them.

    Raises:
        ArtifactError: there is none, or it lacks the task.
    """
    found = sorted(out.glob("results/**/results_*.json"))
    if not found:
        raise ArtifactError("lighteval: expected results/**/results_*.json, got none")
    results = _json(found[-1]).get("results", {}).get(f"{task}|0", {})
    name = next((name for name in results if name.startswith("avg@n") and not name.endswith("_stderr")), None)
    if name is None:
        raise ArtifactError(
            f"lighteval: expected an avg@n of {task} in {found[-1].name}, got {', '.join(results) or 'none'}"
        )
    return {"avg": results[name], "stderr": results.get(f"{name}_stderr")}


def read_evalscope_report(out: Path) -> dict[str, Any]:
    """AVG@K as evalscope's report has it: a flat mean over the samples that it did not exclude; it has no error.

    Raises:
        ArtifactError: there is none, or several.
    """
    found = sorted(out.glob("reports/*/*.json"))
    if len(found) != 1:
        raise ArtifactError(f"evalscope: expected one reports/*/*.json, got {len(found)}")
    metric = _json(found[0])["metrics"][0]
    return {"avg": metric["score"], "stderr": None, "excluded": _excluded(out)}


def review_rows(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """evalscope's graded samples with the name of their file, in order of file and line."""
    yield from _lines(out, "reviews")


def prediction_rows(out: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """evalscope's samples before grading, as `review_rows`."""
    yield from _lines(out, "predictions")


def _lines(out: Path, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(out.glob(f"{folder}/*/*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    raise ArtifactError(f"evalscope: {folder} line {number}: expected JSON") from None
                if not isinstance(row, dict) or not isinstance(row.get("index"), int):
                    raise ArtifactError(f"evalscope: {folder} line {number}: expected a sample with its index")
                yield path.stem, row


def _excluded(out: Path) -> int:
    return sum(row["sample_score"]["score"]["status"] == "excluded" for _, row in review_rows(out))


def _json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
