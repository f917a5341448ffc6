"""An early step of an MSE run, published as a checkpoint of its own: the denominator of strategy 2."""

import json
import shutil
from pathlib import Path

from erpd_hub.config import UnlearnedConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.stages import StageContext, StageResult

_NOT_PAYLOAD = {"lineage.json", "README.md", "metrics.jsonl", ".eval_results", ".gitattributes"}
"""What belongs to the teacher's own artifact and not to its weights."""


def run(config: UnlearnedConfig, out: Path, *, context: StageContext, teacher: Path) -> StageResult:
    """Copy a saved step of a teacher.

    Raises:
        ArtifactError: the folder holds no weights.
    """
    if not any(teacher.glob("*.safetensors")):
        raise ArtifactError(f"{teacher}: expected a saved step of a teacher, got no weights; refer to NAME@step-N")
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(teacher.iterdir()):
        if path.is_file() and path.name not in _NOT_PAYLOAD:
            shutil.copyfile(path, out / path.name)
    dynamics = out / "dynamics.jsonl"
    return StageResult(json.loads(dynamics.read_text().splitlines()[-1]) if dynamics.is_file() else {})
