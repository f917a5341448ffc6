"""How far one policy is from others on samples of its own, token by token: exact KL, its estimates and the entropy.

Two models stand side by side for the exact KL. Where the device holds only one of them, each scores the samples by
itself: the estimates from the sampled tokens are the same then, and the exact KL is left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from erpd_hub.config import ProbeConfig
from erpd_hub.estimators import kl_k1, kl_k3
from erpd_hub.exact_kl import full_vocabulary_kl
from erpd_hub.layout import cut_batches, exact_layout
from erpd_hub.logprobs import body_dtype, response_logprobs
from erpd_hub.models import load_model
from erpd_hub.response_batch import Layout, ResponseBatch, make_batch


class Response(NamedTuple):
    """Per-token quantities of one response, summed."""

    problem_id: str
    tokens: int
    sums: dict[str, float]
    """Of `kl` (where it is exact), `kl_k1`, `kl_k3` and `entropy`, in nats."""


def measure(
    rows: Sequence[Mapping[str, Any]], checkpoint: Path, others: Iterable[Path], config: ProbeConfig, *, together: bool
) -> dict[Path, list[Response]]:
    """The distances of a checkpoint from each of the others.

    Args:
        rows: Its samples.
        together: Hold two models at once, for the exact KL; else one after the other.

    Raises:
        ConfigError: this package's log-probs are not those of a model's own logits.
    """
    folders = sorted(set(others))
    return _side_by_side(rows, checkpoint, folders, config) if together else _apart(rows, checkpoint, folders, config)


def _side_by_side(
    rows: Sequence[Mapping[str, Any]], checkpoint: Path, others: Sequence[Path], config: ProbeConfig
) -> dict[Path, list[Response]]:
    model, layout = _ready(checkpoint, config)
    found = {}
    for folder in others:
        other, its = (model, layout) if folder == checkpoint else _ready(folder, config)
        both: Layout = "padded" if layout == its == "padded" else "single"
        found[folder] = list(_compared(rows, model, other, both, config))
        del other
    return found


def _ready(folder: Path, config: ProbeConfig) -> tuple[PreTrainedModel, Layout]:
    model = load_model(folder, attn_implementation=config.attn_implementation)
    return model, exact_layout(model, "padded", dtype=config.dtype)


def _compared(
    rows: Sequence[Mapping[str, Any]], model: PreTrainedModel, other: PreTrainedModel, layout: Layout,
    config: ProbeConfig,
) -> Iterator[Response]:  # fmt: skip
    for chosen, batch in _batches(rows, model.device, layout, config):
        with torch.inference_mode():
            compared = full_vocabulary_kl(model, other, batch, dtype=config.dtype)
        yield from _summed(
            [rows[index] for index in chosen],
            {
                "kl": compared.kl,
                "kl_k1": kl_k1(compared.logprobs_p, compared.logprobs_q),
                "kl_k3": kl_k3(compared.logprobs_p, compared.logprobs_q),
                "entropy": compared.entropy,
            },
        )


def _apart(
    rows: Sequence[Mapping[str, Any]], checkpoint: Path, others: Sequence[Path], config: ProbeConfig
) -> dict[Path, list[Response]]:
    own = _scored(rows, checkpoint, config, with_entropy=True)
    found: dict[Path, list[Response]] = {}
    for folder in others:
        scores = own if folder == checkpoint else _scored(rows, folder, config)
        found[folder] = [
            next(_summed([row], {"kl_k1": kl_k1(mine[:1], its[:1]), "kl_k3": kl_k3(mine[:1], its[:1]),
                                 "entropy": mine[1:]}))
            for row, mine, its in zip(rows, own, scores, strict=True)
        ]  # fmt: skip
    return found


def _scored(
    rows: Sequence[Mapping[str, Any]], folder: Path, config: ProbeConfig, *, with_entropy: bool = False
) -> list[Tensor]:
    """(1, T) nats of each row's response on the host, (2, T) with the entropy below."""
    model, layout = _ready(folder, config)
    found = [torch.empty(0)] * len(rows)
    for chosen, batch in _batches(rows, model.device, layout, config):
        with torch.inference_mode(), body_dtype(model, config.dtype):
            scored = response_logprobs(model, batch, temperature=1.0, with_entropy=with_entropy)
        values = torch.stack([part for part in scored if part is not None]).cpu()
        for place, index in enumerate(chosen):
            found[index] = values[:, place, : len(rows[index]["response_ids"])]
    return found


def _batches(
    rows: Sequence[Mapping[str, Any]], device: torch.device, layout: Layout, config: ProbeConfig
) -> Iterator[tuple[list[int], ResponseBatch]]:
    lengths = [len(row["prompt_ids"]) + len(row["response_ids"]) for row in rows]
    for chosen in cut_batches(lengths, config.micro_batch_tokens, layout):
        prompts, responses = ([rows[index][key] for index in chosen] for key in ("prompt_ids", "response_ids"))
        yield chosen, make_batch(prompts, responses, device, layout)


def _summed(rows: Sequence[Mapping[str, Any]], quantities: dict[str, Tensor]) -> Iterator[Response]:
    # Padding needs no mask: every quantity is 0 there.
    sums = {name: values.double().sum(-1).tolist() for name, values in quantities.items()}
    for index, row in enumerate(rows):
        tokens = len(row["response_ids"])
        yield Response(row["problem_id"], tokens, {name: values[index] for name, values in sums.items()})
