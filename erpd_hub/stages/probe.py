"""How far a checkpoint has moved, on samples of its own: KL to the base and to the round's start, and its entropy.

Samples are drawn at T=1, top_p 1, so the sampler is the checkpoint. `kl_checkpoint_to_X` is KL(checkpoint || X) in nats
a token, over the whole vocabulary at each position (exact there, Monte-Carlo in the positions only); `_k1` and `_k3`
are the estimates from the sampled tokens alone. `_by_sequence` averages within each response first; which of the two
means the paper takes is open [U]. Standard errors take a prompt's samples as one cluster.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import nan, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from erpd_hub.config import Decoding, ProbeConfig
from erpd_hub.stages import StageContext, StageResult

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Mean(NamedTuple):
    """A ratio of sums with its standard error."""

    value: float
    stderr: float


class _Response(NamedTuple):
    """Per-token quantities of one response, summed."""

    problem_id: str
    tokens: int
    sums: dict[str, float]


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
        StageError: prompts that are empty or too long for the checkpoint.
    """
    from erpd_hub.prompts import read_prompts
    from erpd_hub.sample_statistics import describe_samples
    from erpd_hub.samples import read_rows
    from erpd_hub.sampling.sampler import Sampling, sample_problems

    (checkpoint,) = checkpoints
    problems, format = read_prompts(prompts)
    problems = problems[: config.num_prompts]
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
    metrics |= _distances(rows, checkpoint, {"base": base, "policy": policy}, config)
    (out / "probe.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
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


def _distances(
    rows: list[dict[str, Any]], checkpoint: Path, others: dict[str, Path], config: ProbeConfig
) -> dict[str, float | None]:
    """Means and standard errors of everything measured a token, over tokens and over sequences."""
    from erpd_hub.models import load_model

    attention = config.attn_implementation
    model = load_model(checkpoint, attn_implementation=attention)
    measured = {
        folder: list(_measure(rows, model, load_model(folder, attn_implementation=attention), config))
        for folder in set(others.values())
    }
    found = _flat("entropy", "entropy", measured[others["base"]])
    for name, folder in others.items():
        for estimator in ("", "_k1", "_k3"):
            found |= _flat(f"kl{estimator}", f"kl_checkpoint_to_{name}{estimator}", measured[folder])
    return found


def _measure(
    rows: Sequence[dict[str, Any]], model: "PreTrainedModel", other: "PreTrainedModel", config: ProbeConfig
) -> Iterator[_Response]:
    import torch

    from erpd_hub.layout import cut_batches
    from erpd_hub.logprobs import full_vocabulary_kl, kl_k1, kl_k3, make_batch

    lengths = [len(row["prompt_ids"]) + len(row["response_ids"]) for row in rows]
    for indices in cut_batches(lengths, config.micro_batch_tokens, "padded"):
        chosen = [rows[index] for index in indices]
        batch = make_batch([r["prompt_ids"] for r in chosen], [r["response_ids"] for r in chosen], model.device)
        with torch.inference_mode():
            compared = full_vocabulary_kl(model, other, batch, dtype=config.dtype)
        quantities = {
            "kl": compared.kl,
            "kl_k1": kl_k1(compared.logprobs_p, compared.logprobs_q),
            "kl_k3": kl_k3(compared.logprobs_p, compared.logprobs_q),
            "entropy": compared.entropy,
        }
        yield from _summed(chosen, quantities)


def _summed(rows: Sequence[dict[str, Any]], quantities: dict[str, "Tensor"]) -> Iterator[_Response]:
    # Padding needs no mask: every quantity is 0 there.
    sums = {name: values.double().sum(-1).tolist() for name, values in quantities.items()}
    for index, row in enumerate(rows):
        yield _Response(
            row["problem_id"], len(row["response_ids"]), {name: values[index] for name, values in sums.items()}
        )


def _flat(quantity: str, name: str, responses: Sequence[_Response]) -> dict[str, float | None]:
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
