"""From a signal's name on a Hub to an export folder."""

from pathlib import Path
from typing import Any, get_args

from erpd_hub.errors import ConfigError
from erpd_hub.export import Format, export_signal
from erpd_hub.hub.client import connect
from erpd_hub.lineage import input_place, locate


def export_reference(
    endpoint: str,
    reference: str,
    out: Path,
    *,
    format: str,
    whiten: bool,
    shift_mean: bool,
    keep_on_right: str,
    keep_on_wrong: str,
    whiten_order: str,
) -> dict[str, Any]:
    """Fetch a signal and its rollouts, check their bytes, and write the export.

    Raises:
        ConfigError: an unknown format or mask, something that is no signal, or a folder that is not empty.
    """
    _one_of("--format", format, get_args(Format))
    for name, value in (("--keep-on-right", keep_on_right), ("--keep-on-wrong", keep_on_wrong)):
        _one_of(name, value, ("all", "positive", "negative"))
    _one_of("--whiten-order", whiten_order, ("after_mask", "before_mask"))
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
        right=keep_on_right,  # type: ignore[arg-type]
        wrong=keep_on_wrong,  # type: ignore[arg-type]
        whiten=whiten,
        mask_first=whiten_order == "after_mask",
        shift_mean=shift_mean,
    )
    return export_signal(
        hub.pull_artifact(rollouts, above.repo_id, above.revision, above.folder),
        hub.pull_artifact(record, place.repo_id, place.revision, place.folder),
        out,
        format=format,  # type: ignore[arg-type]
        shaping=shaping,
    )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
