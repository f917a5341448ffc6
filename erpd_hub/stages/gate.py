"""Whether the teacher is better than the policy on the validation benchmark, and so which strategy comes next.

The plan has both evaluated (or shares an evaluation of the recipe) and hands their samples over: nothing is drawn here,
and whoever has the two details artifacts can make the verdict again.
"""

import json
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import write_json
from erpd_hub.config import GateConfig
from erpd_hub.evaluation.paired import Comparison, compare, labels_by_problem
from erpd_hub.samples import read_rows
from erpd_hub.selection import judge
from erpd_hub.stage_context import StageContext, StageResult

FORMAT = "erpd-hub/gate/v1"


def run(config: GateConfig, out: Path, *, context: StageContext, teacher: Path, policy: Path) -> StageResult:
    """Write `gate.json`: the verdict, its reason in a sentence, and the comparison it rests on.

    Args:
        teacher, policy: Details folders of both on the benchmark.

    Raises:
        ArtifactError: they are on different problems, or nothing could be graded.
    """
    first, second = (labels_by_problem(read_rows(folder)) for folder in (teacher, policy))
    found = compare(first, second, margin=config.margin)
    verdict = judge(found, alpha=config.alpha, otherwise=config.otherwise, where=config.benchmark)
    metrics = {
        **verdict._asdict(),
        "strategies": list(verdict.strategies),
        "benchmark": config.benchmark,
        "alpha": config.alpha,
        "comparison": _recorded(found),
    }
    write_json(out / "gate.json", json.dumps({"format": FORMAT, **metrics}, indent=2) + "\n")
    return StageResult(metrics)


def _recorded(found: Comparison) -> dict[str, Any]:
    """The comparison in the words of `gate.json` v1: `interval` is for differences within `reach`, `widest` for any."""
    words = {"within_reach": "interval", "interval": "widest"}
    return {
        words.get(name, name): list(value) if isinstance(value, tuple) else value
        for name, value in found._asdict().items()
    }
