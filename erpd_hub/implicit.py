"""Recipes that a single command implies."""

import sys
from typing import Any

from erpd_hub.artifacts import LineageRecord
from erpd_hub.config import DistillConfig
from erpd_hub.errors import ConfigError, ErpdError
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import locate
from erpd_hub.refusals import check_part

SIGNAL_KEYS = ("numerator", "denominator", "strategy", "on_noise", "noise_ratio")


def with_own_signal(data: dict[str, Any], step: str) -> dict[str, Any]:
    """A one-step recipe of `distill` that names a numerator or a denominator, with the signal step that it implies.

    What is not given comes from the record of the rollouts: the policy that drew them, their temperature for the
    log-probs, and for `steps` one pass over their prompts.

    Raises:
        ConfigError: a signal as well, no rollouts, or another key that does not fit.
    """
    round_ = data["rounds"][0]
    steps = round_["steps"]
    own = {key: steps[step].pop(key) for key in SIGNAL_KEYS if key in steps[step]}
    if "numerator" not in own and "denominator" not in own:
        steps[step] |= own
        return data
    if "signal" in steps[step]:
        raise ConfigError("erpd-hub distill: expected a signal, or a numerator and a denominator; got both")
    if "rollouts" not in steps[step]:
        raise ConfigError("erpd-hub distill: rollouts: missing; the signal is made on them")
    rollouts = str(steps[step]["rollouts"])
    name = "signal" if step != "signal" else "signal-of-signal"
    signal = {"stage": "signal", "rollouts": rollouts, "numerator": "none", **own}
    round_["steps"] = {name: signal, step: {**steps[step], "signal": name}}
    written = round_["steps"][step]
    whole = {"steps": sys.maxsize, **written}  # any number that no saved step is above
    per_step = check_part(DistillConfig, whole, written, "erpd-hub distill", f"{step}.").prompts_per_step
    scoring = data.setdefault("scoring", {})
    if "policy" in round_ and "steps" in steps[step] and "logprob_temperature" in scoring:
        return data
    try:
        record = _record(data["hub"]["endpoint"], rollouts)
    except ErpdError:
        if "policy" in round_ and "steps" in steps[step]:
            return data  # nothing that cannot be done without; the plan says what of the rollouts is amiss
        raise
    if "policy" not in round_:
        round_["policy"] = _policy(record)
    round_["steps"][step].setdefault("steps", max(1, -(-int(record.metrics["prompts"]) // per_step)))
    if temperature := (record.config.get("decoding") or {}).get("temperature"):
        scoring.setdefault("logprob_temperature", temperature)
    return data


def _record(endpoint: str, rollouts: str) -> LineageRecord:
    """The record of some rollouts.

    Raises:
        ConfigError: they are none.
    """
    hub = connect(endpoint)
    place = locate(hub, rollouts)
    record = hub.lineage(place.repo_type, place.repo_id, place.revision, place.folder)
    if record is None or record.kind != "rollouts":
        raise ConfigError(
            f"rollouts: expected rollouts, got {rollouts}, which is {record.kind if record else 'foreign'}"
        )
    return record


def _policy(record: LineageRecord) -> str:
    """The policy that drew some rollouts.

    Raises:
        ConfigError: it is not on a Hub.
    """
    policy = next((item for item in record.inputs if item.role == "policy"), None)
    if policy is None or policy.repo_id is None:
        raise ConfigError("policy: expected the policy that drew the rollouts, their record names none; add policy=REF")
    return f"{policy.repo_id}@{policy.revision}"
