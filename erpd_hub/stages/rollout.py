"""K responses of one policy to each prompt, graded once: the batch everything else is made from."""

import json
import shutil
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from erpd_hub.config import RolloutConfig
from erpd_hub.stages import StageContext, StageResult


def run(
    config: RolloutConfig,
    out: Path,
    *,
    context: StageContext,
    prompts: Path,
    policy: Path,
    extended: Path | None = None,
) -> StageResult:
    """Write sample shards, `format.json` of the prompts and `rollout.json` (how they were drawn).

    Args:
        extended: The same rollouts under the shorter limit; what ended by length goes on to `extend_to`.

    Raises:
        StageError: prompts that are empty or too long for the policy.
    """
    from erpd_hub.prompts import read_prompts
    from erpd_hub.sampling.sampler import sample_problems

    problems, format = read_prompts(prompts)
    problems = problems[: config.limit]
    drawn = sample_problems(
        problems,
        benchmark=problems[0].source,
        k=config.k,
        checkpoint=policy,
        decoding=config.decoding,
        format=format,
        engine=config.engine,
        out=out,
        context=context,
        extended=extended,
        extend_to=config.extend_to,
    )
    if context.replicas > 1:
        return StageResult()
    shutil.copyfile(prompts / "format.json", out / "format.json")
    (out / "rollout.json").write_text(json.dumps(drawn, indent=2, sort_keys=True) + "\n")
    return StageResult({**describe_samples(out), **extension_metrics(drawn), "k": config.k})


def extension_metrics(drawn: dict[str, Any]) -> dict[str, Any]:
    """What an artifact says of an extension: how long it became, and how many samples went on; nothing of others."""
    return {name: drawn[name] for name in ("extend_to", "continued") if name in drawn}


def describe_samples(folder: Path) -> dict[str, Any]:
    """Numbers for a card: means over samples, and how many prompts have outcomes of one kind only.

    Ungraded samples are left out of the accuracy and counted. Read shard by shard: memory does not grow with the rows.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from erpd_hub.samples import shard_paths

    outcomes: dict[str, list[int]] = {}
    verdicts: Counter[str] = Counter()
    tokens = 0
    for path in shard_paths(folder):
        columns = pq.read_table(path, columns=["problem_id", "label", "verdict", "response_ids"])
        for problem_id, label in zip(columns["problem_id"].to_pylist(), columns["label"].to_pylist(), strict=True):
            outcomes.setdefault(problem_id, []).extend([] if label is None else [label])
        verdicts.update(columns["verdict"].to_pylist())
        tokens += pc.sum(pc.list_value_length(columns["response_ids"])).as_py() or 0
    return _described(outcomes, verdicts, tokens)


def _described(outcomes: dict[str, list[int]], verdicts: Counter[str], tokens: int) -> dict[str, Any]:
    labels = [label for group in outcomes.values() for label in group]
    samples = verdicts.total()
    right = sum(bool(group) and all(group) for group in outcomes.values())
    wrong = sum(bool(group) and not any(group) for group in outcomes.values())
    ungraded = sum(not group for group in outcomes.values())
    return {
        "prompts": len(outcomes),
        "samples": samples,
        "accuracy": fmean(labels) if labels else None,
        "truncated": verdicts["truncated"] / samples,
        "no_answer": verdicts["no_answer"] / samples,
        "timeout": verdicts["timeout"],
        "ungradable": verdicts["ungradable"],
        "groups_all_right": right,
        "groups_all_wrong": wrong,
        "groups_mixed": len(outcomes) - right - wrong - ungraded,
        "mean_length": tokens / samples,
        "response_tokens": tokens,
    }
