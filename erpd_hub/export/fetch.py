"""From a signal's name on a Hub to an export folder."""

from pathlib import Path
from typing import Any, Literal

from erpd_hub.config.training import Keep, Truncated
from erpd_hub.errors import ConfigError
from erpd_hub.export import Format, export_signal
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import input_place, locate


def export_reference(
    endpoint: str,
    reference: str,
    out: Path,
    *,
    format: Format,
    whiten: bool,
    shift_mean: bool,
    keep_on_right: Keep,
    keep_on_wrong: Keep,
    whiten_order: Literal["after_mask", "before_mask"],
    truncated: Truncated,
) -> dict[str, Any]:
    """Fetch a signal and its rollouts, check their bytes, and write the export.

    Raises:
        ConfigError: something that is no signal, or a folder that is not empty.
    """
    hub = connect(endpoint)
    place = locate(hub, reference)
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    if record is None or record.kind != "signal":
        raise ConfigError(f"{reference}: expected a signal, got {record.kind if record else 'no artifact'}")
    above = next((input_place(item) for item in record.inputs if item.role == "rollouts"), None)
    rollouts = hub.lineage(above.repo_type, above.repo_id, above.revision, above.folder) if above else None
    if above is None or rollouts is None:
        raise ConfigError(f"{reference}: expected its rollouts on {endpoint}, found none; pull them there first")
    from erpd_hub.signals import Shaping

    shaping = Shaping(
        right=keep_on_right,
        wrong=keep_on_wrong,
        whiten=whiten,
        mask_first=whiten_order == "after_mask",
        shift_mean=shift_mean,
    )
    return export_signal(
        hub.pull_artifact(rollouts, above.repo_id, above.revision, above.folder),
        hub.pull_artifact(record, place.repo_id, place.revision, place.folder),
        out,
        format=format,
        shaping=shaping,
        truncated=truncated,
    )
