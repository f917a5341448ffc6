"""The samples of an artifact that another one goes on from, found by seed and read shard by shard.

A sample's seed is a function of the recipe's seed, the benchmark, the problem and k, so a stored sample fits wherever
its seed is asked for: whatever K either artifact has.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq

from erpd_hub.errors import StageError
from erpd_hub.samples import FinishReason, shard_paths
from erpd_hub.sampling.draws import Draw, draw_name


class _Place(NamedTuple):
    path: Path
    row: int
    tokens: int
    finish_reason: FinishReason


class StoredRows:
    """Where each row of an artifact's shards is; one shard at a time is in memory."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[int, _Place] = {}
        self._shard: tuple[Path | None, list[dict[str, Any]]] = (None, [])
        self.counted = False
        """Whether some rows have a count of tokens in the place of ids."""
        for path in shard_paths(folder):
            names = ["seed", "finish_reason", "response_ids"]
            self.counted |= (has_counts := "num_tokens" in pq.read_schema(path).names)
            table = pq.read_table(path, columns=[*names, "num_tokens"] if has_counts else names)
            lengths = pc.list_value_length(table["response_ids"])
            if has_counts:
                lengths = pc.coalesce(lengths, table["num_tokens"])
            columns = (table["seed"].to_pylist(), lengths.to_pylist(), table["finish_reason"].to_pylist())
            for row, (seed, tokens, reason) in enumerate(zip(*columns, strict=True)):
                self._places[seed] = _Place(path, row, tokens or 0, reason)

    def __contains__(self, seed: int) -> bool:
        return seed in self._places

    def num_tokens(self, seed: int) -> int:
        """Response tokens; 0 for a sample that is not there or that nobody has counted."""
        return self._places[seed].tokens if seed in self._places else 0

    def finish_reason(self, seed: int) -> FinishReason | None:
        return self._places[seed].finish_reason if seed in self._places else None

    def read(self, seed: int) -> dict[str, Any]:
        path, row, _, _ = self._places[seed]
        if self._shard[0] != path:
            self._shard = (path, pq.read_table(path).to_pylist())
        return self._shard[1][row]


class TakenOver:
    """What an earlier evaluation of the same checkpoint, benchmark and settings has, with another K or with samples
    that had failed: taken over, so that only what is missing is drawn. Its grades are made anew (`Job.kept_rows`)."""

    def __init__(self, folder: Path) -> None:
        self._rows = StoredRows(folder)
        self.counted = self._rows.counted

    def __contains__(self, draw: Draw) -> bool:
        """Whether the sample is there; one that had failed is not."""
        return self._rows.finish_reason(draw.seed) not in (None, "error")

    def num_tokens(self, draw: Draw) -> int:
        return self._rows.num_tokens(draw.seed)

    def row(self, draw: Draw) -> dict[str, Any]:
        """The sample's row, with prompt and gold where they had been left out.

        Raises:
            StageError: it is of another problem, or was drawn from another prompt.
        """
        row = self._rows.read(draw.seed)
        expected = draw.prompt.prompt_ids
        if (row["problem_id"], row["k"]) != (draw.prompt.problem.problem_id, draw.k) or (
            row["prompt_ids"] is not None and expected and tuple(row["prompt_ids"]) != expected
        ):
            raise StageError(f"taken over: expected sample {draw_name(draw)} unchanged, got another; it was drawn from "
                             "other prompts: evaluate under another --name")  # fmt: skip
        return revealed(row, draw)


def revealed(row: dict[str, Any], draw: Draw) -> dict[str, Any]:
    """A stored row with the prompt and gold that its benchmark's licence had left out."""
    if row.get("problem_sha256") is None:
        return row
    found = {name: value for name, value in row.items() if name != "problem_sha256"}
    return found | {"prompt_ids": list(draw.prompt.prompt_ids) or None, "gold": draw.prompt.problem.gold}
