"""How far a checkpoint has moved, on samples of its own: KL to the base and to the round's start, and its entropy.

Samples are drawn at T=1, top_p 1, so the sampler is the checkpoint. `kl_checkpoint_to_X` is KL(checkpoint || X) in nats
a token, over the whole vocabulary at each position (exact there, Monte-Carlo in the positions only); `_k1` and `_k3`
are the estimates from the sampled tokens alone. Where the device holds only one model at a time there are these alone,
the exact KL is null and `warning` says it. `_by_sequence` averages within each response first; which of the two
means the paper takes is open [U]. Standard errors take a prompt's samples as one cluster.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from math import nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from erpd_hub.config import Decoding, ProbeConfig, PromptFormat
from erpd_hub.stage_context import StageContext, StageResult

if TYPE_CHECKING:
    from erpd_hub.distances import Response
    from erpd_hub.prompts import Problem

logger = logging.getLogger(__name__)

FORMAT = "erpd-hub/probe/v1"
"""Of `probe.json`; the first ones do not say it."""


class Mean(NamedTuple):
    """A ratio of sums with its standard error."""

    value: float
    stderr: float


def run(
    config: ProbeConfig,
    out: Path,
    *,
    context: StageContext,
    checkpoints: tuple[Path],
    policy: Path,
    base: Path,
    prompts: Path,
) -> StageResult:
    """Write sample shards and `probe.json` for the one checkpoint.

    Raises:
        ConfigError: this package's log-probs are not those of a model's own logits.
        StageError: prompts that are empty or too long for the checkpoint; a model that cannot fit, before it samples.
    """
    from erpd_hub.distances import measure
    from erpd_hub.prompts import read_prompts
    from erpd_hub.sample_statistics import describe_samples
    from erpd_hub.samples import read_rows
    from erpd_hub.sampling.sampler import Sampling, sample_problems

    (checkpoint,) = checkpoints
    problems, format = read_prompts(prompts)
    problems = problems[: config.num_prompts]
    together = _together(checkpoint, problems, format, config)
    sampling = Sampling(
        benchmark=problems[0].source,
        k=config.k,
        checkpoint=checkpoint,
        decoding=Decoding(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=config.max_new_tokens),
        format=format,
        engine=config.engine,
    )
    sample_problems(problems, sampling, out=out, context=context)
    if context.replicas > 1:
        return StageResult()
    rows = list(read_rows(out))
    metrics = describe_samples(out) | {"k": config.k}
    others = {"base": base, "policy": policy}
    measured = measure(rows, checkpoint, others.values(), config, together=together)
    metrics |= describe_distances(measured, others, exact=together)
    (out / "probe.json").write_text(json.dumps({"format": FORMAT, **metrics}, indent=2, sort_keys=True) + "\n")
    return StageResult(metrics)


def ratio_mean(sums: Mapping[str, tuple[float, float]]) -> Mean:
    """Mean over clusters of unequal size, sum of totals by sum of counts, with the linearised standard error.

    Args:
        sums: (total, count) by cluster.
    """
    count = sum(n for _, n in sums.values())
    value = sum(total for total, _ in sums.values()) / count
    if len(sums) < 2:
        return Mean(value, nan)
    spread = sum((total - value * n) ** 2 for total, n in sums.values())
    return Mean(value, sqrt(spread * len(sums) / (len(sums) - 1)) / count)


def _together(checkpoint: Path, problems: Sequence["Problem"], format: PromptFormat, config: ProbeConfig) -> bool:
    """Whether this device holds the two models that an exact KL takes, once the samples are drawn.

    Raises:
        StageError: it does not hold one.
    """
    from erpd_hub.models import device, free_bytes, load_tokenizer
    from erpd_hub.planning.fitting import require_comparable
    from erpd_hub.planning.shapes import facts_of_folder
    from erpd_hub.sampling.plan import render_prompts

    facts = facts_of_folder(checkpoint)
    if facts is None:  # an architecture whose shape is not known
        return True
    prompts = render_prompts(problems, format, load_tokenizer(checkpoint))
    longest = max(len(prompt.prompt_ids) for prompt in prompts) + config.max_new_tokens
    tokens = max(config.micro_batch_tokens, longest)
    available = free_bytes(device()) / 1e9
    return require_comparable("probe", facts, available, tokens=tokens, dtype=config.dtype).together


def describe_distances(
    measured: Mapping[Path, Sequence["Response"]], others: Mapping[str, Path], *, exact: bool
) -> dict[str, float | str | None]:
    """Means and standard errors of everything measured a token, over tokens and over sequences; without the exact KL
    null in its place, and a warning that says so."""
    found: dict[str, float | str | None] = dict(_flat("entropy", "entropy", measured[others["base"]]))
    for name, folder in others.items():
        for estimator in ("", "_k1", "_k3") if exact else ("_k1", "_k3"):
            found |= _flat(f"kl{estimator}", f"kl_checkpoint_to_{name}{estimator}", measured[folder])
        if not exact:
            ends = ("", "_stderr", "_by_sequence", "_by_sequence_stderr")
            found |= dict.fromkeys(f"kl_checkpoint_to_{name}{end}" for end in ends)
    if exact:
        return found
    warning = "the device holds one model at a time: no exact KL, k1 and k3 are from two scorings"
    logger.warning("probe: %s", warning)
    return found | {"warning": warning}


def _flat(quantity: str, name: str, responses: Sequence["Response"]) -> dict[str, float | None]:
    """Mean and standard error of one quantity, over tokens as `name` and over responses as `name_by_sequence`."""
    by_token: dict[str, tuple[float, float]] = {}
    by_sequence: dict[str, tuple[float, float]] = {}
    for response in responses:
        total, tokens = response.sums[quantity], response.tokens
        for sums, value, weight in ((by_token, total, tokens), (by_sequence, total / tokens, 1)):
            before = sums.get(response.problem_id, (0.0, 0.0))
            sums[response.problem_id] = (before[0] + value, before[1] + weight)
    flat: dict[str, float | None] = {}
    for label, sums in ((name, by_token), (f"{name}_by_sequence", by_sequence)):
        mean = ratio_mean(sums)
        flat |= {label: mean.value, f"{label}_stderr": None if mean.stderr != mean.stderr else mean.stderr}
    return flat
