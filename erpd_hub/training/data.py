"""Rollouts joined with what was computed about them, and the order in which they are trained on.

Rows are joined by (problem_id, k) and every length is checked: a signal laid on other samples crashes nothing and only
shows in nonsense statistics.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from erpd_hub.errors import ArtifactError
from erpd_hub.logprobs import ResponseBatch, make_batch
from erpd_hub.samples import shard_paths

SampleKey = tuple[str, int]


@dataclass(frozen=True)
class Trajectory:
    """One sample with its outcome and per-token columns, each of shape (T,) for its T response tokens."""

    problem_id: str
    k: int
    prompt_ids: Tensor
    response_ids: Tensor
    label: float
    """Outcome in {0, 1}; NaN where ungraded."""
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    advantages: Tensor | None = None

    @property
    def key(self) -> SampleKey:
        return self.problem_id, self.k

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step: some prompts with all their samples."""

    step: int
    """From 1."""
    trajectories: tuple[Trajectory, ...]

    @property
    def tokens(self) -> int:
        return sum(len(trajectory.response_ids) for trajectory in self.trajectories)


def read_trajectories(rollouts: Path) -> list[Trajectory]:
    """The samples of a rollouts folder that have a response, by prompt in order of first appearance, then by k.

    Raises:
        ArtifactError: rows without token ids, or a sample that is there twice.
    """
    found: dict[SampleKey, Trajectory] = {}
    for row in _rows(rollouts, ["problem_id", "k", "prompt_ids", "response_ids", "label", "finish_reason"]):
        key = (row["problem_id"], row["k"])
        if row["finish_reason"] == "error":
            continue
        if not row["prompt_ids"] or not row["response_ids"]:
            raise ArtifactError(f"rollouts: expected token ids in each row, got none in sample {key}")
        if key in found:
            raise ArtifactError(f"rollouts: expected each sample once, got {key} twice")
        label = float("nan") if row["label"] is None else float(row["label"])
        found[key] = Trajectory(*key, torch.tensor(row["prompt_ids"]), torch.tensor(row["response_ids"]), label)
    first = {problem_id: index for index, problem_id in enumerate(dict.fromkeys(key[0] for key in found))}
    return sorted(found.values(), key=lambda trajectory: (first[trajectory.problem_id], trajectory.k))


def read_columns(folder: Path, *columns: str) -> dict[str, dict[SampleKey, Tensor | None]]:
    """Per-token columns of a log-probs or signal folder, by sample; None where a row has a null."""
    found: dict[str, dict[SampleKey, Tensor | None]] = {column: {} for column in columns}
    for row in _rows(folder, ["problem_id", "k", *columns]):
        for column in columns:
            values = row[column]
            found[column][row["problem_id"], row["k"]] = None if values is None else torch.tensor(values)
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


def sampled_exactly(rollouts: Path, temperature: float) -> bool:
    """Whether the rollouts were drawn from the full softmax at this temperature (their `rollout.json` says)."""
    path = rollouts / "rollout.json"
    if not path.is_file():
        return False
    decoding = json.loads(path.read_text())["decoding"]
    return decoding["temperature"] == temperature and decoding["top_p"] == 1 and decoding["top_k"] == 0


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


def token_budget_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut rows into batches of at most `budget` padded tokens (a longer row is a batch by itself), longest first.

    Longest first, so that what does not fit into memory fails at once.
    """
    batch: list[int] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        longest = longest or lengths[index]
        if batch and (len(batch) + 1) * longest > budget:
            yield batch
            batch, longest = [], lengths[index]
        batch.append(index)
    if batch:
        yield batch


def collate(trajectories: Sequence[Trajectory], device: torch.device) -> ResponseBatch:
    return make_batch(
        [trajectory.prompt_ids for trajectory in trajectories],
        [trajectory.response_ids for trajectory in trajectories],
        device,
    )


def pad_column(trajectories: Sequence[Trajectory], name: str, device: torch.device) -> Tensor | None:
    """(B, T) of one per-token field, zero behind the responses; None when the trajectories do not have it."""
    values = [getattr(trajectory, name) for trajectory in trajectories]
    return None if values[0] is None else pad_sequence(values, batch_first=True).to(device)


def _rows(folder: Path, columns: list[str]) -> Iterator[dict]:
    for path in shard_paths(folder):
        yield from pq.read_table(path, columns=columns).to_pylist()
