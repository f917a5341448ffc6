"""Prompts with their responses as rows of tokens, and where in them the responses are.

The mask counts tokens: pad and end token may be the same id.

B sequences, R rows, L positions, T response positions, N response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Layout = Literal["packed", "padded", "single"]
"""Several sequences in one row, one a row with padding behind it, or one row alone."""


@dataclass(frozen=True)
class ResponseBatch:
    """Prompts with their responses, each a run of positions of a row."""

    input_ids: Tensor  # (R, L)
    prompt_lengths: Tensor  # (B,), each at least 1
    response_lengths: Tensor  # (B,), each at least 1
    rows: Tensor  # (B,) row of each sequence
    starts: Tensor  # (B,) position of its first token
    position_ids: Tensor | None = None  # (R, L), counting anew in each sequence; None where rows hold one each

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, True on response tokens, the stop token included."""
        positions = torch.arange(int(self.response_lengths.max()), device=self.input_ids.device)
        return positions[None, :] < self.response_lengths[:, None]

    def to(self, device: torch.device) -> "ResponseBatch":
        moved = {name: None if value is None else value.to(device) for name, value in vars(self).items()}
        return ResponseBatch(**moved)


def make_batch(
    prompts: Sequence[Sequence[int] | Tensor],
    responses: Sequence[Sequence[int] | Tensor],
    device: torch.device | None = None,
    layout: Layout = "padded",
) -> ResponseBatch:
    """Lay token ids out; the padding id is 0 and means nothing, and no layout changes a (B, T) result."""
    assert layout != "single" or len(prompts) == 1, "one sequence alone is a batch of one"
    sequences = [
        torch.cat([torch.as_tensor(prompt), torch.as_tensor(response)])
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    position_ids = None
    if layout == "packed":
        input_ids = torch.cat(sequences)[None]
        rows, starts = torch.zeros_like(lengths), lengths.cumsum(0) - lengths
        position_ids = torch.cat([torch.arange(length) for length in lengths])[None]
    else:
        input_ids = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        rows, starts = torch.arange(len(sequences)), torch.zeros_like(lengths)
    prompt_lengths = torch.tensor([len(prompt) for prompt in prompts])
    batch = ResponseBatch(input_ids, prompt_lengths, lengths - prompt_lengths, rows, starts, position_ids)
    return batch if device is None else batch.to(device)


def scatter(values_N: Tensor, mask: Tensor) -> Tensor:
    """(B, T) with the values where the mask is True, 0 elsewhere."""
    return values_N.new_zeros(mask.shape).masked_scatter(mask, values_N)
