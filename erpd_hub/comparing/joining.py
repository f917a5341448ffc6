"""Two reports of one experiment at different seeds as one, so that seeds can be measured a few at a time, on machines
that share nothing but the report. Pure.

Seeds may be pooled where they ran the same plan: the same steps with the same stage versions, configs and inputs. That
is what `plan_identity` hashes and what a report says of itself; one of another plan is refused.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from erpd_hub.comparing.claims import judge_differences
from erpd_hub.comparing.over_seeds import METRICS
from erpd_hub.comparing.paper import Claim, Experiment
from erpd_hub.errors import ConfigError
from erpd_hub.nodes import Edge, Plan

_SAME = ("schema", "experiment", "plan")
"""What two reports must share; not the model's name, which for a user's own recipe is a path."""


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


def renew(earlier: Mapping[str, Any], about: Experiment, head: Mapping[str, Any]) -> dict[str, Any]:
    """A report with the experiment's claims, title and notes as they are now, answered from what it has measured.

    A claim is answered by one of the same comparison, or from the values of its two checkpoints.

    Args:
        earlier: The report.
        head: The other things that must be the same: `_SAME`.

    Raises:
        ConfigError: it is of another plan, or a claim asks for what it has not measured.
    """
    differs = [name for name in _SAME if earlier.get(name) != head[name]]
    answers = [_answer(earlier, claim) for claim in about.claims]
    unknown = [claim.says for claim, answer in zip(about.claims, answers, strict=True) if answer is None]
    if differs or unknown:
        why = f"the same {' and '.join(differs)}" if differs else f"this version: it cannot answer {unknown[0]!r}"
        seeds = ", ".join(map(str, earlier["seeds"]))
        raise ConfigError(
            f"--output: the report of {head['experiment']} there is not of {why}, so its "
            f"seeds {seeds} cannot be pooled with others; take another folder, or remove it and measure them again"
        )
    return {**earlier, "title": about.title, "claim": about.claim, "notes": list(about.notes), "claims": answers}


def _answer(report: Mapping[str, Any], claim: Claim) -> dict[str, Any] | None:
    """The claim, judged over the report's seeds; None where it has not measured both sides."""
    compared = (claim.metric, claim.more, claim.less)
    for same in report["claims"]:
        if (same.get("metric"), same.get("more"), same.get("less")) == compared:
            known = None if same["value_more"] is None else (same["value_more"], same["value_less"])
            return judge_differences(claim, known, same["by_seed"])._asdict()
    sides = [[item for item in report["checkpoints"] if item["ref"] == ref] for ref in (claim.more, claim.less)]
    if claim.metric not in METRICS or any(len(found) != 1 for found in sides):  # of several benchmarks: not said which
        return None
    pairs = list(zip(*(found[0][claim.metric] for found in sides), strict=True))
    both = [pair for pair in pairs if None not in pair]
    means = (fmean(more for more, _ in both), fmean(less for _, less in both)) if both else None
    by_seed = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    return judge_differences(claim, means, by_seed)._asdict()


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
