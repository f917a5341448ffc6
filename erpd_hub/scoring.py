"""A checkpoint that scores rollouts, shard by shard: log-probs of every token, and of a few twice more.

Shards are read, scored and written block by block, so memory does not grow with the dataset.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from erpd_hub.columns import ShardReader, list_column, row_arrays
from erpd_hub.config import Dtype, ScoreConfig
from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.layout import cut_batches, exact_layout
from erpd_hub.logprobs import body_dtype, install_logprob_forward, response_logprobs
from erpd_hub.models import load_model
from erpd_hub.noise import noise_rows
from erpd_hub.response_batch import Layout, ResponseBatch, make_batch
from erpd_hub.samples import LOGPROB_SCHEMA, NOISE_SCHEMA, write_tables

Forward = Callable[[list[np.ndarray], list[np.ndarray], Layout], Tensor]
_SKIPPED_ROWS = 64
"""Rows read at a time where they are only passed over."""


class Scorer:
    """A checkpoint ready to score: the one code path of old, numerator, denominator and reference."""

    def __init__(self, checkpoint: Path, config: ScoreConfig) -> None:
        self.config = config
        self.model = load_model(checkpoint, attn_implementation=config.attn_implementation)
        install_logprob_forward(self.model, config.dtype)
        self.layout = exact_layout(self.model, config.layout, dtype=config.dtype)

    @cached_property
    def other_layout(self) -> Layout:
        """Another layout that this model is exact in: one sequence a row, or padded rows where it is that already."""
        if self.layout != "single":
            return "single"
        return exact_layout(self.model, "padded", dtype=self.config.dtype)

    @property
    def other_dtype(self) -> Dtype:
        return "float32" if self.config.dtype == "bfloat16" else "bfloat16"

    def logprobs(
        self, prompt_ids: pa.ChunkedArray, response_ids: pa.ChunkedArray, layout: Layout | None = None
    ) -> list[np.ndarray]:
        """float32 nats of every response token, in the order of the rows, computed in batches of like length.

        Args:
            layout: Another one than the scorer's own.

        Raises:
            ArtifactError: a row without token ids.
        """
        budget = self.config.micro_batch_tokens
        return per_token(prompt_ids, response_ids, self.forward, budget=budget, layout=layout or self.layout)

    @contextmanager
    def in_other_dtype(self) -> Iterator[None]:
        """Score in the other dtype for a while; in fp32, which variable-length attention cannot do, with sdpa."""
        own = str(self.model.config._attn_implementation)
        swapped = self.other_dtype == "float32" and own.startswith("flash_attention")
        if swapped:
            self.model.set_attn_implementation("sdpa")
        try:
            with body_dtype(self.model, self.other_dtype):
                yield
        finally:
            if swapped:
                self.model.set_attn_implementation(own)

    def forward(self, prompts: list[np.ndarray], responses: list[np.ndarray], layout: Layout) -> Tensor:
        """(B, T) nats of one batch, on the device."""
        batch = lay_out(prompts, responses, self.model.device, layout)
        with torch.inference_mode():
            return response_logprobs(self.model, batch, temperature=self.config.logprob_temperature).logprobs


def per_token(
    prompt_ids: pa.ChunkedArray, response_ids: pa.ChunkedArray, forward: Forward, *, budget: int, layout: Layout
) -> list[np.ndarray]:
    """float32 of every response token, in the order of the rows, computed in batches of like length.

    Args:
        forward: (B, T) of a batch of prompts and responses, on its device.
        budget: Tokens of a forward pass, padding included.

    Raises:
        ArtifactError: a row without token ids.
    """
    prompts = [ids for ids in row_arrays(prompt_ids) if ids is not None and len(ids)]
    responses = [ids for ids in row_arrays(response_ids) if ids is not None]
    if len(prompts) < len(prompt_ids) or len(responses) < len(response_ids):
        raise ArtifactError("rollouts: expected prompt and response token ids in each row; text alone is not scored")
    found: list[np.ndarray] = [np.empty(0, np.float32)] * len(prompts)
    chosen = [index for index, response in enumerate(responses) if len(response)]
    lengths = [len(prompts[index]) + len(responses[index]) for index in chosen]
    before: tuple[list[int], Tensor] = [], torch.empty(0)
    for cut in cut_batches(lengths, budget, layout):
        indices = [chosen[place] for place in cut]
        computed = forward([prompts[i] for i in indices], [responses[i] for i in indices], layout)
        _fetch(*before, found, responses)  # only now: the device computes while the next batch is laid out
        before = indices, computed
    _fetch(*before, found, responses)
    return found


def lay_out(
    prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray], device: torch.device, layout: Layout
) -> ResponseBatch:
    taken, drawn = ([torch.from_numpy(ids.astype(np.int64)) for ids in part] for part in (prompts, responses))
    return make_batch(taken, drawn, device, layout=layout)


def score_shard(scorer: Scorer, shard: Path, out: Path) -> None:
    """Write the log-probs of one shard of rollouts, block by block.

    Raises:
        StageError: a log-prob is not finite.
    """

    def scored(block: pa.Table) -> pa.Table:
        rows = scorer.logprobs(block["prompt_ids"], block["response_ids"])
        require_finite(scorer.config.checkpoint, rows, block)
        values = list_column(rows, LOGPROB_SCHEMA.field(2))
        return pa.Table.from_arrays([block["problem_id"], block["k"], values], schema=LOGPROB_SCHEMA)

    blocks = ShardReader(shard, ["problem_id", "k", "prompt_ids", "response_ids"]).blocks()
    write_tables(out, map(scored, blocks), LOGPROB_SCHEMA)


def require_finite(checkpoint: str, rows: Sequence[np.ndarray], samples: pa.Table) -> None:
    """Raises:
    StageError: a log-prob is NaN or infinite; -inf too is of no use, since a signal is a difference.
    """
    for row, values in enumerate(rows):
        finite = np.isfinite(values)
        if not finite.all():
            at = int(finite.argmin())
            key = samples["problem_id"][row].as_py(), samples["k"][row].as_py()
            raise StageError(
                f"{checkpoint}: expected finite log-probs, got {values[at]} for token {at + 1} of {len(values)} of "
                f"sample {key}; its weights are damaged or too large, take another checkpoint"
            )


def noise_rows_by_shard(shards: Sequence[Path], wanted: int) -> dict[Path, list[int]]:
    """The rows that are scored again, of all shards together; shards without any are left out."""
    starts = np.cumsum([0, *(pq.read_metadata(shard).num_rows for shard in shards)])
    found: dict[Path, list[int]] = {}
    for row in noise_rows(int(starts[-1]), wanted):
        place = int(np.searchsorted(starts, row, side="right")) - 1
        found.setdefault(shards[place], []).append(row - int(starts[place]))
    return found


def rescore_rows(scorer: Scorer, shard: Path, scored: Path, rows: Sequence[int], out: Path) -> None:
    """Write NOISE_SCHEMA for some rows of a shard of rollouts.

    One sequence stands in a row wherever it can, so that the numbers do not depend on which others are scored again.

    Args:
        scored: The shard's log-probs.

    Raises:
        StageError: a log-prob is not finite.
    """
    taken = _rows(ShardReader(shard, ["problem_id", "k", "prompt_ids", "response_ids"]), rows)
    first = _rows(ShardReader(scored, ["logprobs"]), rows)["logprobs"]
    ids = taken["prompt_ids"], taken["response_ids"]
    layout = scorer.logprobs(*ids, scorer.other_layout)
    with scorer.in_other_dtype():
        dtype = scorer.logprobs(*ids, "single")
    for values in (layout, dtype):
        require_finite(scorer.config.checkpoint, values, taken)
    again = [list_column(values, NOISE_SCHEMA.field("logprobs")) for values in (layout, dtype)]
    table = pa.Table.from_arrays([taken["problem_id"], taken["k"], first, *again], schema=NOISE_SCHEMA)
    write_tables(out, [table], NOISE_SCHEMA)


def _rows(reader: ShardReader, wanted: Sequence[int]) -> pa.Table:
    """Rows of a shard by their ascending indices; the others are read and let go."""
    parts, at = [], 0
    for row in wanted:
        while at < row:
            at += len(reader.take(min(row - at, _SKIPPED_ROWS)))
        parts.append(reader.take(1))
        at += 1
    return pa.concat_tables(parts)


def _fetch(indices: list[int], computed: Tensor, found: list[np.ndarray], responses: list[np.ndarray]) -> None:
    values = computed.float().cpu().numpy()
    for index, row in zip(indices, values, strict=True):
        found[index] = row[: len(responses[index])].copy()
