"""Two reports of one experiment at different seeds as one, so that seeds can be measured a few at a time, on machines
that share nothing but the report. Pure.

Seeds may be pooled where they ran the same plan: the same steps with the same stage versions, configs and inputs. That
is what `plan_identity` hashes and what a report says of itself; one of another plan is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from erpd_hub.comparing.claims import judge_differences
from erpd_hub.comparing.over_seeds import METRICS
from erpd_hub.comparing.paper import Claim
from erpd_hub.errors import ConfigError
from erpd_hub.nodes import Edge, Plan

_SAME = ("schema", "experiment", "plan")
"""What two reports must share, and their claims; not the model's name, which for a user's own recipe is a path."""


def plan_identity(plan: Plan) -> str:
    """Hex SHA-256 of what a plan makes at any seed: each step's name, stage and its version, config, inputs, and the
    seed of a step that has one of its own: such a step is the same in all of the plan's runs."""
    steps = [
        [
            *(node.name, node.config.stage, node.stage.version, node.identity, node.config.seed),
            [_input(edge) for edge in node.inputs],
        ]
        for node in plan.nodes
    ]
    return hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()


def _input(edge: Edge) -> list[Any]:
    return [edge.role, str(edge.source), edge.saved_step]


def refuse_other(earlier: Mapping[str, Any], claims: Sequence[Claim], about: Mapping[str, Any]) -> None:
    """Refuse a report that seeds of this plan may not be added to.

    Args:
        earlier: The report.
        claims: Of the experiment, as they are asked now.
        about: The other things that must be the same: `_SAME`.

    Raises:
        ConfigError: it is of another plan, or answers other claims.
    """
    differs = [name for name in _SAME if earlier.get(name) != about[name]]
    asked = [{name: claim.get(name) for name in Claim.model_fields} for claim in earlier["claims"]]
    differs += [] if asked == [claim.model_dump() for claim in claims] else ["claims"]
    if differs:
        seeds = ", ".join(map(str, earlier["seeds"]))
        raise ConfigError(
            f"--output: the report of {about['experiment']} there is not of the same {' and '.join(differs)}, so its "
            f"seeds {seeds} cannot be pooled with others; take another folder, or remove it and measure them again"
        )


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """One report over the seeds of both, in their order.

    Args:
        first: A report as `reproduction.report_over_seeds` makes it.
        second: Another, of the same plan and claims and of none of the same seeds; titles and notes are taken from it.
    """
    counts = len(first["seeds"]), len(second["seeds"])
    seeds = [*first["seeds"], *second["seeds"]]
    order = sorted(range(len(seeds)), key=seeds.__getitem__)

    def joined(*lists: Sequence[Any] | None) -> list[Any]:
        """One value a seed, None for each seed of a report that has no such list."""
        values = [
            value
            for found, count in zip(lists, counts, strict=True)
            for value in ([None] * count if found is None else found)
        ]
        return [values[place] for place in order]

    rows, others = ({(row["ref"], row["benchmark"]): row for row in of["checkpoints"]} for of in (first, second))
    tags, more = first["fingerprints"], second["fingerprints"]
    return {
        **second,
        "seeds": sorted(seeds),
        "runs": joined(first["runs"], second["runs"]),
        "machines": joined(first["machines"], second["machines"]),
        "claims": [
            _claim(one, other, joined(one["by_seed"], other["by_seed"]))
            for one, other in zip(first["claims"], second["claims"], strict=True)
        ],
        "checkpoints": [
            row | {name: joined(rows.get(key, {}).get(name), others.get(key, {}).get(name)) for name in METRICS}
            for key, row in (rows | others).items()
        ],
        "fingerprints": {step: joined(tags.get(step), more.get(step)) for step in tags | more},
    }


def _claim(first: Mapping[str, Any], second: Mapping[str, Any], by_seed: Sequence[float | None]) -> dict[str, Any]:
    """The claim over both; a mean over all seeds is that of both means, each with the number of its seeds."""
    counts = [sum(value is not None for value in claim["by_seed"]) for claim in (first, second)]

    def mean(side: str) -> float:
        known = [count * claim[side] for count, claim in zip(counts, (first, second), strict=True) if count]
        return sum(known) / sum(counts)

    means = (mean("value_more"), mean("value_less")) if any(counts) else None
    asked = Claim.model_validate({name: second[name] for name in Claim.model_fields})
    return judge_differences(asked, means, by_seed)._asdict()
