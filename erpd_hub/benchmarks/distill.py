"""A distillation step with precomputed signal against a teacher step, and what each needs of memory, by length.

The two take turns on the same sequence, through the same function as in training: forward, backward, clipping, AdamW.
The teacher's loss is CE against reference log-probs, the student's is clipped against old ones with a signal for each
token; all of these columns are there beforehand, so no other model runs. Peaks are above weights, gradients and Adam.

`bench memory` follows the output head alone; this is the whole step. Needs torch and transformers alone.
"""

import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
import transformers

from erpd_hub.benchmarks.timing import peak_bytes, reset_peak, synchronize
from erpd_hub.benchmarks.workbench import GB, Bench, Dtype, StepBench, device_name, loss_of, make_row
from erpd_hub.training.batches import Trajectory

SCHEMA = "erpd-hub/bench-distill/v1"


@dataclass(frozen=True)
class DistillBench:
    shape: str = "smollm2-135m"
    lengths: tuple[int, ...] = (1024, 2048, 4096)
    dtype: Dtype = "float32"
    checkpointing: bool = True
    repeats: int = 3


class _Step(NamedTuple):
    seconds: float
    cpu_seconds: float
    """That the process had a core: what a machine that others use as well allows to compare."""
    peak: int
    """Bytes above weights, gradients and Adam state."""


def run(options: DistillBench) -> dict[str, Any]:
    """Seconds and peak of both steps and their ratio, a row a length."""
    bench = Bench(StepBench(shape=options.shape, dtype=options.dtype, checkpointing=options.checkpointing))
    return {
        "schema": SCHEMA,
        **asdict(options),
        "device": device_name(bench.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
        "state_gb": 4 * bench.weight_bytes / GB,
        "rows": [_row(bench, length, options.repeats) for length in options.lengths],
    }


def _row(bench: Bench, length: int, repeats: int) -> dict[str, Any]:
    student = make_row(bench.shape, length)
    rows = {"teacher": replace(student, reference_logprobs=student.old_logprobs), "distill": student}
    found: dict[str, list[_Step]] = {part: [] for part in rows}
    for repeat in range(repeats + 1):  # the first warms up
        order = list(rows) if repeat % 2 else list(reversed(rows))
        for part in order:
            measured = _step(bench, rows[part], part)
            if repeat:
                found[part].append(measured)
    pairs = list(zip(found["distill"], found["teacher"], strict=True))
    return {
        "length": length,
        **{f"{part}_seconds": [step.seconds for step in found[part]] for part in rows},
        **{f"{part}_peak_above_state_gb": max(step.peak for step in found[part]) / GB for part in rows},
        "ratio": statistics.median(distill.seconds / teacher.seconds for distill, teacher in pairs),
        "cpu_time_ratio": statistics.median(distill.cpu_seconds / teacher.cpu_seconds for distill, teacher in pairs),
    }


def _step(bench: Bench, row: Trajectory, part: str) -> _Step:
    reset_peak(bench.device)
    cpu, start = time.process_time(), bench.clock.stamp()
    bench.train(row, loss_of(part))
    stop = bench.clock.stamp()
    synchronize(bench.device)
    above = peak_bytes(bench.device) - bench.before - 4 * bench.weight_bytes
    return _Step(bench.clock.seconds(start, stop), time.process_time() - cpu, above)


def render(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{report['shape']} on {report['device']}, {report['dtype']}, weights + gradients + Adam "
        f"{report['state_gb']:.2f} GB",
        "tokens   teacher s   distill s   ratio   by CPU time   teacher GB above   distill GB above",
    ]
    for row in report["rows"]:
        teacher, distill = (statistics.median(row[f"{part}_seconds"]) for part in ("teacher", "distill"))
        lines.append(
            f"{row['length']:6d}{teacher:12.3f}{distill:12.3f}{row['ratio']:8.3f}{row['cpu_time_ratio']:14.3f}"
            f"{row['teacher_peak_above_state_gb']:19.2f}{row['distill_peak_above_state_gb']:19.2f}"
        )
    return "\n".join(lines)
