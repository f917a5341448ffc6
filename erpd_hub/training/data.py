"""Rollouts joined with what was computed about them, and the order in which they are trained on.

Rows are joined by (problem_id, k) and every length is checked: a signal laid on other samples crashes nothing and only
shows in nonsense statistics.

Columns stay in Arrow's own numbers, int32 and float32, and never become Python's: each process holds 4 bytes a token
and column, so 16,384 samples of 20,000 tokens with old log-probs and advantages take 3.9 GB of host memory.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from erpd_hub.columns import ShardReader, row_arrays
from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.samples import shard_paths
from erpd_hub.training.batches import SampleKey, StepBatch, Trajectory


def read_trajectories(rollouts: Path) -> list[Trajectory]:
    """The samples of a rollouts folder that have a response, by prompt in order of first appearance, then by k.

    Raises:
        ArtifactError: rows without token ids, or a sample that is there twice.
    """
    found: dict[SampleKey, Trajectory] = {}
    for key, row in _rows(rollouts, ["prompt_ids", "response_ids"], ["label", "finish_reason"]):
        prompt, response = row["prompt_ids"], row["response_ids"]
        if row["finish_reason"] == "error":
            continue
        if prompt is None or response is None or not len(prompt) or not len(response):
            raise ArtifactError(f"rollouts: expected token ids in each row, got none in sample {key}")
        if key in found:
            raise ArtifactError(f"rollouts: expected each sample once, got {key} twice")
        label = float("nan") if row["label"] is None else float(row["label"])
        found[key] = Trajectory(*key, prompt, response, label, truncated=row["finish_reason"] == "length")
    first = {problem_id: index for index, problem_id in enumerate(dict.fromkeys(key[0] for key in found))}
    return sorted(found.values(), key=lambda trajectory: (first[trajectory.problem_id], trajectory.k))


def finished(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that ended by themselves.

    Raises:
        StageError: none did.
    """
    found = [row for row in trajectories if not row.truncated]
    if not found:
        raise StageError(
            f"rollouts: expected responses that end by themselves, got {len(trajectories)} that end by length; raise "
            "max_new_tokens, continue them (extend_to), or set truncated to negative"
        )
    return found


def read_columns(folder: Path, *columns: str) -> dict[str, dict[SampleKey, Tensor | None]]:
    """Per-token columns of a log-probs or signal folder, by sample; None where a row has a null."""
    found: dict[str, dict[SampleKey, Tensor | None]] = {column: {} for column in columns}
    for key, row in _rows(folder, list(columns), []):
        for column in columns:
            found[column][key] = row[column]
    return found


def join(trajectories: Sequence[Trajectory], **columns: Mapping[SampleKey, Tensor | None]) -> list[Trajectory]:
    """Trajectories with per-token columns put into the fields of the same name.

    Raises:
        ArtifactError: a sample is missing, or its column does not have one value for each response token.
    """
    joined = []
    for row in trajectories:
        length = len(row.response_ids)
        fields: dict[str, Any] = {name: matching(values, row.key, length, name) for name, values in columns.items()}
        joined.append(replace(row, **fields))
    return joined


def matching(values: Mapping[SampleKey, Tensor | None], key: SampleKey, length: int, name: str) -> Tensor | None:
    """The column of one sample; None where it is null.

    Raises:
        ArtifactError: the sample is missing, or the column is not of this length.
    """
    if key not in values:
        raise ArtifactError(f"{name}: expected sample {key} of the rollouts, got none; score these rollouts")
    column = values[key]
    if column is not None and len(column) != length:
        raise ArtifactError(
            f"{name}: expected {length} values for sample {key}, got {len(column)}; it belongs to other rollouts"
        )
    return column


def decoding_of(rollouts: Path) -> dict[str, Any] | None:
    """How the rollouts were drawn, by their `rollout.json`; None of imported ones where nobody said."""
    path = rollouts / "rollout.json"
    return json.loads(path.read_text())["decoding"] if path.is_file() else None


def sampled_exactly(rollouts: Path, temperature: float) -> bool:
    """Whether the rollouts were drawn from the full softmax at this temperature, as far as is known."""
    decoding = decoding_of(rollouts)
    if decoding is None:
        return False
    whole = decoding["top_p"] == 1 and decoding["top_k"] == 0 and not decoding.get("presence_penalty")
    return whole and bool(decoding["temperature"] == temperature)


def prompt_schedule(num_prompts: int, prompts_per_step: int, steps: int, seed: int) -> list[list[int]]:
    """Prompt indices of every step of a run: a new permutation each epoch, the last step of an epoch may be smaller.

    1,000 prompts are 32 steps of 32 and 16 of 64 [D]. A later `steps` continues the same schedule.
    """
    schedule: list[list[int]] = []
    epoch = 0
    while len(schedule) < steps:
        order = list(range(num_prompts))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        schedule += [order[start : start + prompts_per_step] for start in range(0, num_prompts, prompts_per_step)]
        epoch += 1
    return schedule[:steps]


def step_batches(trajectories: Sequence[Trajectory], prompts_per_step: int, steps: int, seed: int) -> list[StepBatch]:
    """The whole run, step by step."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.problem_id, []).append(trajectory)
    prompts = list(groups.values())
    schedule = prompt_schedule(len(prompts), prompts_per_step, steps, seed)
    return [
        StepBatch(step, tuple(trajectory for index in chosen for trajectory in prompts[index]))
        for step, chosen in enumerate(schedule, start=1)
    ]


def _rows(folder: Path, ragged: list[str], plain: list[str]) -> Iterator[tuple[SampleKey, dict[str, Any]]]:
    """Key and columns of each row, the columns of lists as tensors."""
    for path in shard_paths(folder):
        for table in ShardReader(path, ["problem_id", "k", *ragged, *plain]).blocks():
            keys = zip(table["problem_id"].to_pylist(), table["k"].to_pylist(), strict=True)
            columns = [_tensors(table[name]) for name in ragged] + [table[name].to_pylist() for name in plain]
            for key, *values in zip(keys, *columns, strict=True):
                yield key, dict(zip([*ragged, *plain], values, strict=True))


def _tensors(column: pa.ChunkedArray) -> list[Tensor | None]:
    # Copied: Arrow's memory is read-only, and a view would keep the whole block alive for a row that is left out.
    return [None if values is None else torch.from_numpy(values.copy()) for values in row_arrays(column)]
