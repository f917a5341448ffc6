"""An early step of an MSE run, published as a checkpoint of its own: the denominator of strategy 2."""

import json
import shutil
from pathlib import Path

from erpd_hub.artifacts import is_payload
from erpd_hub.config import UnlearnedConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.inputs import ADAPTED
from erpd_hub.stages import StageContext, StageResult


def run(config: UnlearnedConfig, out: Path, *, context: StageContext, teacher: Path) -> StageResult:
    """Copy a saved step of a teacher.

    Raises:
        ArtifactError: the folder holds no weights.
    """
    if not any(teacher.glob("*.safetensors")):
        raise ArtifactError(f"{teacher}: expected a saved step of a teacher, got no weights; refer to NAME@step-N")
    out.mkdir(parents=True, exist_ok=True)
    borrowed = ADAPTED if (teacher / "adapter_config.json").is_file() else ()
    for path in sorted(teacher.iterdir()):
        if path.is_file() and is_payload(path.name) and path.name not in borrowed:
            shutil.copyfile(path, out / path.name)
    dynamics = out / "dynamics.jsonl"
    return StageResult(json.loads(dynamics.read_text().splitlines()[-1]) if dynamics.is_file() else {})
