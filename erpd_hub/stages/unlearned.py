"""An early step of an MSE run, published as a checkpoint of its own: the denominator of strategy 2.

Of several candidates the rule of `erpd_hub.picker` takes one; `unlearned.json` holds the curves' values at each, the
choice and its reason.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import LINEAGE, is_payload, read_lineage, write_json
from erpd_hub.config import UnlearnedConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.inputs import ADAPTED
from erpd_hub.picker import Choice, Curve, pick, read_curve
from erpd_hub.stage_context import StageContext, StageResult

FORMAT = "erpd-hub/unlearned/v1"
"""Of `unlearned.json`; the first ones do not say it."""
_DYNAMICS = "dynamics.jsonl"

logger = logging.getLogger(__name__)


def run(
    config: UnlearnedConfig,
    out: Path,
    *,
    context: StageContext,
    teacher: Path | None = None,
    candidates: tuple[Path, ...] = (),
) -> StageResult:
    """Copy a saved step of a teacher.

    Args:
        candidates: Saved steps to pick one of, in place of `teacher`.

    Raises:
        ArtifactError: a folder holds no weights, a candidate no curve of its run, or candidates are adapters of several
            bases.
    """
    for folder in (*candidates, *([teacher] if teacher is not None else [])):
        if not any(folder.glob("*.safetensors")):
            raise ArtifactError(f"{folder}: expected a saved step of a teacher, got no weights; refer to NAME@step-N")
    if teacher is not None:
        return StageResult(copy_checkpoint(teacher, out))
    _check_one_base(candidates)
    choice = _pick(config, candidates)
    logger.info("unlearned: %s", choice.reason)
    metrics = copy_checkpoint(candidates[choice.index], out)
    write_json(out / "unlearned.json", json.dumps({"format": FORMAT, **choice.report()}, indent=2))
    return StageResult(metrics | {"winner": choice.index, "pick": choice.report()})


def copy_checkpoint(folder: Path, out: Path) -> dict[str, Any]:
    """Copy a checkpoint; what its run saw last."""
    out.mkdir(parents=True, exist_ok=True)
    borrowed = ADAPTED if (folder / "adapter_config.json").is_file() else ()
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_payload(path.name) and path.name not in borrowed:
            shutil.copyfile(path, out / path.name)
    dynamics = _dynamics(out)
    return dynamics[-1] if dynamics else {}


def _pick(config: UnlearnedConfig, candidates: tuple[Path, ...]) -> Choice:
    curves = [_curve(folder) for folder in candidates]
    steps = [int(_dynamics(folder)[-1]["step"]) for folder in candidates]
    runs = [_run(folder, index) for index, folder in enumerate(candidates)]
    return pick(curves, steps, runs, min_fall=config.min_fall, max_fall=config.max_fall)


def _run(folder: Path, index: int) -> str:
    """What names the run that a saved step is of: all of a run carry its fingerprint."""
    path = folder / LINEAGE
    return read_lineage(path).fingerprint if path.is_file() else str(index)


def _check_one_base(candidates: tuple[Path, ...]) -> None:
    """An adapter is found with the base of the first candidate."""
    adapted = {(folder / "base").resolve() for folder in candidates if (folder / "adapter_config.json").is_file()}
    if len(adapted) > 1:
        raise ArtifactError(f"candidates: expected adapters of one base, got {len(adapted)}; pick among one base's")


def _curve(folder: Path) -> Curve:
    try:
        return read_curve(_dynamics(folder))
    except KeyError:
        raise ArtifactError(
            f"{folder}: expected {_DYNAMICS} with the probabilities of right and wrong responses, got none; train the "
            "teacher with this version"
        ) from None


def _dynamics(folder: Path) -> list[dict[str, Any]]:
    path = folder / _DYNAMICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
