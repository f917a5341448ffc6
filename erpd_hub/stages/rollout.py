"""K responses of one policy to each prompt, graded once: the batch everything else is made from.

Those that another program drew are brought in by `rollout_import`.
"""

import json
import shutil
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from erpd_hub.config import ImportedRollouts, RolloutConfig
from erpd_hub.sample_statistics import describe_samples
from erpd_hub.stage_context import StageContext, StageResult


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
    from erpd_hub.rewards import open_reward
    from erpd_hub.sampling.sampler import Sampling, sample_problems

    problems, format = read_prompts(prompts)
    problems = problems[: config.limit]
    with ExitStack() as stack:
        reward = open_reward(config.reward, seconds=config.reward_seconds, prompts=prompts)
        if reward is not None:
            stack.enter_context(closing(reward))
        sampling = Sampling(
            benchmark=problems[0].source,
            k=config.k,
            checkpoint=policy,
            decoding=config.decoding,
            format=format,
            engine=config.engine,
            extended=extended,
            extend_to=config.extend_to,
            reward=reward,
        )
        drawn = sample_problems(problems, sampling, out=out, context=context).how
    if context.replicas > 1:
        return StageResult()
    shutil.copyfile(prompts / "format.json", out / "format.json")
    (out / "rollout.json").write_text(json.dumps(drawn, indent=2, sort_keys=True) + "\n")
    return StageResult({**describe_samples(out), **extension_metrics(drawn), "k": config.k})


def extension_metrics(drawn: dict[str, Any]) -> dict[str, Any]:
    """What an artifact says of an extension: how long it became, and how many samples went on; nothing of others."""
    return {name: drawn[name] for name in ("extend_to", "continued") if name in drawn}
