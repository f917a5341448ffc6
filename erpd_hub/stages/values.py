"""What a critic's folder holds beside its weights: its values on the rollouts, and `values.json`, which says of which.

Shards mirror those of the rollouts, row by row; one that is there is kept, so a killed run computes at most one again.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.artifacts import digest_files, payload_files, write_json
from erpd_hub.config import CriticConfig
from erpd_hub.errors import ArtifactError

if TYPE_CHECKING:
    from erpd_hub.response_batch import Layout

FORMAT = "erpd-hub/values/v1"
_INFO = "values.json"


def write_values(
    config: CriticConfig, folder: Path, *, rollouts: Path, layout: "Layout", held_out: Collection[str]
) -> dict[str, Any]:
    """Value the rollouts with the critic saved in `folder`, each process its part, and describe the result.

    The weights are read back as they were saved, so that anyone gets these values from them.
    """
    from erpd_hub.samples import shard_paths
    from erpd_hub.training.policy import processes
    from erpd_hub.training.values import Valuer
    from erpd_hub.value_statistics import describe_values

    state = processes()
    mine = shard_paths(rollouts)[state.process_index :: state.num_processes]
    if missing := [shard for shard in mine if not (folder / "data" / shard.name).exists()]:
        valuer = Valuer(folder, config, layout)
        for shard in missing:
            valuer.write_shard(shard, folder / "data" / shard.name)
    state.wait_for_everyone()
    if state.is_main_process and not (folder / _INFO).exists():
        described = describe_values(rollouts, folder, held_out)
        computed = {"dtype": config.dtype, "attn_implementation": config.attn_implementation, "layout": layout}
        source = {"format": FORMAT, "rollouts_digest": digest_files(payload_files(rollouts)), **computed}
        write_json(folder / _INFO, json.dumps(source | described, indent=2, sort_keys=True) + "\n")
    state.wait_for_everyone()
    content = json.loads((folder / _INFO).read_text())
    return {name: content[name] for name in content if name.startswith("explained") or name in ("values", "errors")}


def check_values(critic: Path, rollouts: Path) -> None:
    """Refuse a folder that holds no values of these rollouts: joined row by row, others would crash nothing.

    Raises:
        ArtifactError: it has none, some of another format, or of other rollouts.
    """
    path = critic / _INFO
    if not path.is_file():
        raise ArtifactError(f"critic: expected {_INFO} in it, got none; make it with `critic`")
    content = json.loads(path.read_text())
    if content.get("format") != FORMAT:
        raise ArtifactError(f"critic: expected values of the format {FORMAT}, got {content.get('format')!r}; make it "
                            "again with `critic`")  # fmt: skip
    expected, got = digest_files(payload_files(rollouts)), content["rollouts_digest"]
    if got != expected:
        raise ArtifactError(
            f"critic: expected values of the rollouts {expected[:12]}, got those of other rollouts, {got[:12]}; train "
            "a critic on these rollouts"
        )
