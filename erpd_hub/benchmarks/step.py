"""One teacher step, one scoring pass and one distillation step of a shape with random weights: memory, time, MFU.

    python -m erpd_hub.benchmarks.step --shape qwen3-4b --length 32768,81920

What runs is in `workbench.py`. Model FLOPs are those of `shapes.py`: recompute is not counted, so checkpointing lowers
the MFU. Peaks are of allocated memory (on a CPU: of the resident process, above what it held without the model).

Needs torch, transformers, accelerate and peft alone, and no compiled extras. Not here: several GPUs, packing.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, get_args

import torch
import transformers

from erpd_hub.benchmarks.shapes import SHAPES, forward_flops, peak_flops, step_flops
from erpd_hub.benchmarks.timing import PhaseClock, held_bytes, peak_bytes, profile_kernels, reset_peak, synchronize
from erpd_hub.benchmarks.workbench import (
    GB,
    PARTS,
    SDPA,
    Attention,
    Bench,
    Dtype,
    Part,
    StepBench,
    device_name,
    loss_of,
    make_row,
)
from erpd_hub.training.batches import Trajectory
from erpd_hub.training.step import Loss

SCHEMA = "erpd-hub/bench-step/v1"


class Measured(NamedTuple):
    seconds: list[float]
    peak: int
    """Bytes, the most of the timed runs."""
    resident: int
    """Bytes held before the first of them."""


def run(options: StepBench) -> dict[str, Any]:
    """All lengths; one that does not fit is reported with its numbers and the next is tried."""
    bench = Bench(options)
    name = device_name(bench.device)
    return {
        "schema": SCHEMA,
        **{key: value for key, value in asdict(options).items() if key not in ("lengths", "device")},
        "device": name,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "peak_tflops": None if (peak := peak_flops(name)) is None else peak / 1e12,
        "parameters": sum(weight.numel() for weight in bench.model.parameters()),
        "state_gb": {
            "weights": bench.weight_bytes / GB,
            "gradients": bench.weight_bytes / GB,
            "adam": 2 * bench.weight_bytes / GB,
        },
        "rows": [_row(bench, length, peak) for length in options.lengths],
    }


def _row(bench: Bench, length: int, peak: float | None) -> dict[str, Any]:
    row = make_row(bench.shape, length)
    found: dict[str, Any] = {"length": length, "response_tokens": len(row.response_ids)}
    for part in sorted(bench.options.parts, key=("score", "teacher", "distill").index):
        try:
            found[part] = _part(bench, part, row, peak)
        except torch.OutOfMemoryError as error:
            found[part] = {"out_of_memory": str(error).split("If reserved")[0], "peak_gb": _peak_gb(bench)}
        bench.optimizer.zero_grad(set_to_none=True)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    teacher, distill = (found.get(part, {}).get("seconds") for part in ("teacher", "distill"))
    return found | ({"distill_per_teacher": distill / teacher} if teacher and distill else {})


def _part(bench: Bench, part: Part, row: Trajectory, peak: float | None) -> dict[str, Any]:
    if part == "score":
        measured = _measure(bench, lambda: bench.score(row))
        flops = {causal: forward_flops(bench.shape, *_tokens(row), causal=causal) for causal in (True, False)}
        # Scoring needs neither gradients nor optimizer, which may lie about from an earlier length.
        memory = measured.peak - measured.resident + bench.weight_bytes
        return _report(measured, memory, bench.weight_bytes, flops, len(row), peak)
    loss = loss_of(part)
    rows = replace(row, reference_logprobs=row.old_logprobs) if part == "teacher" else row
    measured = _measure(bench, lambda: bench.train(rows, loss))
    flops = {causal: step_flops(bench.shape, *_tokens(row), causal=causal) for causal in (True, False)}
    report = _report(measured, measured.peak, 4 * bench.weight_bytes, flops, len(row), peak)
    if bench.options.profile:
        if not bench.options.compile:  # hooks would be compiled into the layers
            report["phases"] = _phases(bench, rows, loss)
        kernels = profile_kernels(lambda: bench.train(rows, loss), bench.device)
        report |= {"kernels": kernels.kinds, "longest_kernels": kernels.longest}
    return report


def _measure(bench: Bench, once: Callable[[], object]) -> Measured:
    once()
    synchronize(bench.device)
    resident = held_bytes(bench.device)
    reset_peak(bench.device)
    seconds = []
    for _ in range(bench.options.steps):
        start = bench.clock.stamp()
        once()
        stop = bench.clock.stamp()
        synchronize(bench.device)
        seconds.append(bench.clock.seconds(start, stop))
    return Measured(seconds, peak_bytes(bench.device) - bench.before, resident - bench.before)


def _phases(bench: Bench, row: Trajectory, loss: Loss) -> dict[str, float]:
    with PhaseClock(bench.model.base_model.layers, bench.clock) as phases:
        start = bench.clock.stamp()
        optimizer = bench.train(row, loss)
        stop = bench.clock.stamp()
        synchronize(bench.device)
    return phases.phases(bench.clock.seconds(start, stop), optimizer)


def _report(
    measured: Measured, memory: int, state: int, flops: dict[bool, float], tokens: int, peak: float | None
) -> dict[str, Any]:
    seconds = statistics.median(measured.seconds)
    return {
        "seconds": seconds,
        "all_seconds": measured.seconds,
        "tokens_per_second": tokens / seconds,
        "peak_gb": memory / GB,
        "peak_above_state_gb": (memory - state) / GB,
        "model_tflop": flops[True] / 1e12,
        "tflops": flops[True] / seconds / 1e12,
        "mfu": None if peak is None else flops[True] / seconds / peak,
        "mfu_full_attention": None if peak is None else flops[False] / seconds / peak,
    }


def _tokens(row: Trajectory) -> tuple[int, int]:
    return len(row), len(row.response_ids)


def _peak_gb(bench: Bench) -> float:
    return (peak_bytes(bench.device) - bench.before) / GB


def main(arguments: Sequence[str] | None = None) -> None:
    options, as_json = parse(arguments)
    report = run(options)
    sys.stdout.write((json.dumps(report) if as_json else render(report)) + "\n")


def parse(arguments: Sequence[str] | None = None) -> tuple[StepBench, bool]:
    parser = argparse.ArgumentParser(prog="erpd-hub bench step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen3-4b")
    parser.add_argument("--length", default="32768,81920", help="tokens of the one sequence, comma-separated")
    parser.add_argument("--dtype", choices=get_args(Dtype), help="bfloat16 on a GPU, else float32")
    parser.add_argument("--attn", choices=get_args(Attention), default="sdpa")
    parser.add_argument("--sdpa", choices=get_args(SDPA), default="auto", help="kernel that SDPA tries first")
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--keep-attention", action="store_true", help="checkpoint all but attention")
    parser.add_argument("--offload", action="store_true", help="keep checkpoints in host memory")
    parser.add_argument("--compile", action="store_true", help="compile each decoder layer (an experiment)")
    parser.add_argument("--steps", type=int, default=3, help="timed runs after one that warms up")
    parser.add_argument("--no-profile", action="store_true")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be given again")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    options = StepBench(
        shape=given.shape, lengths=tuple(int(item) for item in given.length.split(",")), attn=given.attn,
        dtype=given.dtype or ("bfloat16" if torch.cuda.is_available() else "float32"), sdpa=given.sdpa,
        checkpointing=not given.no_checkpointing, keep_attention=given.keep_attention, offload=given.offload,
        compile=given.compile, steps=given.steps, profile=not given.no_profile,
        parts=tuple(given.part) if given.part else PARTS,
    )  # fmt: skip
    return options, given.json


def render(report: dict[str, Any]) -> str:
    """The report as text, a table a length."""
    head = (
        f"{report['shape']}, {report['parameters'] / 1e6:,.1f} M weights on {report['device']}, {report['dtype']}, "
        f"{report['attn']}, weights + gradients + Adam {sum(report['state_gb'].values()):.1f} GB"
    )
    return "\n".join([head, *(line for row in report["rows"] for line in _render_row(row))])


def _render_row(row: dict[str, Any]) -> list[str]:
    lines = [
        f"\n{row['length']} tokens",
        "            s/step   peak GB   above state   TFLOP/s   MFU   MFU (full attention)",
    ]
    for part in PARTS:
        found = row.get(part)
        if found is None:
            continue
        if "out_of_memory" in found:
            lines.append(f"  {part:8s}  out of memory: {found['out_of_memory']}")
            continue
        mfu = "" if found["mfu"] is None else f"{found['mfu']:7.1%}{found['mfu_full_attention']:10.1%}"
        lines.append(
            f"  {part:8s}{found['seconds']:8.3f}{found['peak_gb']:10.2f}{found['peak_above_state_gb']:14.2f}"
            f"{found['tflops']:10.2f}{mfu}"
        )
        for table in ("phases", "kernels", "longest_kernels"):
            lines += [f"      {name:45.45s}{seconds:9.3f} s" for name, seconds in found.get(table, {}).items()]
    return lines


if __name__ == "__main__":
    main()
