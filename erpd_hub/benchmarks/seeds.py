"""A recipe over several seeds: every checkpoint at every seed, and the claims the README makes of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from erpd_hub.errors import StageError
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import load_recipe

SCHEMA = "erpd-hub/seeds/v1"


class Claim(NamedTuple):
    """A claim about one seed's checkpoints: `value` is positive where it holds."""

    text: str
    value: Callable[[dict[str, dict[str, Any]]], float]


# What the tiny setting shows, with room for seeds; that a student beats its teacher is not among them.
QUICKSTART_CLAIMS = (
    Claim("teacher at least 15 points above base", lambda r: r["teacher"]["avg"] - r["base"]["avg"] - 0.15),
    Claim("student at least 8 points above base", lambda r: r["student"]["avg"] - r["base"]["avg"] - 0.08),
    Claim(
        "student at no more than 0.6 of its teacher's KL",
        lambda r: 0.6 * r["teacher"]["kl_to_base"] - r["student"]["kl_to_base"],
    ),
    Claim("unlearned at least 25 points below base", lambda r: r["base"]["avg"] - 0.25 - r["unlearned"]["avg"]),
    Claim("recovered teacher is weak: below base", lambda r: r["base"]["avg"] - r["recovered"]["avg"]),
    Claim(
        "strategy 2 from the weak teacher at least 5 points above base",
        lambda r: r["student-weak"]["avg"] - r["base"]["avg"] - 0.05,
    ),
    Claim(
        "strategy 2 at least 15 points above strategy 1 from the weak teacher",
        lambda r: r["student-weak"]["avg"] - r["student-weak-s1"]["avg"] - 0.15,
    ),
)


def run_seeds(recipe: str, seeds: Sequence[int], overrides: Sequence[str]) -> dict[str, Any]:
    """Run `recipe` once a seed, each as a run of its own (`RUN-seed-N`), and lay the results side by side."""
    summaries, failures = [], {}
    for seed in seeds:
        loaded = load_recipe(recipe, [*overrides, f"seed={seed}"])
        loaded = loaded.model_copy(update={"run": f"{loaded.run}-seed-{seed}"})
        try:
            summaries.append(run_plan(make_plan(loaded)).summary)
        except StageError as error:
            failures[seed] = str(error)
    finished = [seed for seed in seeds if seed not in failures]
    return report(recipe, finished, summaries) | {"failures": failures}


def report(recipe: str, seeds: Sequence[int], summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summaries of the same recipe at several seeds, checkpoint by checkpoint; leaves no seed out."""
    by_ref = [{row["ref"]: row for row in summary["checkpoints"]} for summary in summaries]
    claims = QUICKSTART_CLAIMS if recipe == "quickstart" else ()
    return {
        "schema": SCHEMA,
        "recipe": recipe,
        "seeds": list(seeds),
        "seconds": [summary["seconds"] for summary in summaries],
        "checkpoints": [_side_by_side(ref, by_ref) for ref in (by_ref[0] if by_ref else ())],
        "checks": [_check(claim, by_ref) for claim in claims if by_ref],
        "summaries": list(summaries),
    }


def _side_by_side(ref: str, by_ref: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    rows = [seed[ref] for seed in by_ref]
    averages = [row["avg"] for row in rows]
    return {
        "ref": ref,
        "role": rows[0]["role"],
        "avg": averages,
        "stderr": [row["stderr"] for row in rows],
        "kl_to_base": [row["kl_to_base"] for row in rows],
        "mean": sum(averages) / len(averages),
    }


def _check(claim: Claim, by_ref: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    values = [claim.value(rows) for rows in by_ref]
    return {"claim": claim.text, "values": values, "holds": min(values) >= 0}
