"""Peak memory of one training forward and backward against length: our path and the one through the whole logits.

    python -m erpd_hub.benchmarks.memory --shape smollm2-135m --length 1024,2048,4096

Counted is what a pass needs above weights, gradients and optimizer state: a short pass makes the gradients first, and
the optimizer takes no part. On a GPU it is the peak of allocated memory; on a CPU the peak of the resident process,
which is a fresh one for each point. Both sides do the same with and without gradient checkpointing; ours also gives
the entropy that every training step logs, the naive one log-probs alone.

Needs torch, transformers and accelerate alone.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from erpd_hub.benchmarks.shapes import SHAPES, random_model, shape_named
from erpd_hub.benchmarks.timing import held_bytes, peak_bytes, reset_peak, synchronize
from erpd_hub.errors import StageError
from erpd_hub.logprobs import Dtype, install_logprob_forward, response_logprobs
from erpd_hub.response_batch import ResponseBatch, make_batch
from erpd_hub.training.activations import checkpoint_activations

SCHEMA = "erpd-hub/bench-memory/v1"
_WARM_UP = 32
"""Tokens of the pass that makes the gradients."""
_PROMPT = 8
"""Part of a sequence, one in so many, that is its prompt."""
_MB = 1e6

Path = Literal["ours", "naive"]
PATHS: tuple[Path, ...] = get_args(Path)


@dataclass(frozen=True)
class Point:
    """One measurement."""

    shape: str
    length: int
    path: Path
    checkpointing: bool
    dtype: Dtype


def run(shape: str, lengths: Sequence[int], dtype: Dtype = "float32") -> dict[str, Any]:
    """Every length, on both paths, with and without checkpointing."""
    shape_named(shape)
    rows = []
    for length in lengths:
        for checkpointing in (False, True):
            peaks = {path: _in_fresh_process(Point(shape, length, path, checkpointing, dtype)) for path in PATHS}
            rows.append(
                {
                    "length": length,
                    "checkpointing": checkpointing,
                    "ours_mb": peaks["ours"] / _MB,
                    "naive_mb": peaks["naive"] / _MB,
                    "naive_per_ours": peaks["naive"] / peaks["ours"],
                }
            )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "schema": SCHEMA,
        "shape": shape,
        "dtype": dtype,
        "device": device,
        "torch": torch.__version__,
        "logits_mb_per_1k_tokens": SHAPES[shape].vocab * 4 * 1024 / _MB,
        "rows": rows,
    }


def render(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"{report['shape']} on {report['device']}, {report['dtype']}: MB of one training pass above weights and "
        f"gradients (fp32 logits of 1,024 tokens: {report['logits_mb_per_1k_tokens']:.0f} MB)",
        "  tokens  checkpointing       ours      naive   naive / ours",
    ]
    for row in report["rows"]:
        peaks = f"{row['ours_mb']:11.0f}{row['naive_mb']:11.0f}{row['naive_per_ours']:15.2f}"
        lines.append(f"{row['length']:8d}  {'yes' if row['checkpointing'] else 'no':13s}{peaks}")
    return "\n".join(lines)


def measure(point: Point) -> int:
    """Bytes at the peak of one pass above what was held before it."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = random_model(shape_named(point.shape), device).train()
    install_logprob_forward(model, point.dtype)
    if point.checkpointing:
        checkpoint_activations(model)
    _pass(model, _batch(_WARM_UP, device), point)
    batch = _batch(point.length, device)
    gc.collect()
    synchronize(device)
    held = held_bytes(device)
    reset_peak(device)
    _pass(model, batch, point)
    synchronize(device)
    return peak_bytes(device) - held


def _pass(model: nn.Module, batch: ResponseBatch, point: Point) -> None:
    if point.path == "ours":
        logprobs = response_logprobs(model, batch, temperature=1.0, with_entropy=True).logprobs
    else:
        with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=point.dtype == "bfloat16"):
            logprobs = _naive_logprobs(model, batch)
    (-logprobs.sum() / int(batch.response_lengths.sum())).backward()


def _naive_logprobs(model: nn.Module, batch: ResponseBatch) -> Tensor:
    logits = model(input_ids=batch.input_ids, use_cache=False).logits[:, :-1].float()
    log_p = torch.log_softmax(logits, dim=-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
    return log_p[:, int(batch.prompt_lengths[0]) - 1 :]


def _batch(length: int, device: torch.device) -> ResponseBatch:
    ids = torch.arange(length) % 500
    return make_batch([ids[: length // _PROMPT]], [ids[length // _PROMPT :]], device, layout="single")


def _in_fresh_process(point: Point) -> int:
    # Freed blocks must go back to the system at once, or the resident size is that of an earlier moment.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-m", "erpd_hub.benchmarks.memory", "--point", json.dumps(asdict(point))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StageError(f"bench memory: expected a measurement of {point}, got {done.stderr.strip()[-500:]!r}")
    return int(done.stdout.split()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="erpd-hub bench memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="wide")
    parser.add_argument("--length", default="1024,2048,4096", help="tokens of the one sequence, comma-separated")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.point is not None:
        sys.stdout.write(f"{measure(Point(**json.loads(given.point)))}\n")
        return
    report = run(given.shape, [int(item) for item in given.length.split(",")], given.dtype)
    sys.stdout.write((json.dumps(report) if given.json else render(report)) + "\n")


if __name__ == "__main__":
    main()
