"""K responses of one policy to each prompt, graded once: the batch everything else is made from.

Those that another program drew are brought in by `rollout_import`.
"""

import json
import shutil
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import fmean
from typing import Any

from erpd_hub.config import ImportedRollouts, RolloutConfig
from erpd_hub.stages import StageContext, StageResult


def run(
    config: RolloutConfig | ImportedRollouts,
    out: Path,
    *,
    context: StageContext,
    policy: Path,
    prompts: Path | None = None,
    extended: Path | None = None,
    source: Path | None = None,
) -> StageResult:
    """Write sample shards, `format.json` (how prompts were made) and `rollout.json` (how they were drawn).

    Args:
        extended: The same rollouts under the shorter limit; what ended by length goes on to `extend_to`.
        source: The file or folder to import.

    Raises:
        ConfigError: the reward function cannot be loaded.
        StageError: prompts that are empty or too long for the policy; a reward function that fails.
    """
    if isinstance(config, ImportedRollouts):
        from erpd_hub.stages.rollout_import import import_rollouts

        assert source is not None, "the runner brings the input of an import"
        return import_rollouts(config, out, source=source, policy=policy, seed=context.seed)
    assert prompts is not None, "the runner brings the prompts"
    return _sample(config, out, context=context, prompts=prompts, policy=policy, extended=extended)


def _sample(
    config: RolloutConfig, out: Path, *, context: StageContext, prompts: Path, policy: Path, extended: Path | None
) -> StageResult:
    """Write what is drawn here; of several replicas each writes its part."""
    from erpd_hub.prompts import read_prompts
    from erpd_hub.rewards import RewardFunction
    from erpd_hub.sampling.sampler import sample_problems

    problems, format = read_prompts(prompts)
    problems = problems[: config.limit]
    with ExitStack() as stack:
        reward = None
        if config.reward != "math":
            reward = stack.enter_context(closing(RewardFunction(config.reward, seconds=config.reward_seconds)))
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
            reward=reward,
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
