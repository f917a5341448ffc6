"""K responses of one policy to each prompt, graded once: the batch everything else is made from."""

import json
import shutil
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from erpd_hub.config import RolloutConfig
from erpd_hub.stages import StageContext, StageResult


def run(config: RolloutConfig, out: Path, *, context: StageContext, prompts: Path, policy: Path) -> StageResult:
    """Write sample shards, `format.json` of the prompts and `rollout.json` (how they were drawn).

    Raises:
        StageError: prompts that are empty or too long for the policy.
    """
    from erpd_hub.prompts import read_prompts
    from erpd_hub.samples import read_rows
    from erpd_hub.sampling.sampler import sample_problems

    problems, format = read_prompts(prompts)
    problems = problems[: config.limit]
    sample_problems(
        problems,
        benchmark=problems[0].source,
        k=config.k,
        checkpoint=policy,
        decoding=config.decoding,
        format=format,
        engine=config.engine,
        seed=context.seed,
        out=out,
    )
    shutil.copyfile(prompts / "format.json", out / "format.json")
    drawn = {"decoding": config.decoding.model_dump(), "engine": config.engine.model_dump(), "k": config.k}
    (out / "rollout.json").write_text(json.dumps(drawn, indent=2, sort_keys=True) + "\n")
    return StageResult(describe_samples(list(read_rows(out))) | {"k": config.k})


def describe_samples(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers for a card: means over samples, and how many prompts have outcomes of one kind only.

    Ungraded samples are left out of the accuracy and counted.
    """
    outcomes: dict[str, list[int]] = {}
    for row in rows:
        group = outcomes.setdefault(row["problem_id"], [])
        if row["label"] is not None:
            group.append(row["label"])
    labels = [label for group in outcomes.values() for label in group]
    verdicts = Counter(row["verdict"] for row in rows)
    right = sum(bool(group) and all(group) for group in outcomes.values())
    wrong = sum(bool(group) and not any(group) for group in outcomes.values())
    ungraded = sum(not group for group in outcomes.values())
    return {
        "prompts": len(outcomes),
        "samples": len(rows),
        "accuracy": fmean(labels) if labels else None,
        "truncated": verdicts["truncated"] / len(rows),
        "no_answer": verdicts["no_answer"] / len(rows),
        "timeout": verdicts["timeout"],
        "ungradable": verdicts["ungradable"],
        "groups_all_right": right,
        "groups_all_wrong": wrong,
        "groups_mixed": len(outcomes) - right - wrong - ungraded,
        "mean_length": fmean(len(row["response_ids"] or ()) for row in rows),
        "response_tokens": sum(len(row["response_ids"] or ()) for row in rows),
    }
