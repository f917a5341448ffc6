"""An optimizer step's samples, how they are cut into micro-batches, and how those are dealt to processes.

Every process holds the whole step, so all of them cut and deal alike without a word between them: the cut follows a
token budget over all rows of the step, and each process gets the same number of passes, of like cost in each round,
since sharded models run in lockstep. Neither the cut nor the number of processes changes what a step computes.

Torch only: the step benchmark runs where nothing else is installed. B sequences, T response positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from erpd_hub.layout import cut_batches
from erpd_hub.losses import Reduction
from erpd_hub.response_batch import Layout, ResponseBatch, make_batch

SampleKey = tuple[str, int]

_ATTENTION_LENGTH = 32768
"""Tokens of a sequence whose attention costs as much as everything else, about that of a 4B model; only how evenly
passes are dealt depends on it."""


@dataclass(frozen=True)
class Trajectory:
    """One sample with its outcome and per-token columns, each of shape (T,) for its T response tokens."""

    problem_id: str
    k: int
    prompt_ids: Tensor
    response_ids: Tensor
    label: float
    """Outcome in {0, 1}; NaN where ungraded."""
    truncated: bool = False
    """Whether the response ended by its length."""
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    numerator_logprobs: Tensor | None = None
    advantages: Tensor | None = None

    @property
    def key(self) -> SampleKey:
        return self.problem_id, self.k

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


COLUMNS = tuple(field.name for field in fields(Trajectory) if field.default is None)
"""Names of the per-token columns."""


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step: some prompts with all their samples."""

    step: int
    """From 1."""
    trajectories: tuple[Trajectory, ...]

    @property
    def tokens(self) -> int:
        return sum(len(trajectory.response_ids) for trajectory in self.trajectories)


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward and backward pass."""

    rows: tuple[Trajectory, ...]
    weight: float = 1.0
    """0 for a pass that only keeps this process in step with the others."""


@dataclass(frozen=True)
class Denominators:
    """What a whole step's sums are divided by."""

    tokens: int
    sequences: int
    longest: int
    """Response tokens of the longest row."""

    @classmethod
    def of(cls, rows: Sequence[Trajectory]) -> "Denominators":
        lengths = [len(row.response_ids) for row in rows]
        return cls(sum(lengths), len(lengths), max(lengths))

    def by(self, reduction: Reduction) -> int:
        if reduction == "token":
            return self.tokens
        return self.sequences * (1 if reduction == "sequence" else self.longest)


def share(
    rows: Sequence[Trajectory], *, budget: int, layout: Layout = "padded", rank: int = 0, world: int = 1
) -> list[MicroBatch]:
    """This rank's micro-batches of a step, the longest first and as many as every other rank has.

    Args:
        budget: Tokens of one pass, padding included. The dearest passes are halved until all ranks have work.
    """
    lengths = [len(row) for row in rows]
    cuts = _filling(list(cut_batches(lengths, budget, layout)), lengths, world)
    dealt = deal([_cost(lengths, cut) for cut in cuts], world)
    batches = [MicroBatch(tuple(rows[index] for index in cuts[place])) for place in dealt[rank]]
    filler = MicroBatch((rows[min(range(len(rows)), key=lengths.__getitem__)],), weight=0.0)
    return batches + [filler] * (max(map(len, dealt)) - len(batches))


def deal(costs: Sequence[float], world: int) -> list[list[int]]:
    """Indices for each rank: in rounds of falling cost, the dearest of a round to whom has least so far."""
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    dealt: list[list[int]] = [[] for _ in range(world)]
    loads = [0.0] * world
    for start in range(0, len(order), world):
        by_load = sorted(range(world), key=loads.__getitem__)
        for rank, index in zip(by_load, order[start : start + world], strict=False):
            dealt[rank].append(index)
            loads[rank] += costs[index]
    return dealt


def collate(rows: Sequence[Trajectory], device: torch.device, layout: Layout = "padded") -> ResponseBatch:
    # Ids are kept as int32 on the host, and indices of a gather are int64.
    prompts, responses = [row.prompt_ids.long() for row in rows], [row.response_ids.long() for row in rows]
    return make_batch(prompts, responses, device, layout)


def pad_column(rows: Sequence[Trajectory], name: str, device: torch.device) -> Tensor | None:
    """(B, T) of one per-token field, zero behind the responses; None when the trajectories do not have it."""
    values = [getattr(row, name) for row in rows]
    return None if values[0] is None else pad_sequence(values, batch_first=True).to(device)


def _filling(cuts: list[list[int]], lengths: Sequence[int], world: int) -> list[list[int]]:
    """The cuts, the dearest of them halved until each rank has as many as any other or all hold one row."""
    while len(cuts) % world and any(len(cut) > 1 for cut in cuts):
        place = max(range(len(cuts)), key=lambda place: (len(cuts[place]) > 1, _cost(lengths, cuts[place])))
        cut = cuts[place]
        half = next(at for at in range(1, len(cut)) if 2 * _cost(lengths, cut[:at]) >= _cost(lengths, cut)
                    or at == len(cut) - 1)  # fmt: skip
        cuts[place : place + 1] = [cut[:half], cut[half:]]
    return cuts


def _cost(lengths: Sequence[int], cut: Sequence[int]) -> float:
    """Of one pass, in tokens of a short sequence: attention grows with the square of the length."""
    return sum(lengths[index] * (1 + lengths[index] / _ATTENTION_LENGTH) for index in cut)
