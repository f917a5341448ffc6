"""Decoding with a cache that grows in place against transformers' own, which copies all keys and values at each token.

Both decode greedily with the same random weights, so the same tokens, and take turns. Beside the seconds stand the
pages that the process was given afresh: an array too large for the allocator's free lists comes in new pages each time.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig

from erpd_hub.benchmarks.shapes import random_model, shape_named
from erpd_hub.sampling.transformers_engine import Decoder, growing_cache

SCHEMA = "erpd-hub/bench-cache/v1"


@dataclass(frozen=True)
class CacheBench:
    shape: str
    rows: int
    """Sequences of the batch."""
    tokens: int
    """Decoded of each."""
    repeats: int


def run(options: CacheBench) -> dict[str, Any]:
    """Seconds and fresh pages of each side, and the median of the ratios of a repeat's two."""
    model = random_model(shape_named(options.shape), torch.device("cpu")).eval()
    sides: dict[str, Callable[[PretrainedConfig], DynamicCache]] = {
        "copied": lambda config: DynamicCache(config=config),
        "grown": growing_cache,
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, cache in sides.items():
            before = resource.getrusage(resource.RUSAGE_SELF)
            started = time.perf_counter()
            with torch.inference_mode():
                decoder = Decoder(model, [[1]] * options.rows, cache(model.config))
                for _ in range(options.tokens):
                    decoder.advance(decoder.logits.argmax(-1))
            after = resource.getrusage(resource.RUSAGE_SELF)
            found[name].append(
                {
                    "seconds": time.perf_counter() - started,
                    "system_seconds": after.ru_stime - before.ru_stime,
                    "fresh_pages": after.ru_minflt - before.ru_minflt,
                }
            )
    ratios = [one["seconds"] / other["seconds"] for one, other in zip(found["copied"], found["grown"], strict=True)]
    return {"schema": SCHEMA, **asdict(options), "threads": torch.get_num_threads(), **found, "ratio": median(ratios)}


def render(report: dict[str, Any]) -> str:
    lines = [f"{report['rows']} rows x {report['tokens']} tokens of {report['shape']}, {report['threads']} threads"]
    for name in ("copied", "grown"):
        middle = {key: median(one[key] for one in report[name]) for key in report[name][0]}
        lines.append(
            f"{name}: {middle['seconds']:.1f} s, {middle['system_seconds']:.1f} of them the system's, "
            f"{middle['fresh_pages']:,.0f} fresh pages"
        )
    return "\n".join([*lines, f"copied / grown: {report['ratio']:.2f}"])
