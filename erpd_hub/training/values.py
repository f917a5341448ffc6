"""A critic in training, and its values on a whole rollouts artifact afterwards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from erpd_hub.columns import ShardReader, list_column
from erpd_hub.config import CriticConfig
from erpd_hub.losses import ValueBatch
from erpd_hub.response_batch import Layout
from erpd_hub.samples import VALUE_SCHEMA, write_tables
from erpd_hub.scoring import lay_out, per_token
from erpd_hub.training.batches import Trajectory, collate
from erpd_hub.training.step import Anchor, Computation
from erpd_hub.values import install_value_forward, load_critic, response_values


def value_batch(
    model: nn.Module,
    rows: Sequence[Trajectory],
    *,
    temperature: float,
    device: torch.device,
    layout: Layout,
    anchor: Anchor | None = None,
) -> ValueBatch:
    """What the critic's loss looks at; a temperature means nothing to it."""
    batch = collate(rows, device, layout)
    labels = torch.tensor([row.label for row in rows], device=device)
    return ValueBatch(values=response_values(model, batch), mask=batch.mask, labels=labels)


VALUES = Computation(install_value_forward, value_batch)


class Valuer:
    """A saved critic ready to value rollouts, computed as it was trained."""

    def __init__(self, folder: Path, config: CriticConfig, layout: Layout) -> None:
        self.config = config
        self.layout = layout
        unset_hf_deepspeed_config()  # of the training before: each process has shards, and a whole critic, of its own
        self.model = load_critic(folder, attn_implementation=config.attn_implementation)
        install_value_forward(self.model, config.dtype)

    def write_shard(self, shard: Path, out: Path) -> None:
        """Write VALUE_SCHEMA for one shard of rollouts, row by row, read and computed block by block."""

        def valued(block: pa.Table) -> pa.Table:
            budget = self.config.micro_batch_tokens
            found = per_token(
                block["prompt_ids"], block["response_ids"], self._forward, budget=budget, layout=self.layout
            )
            column = list_column(found, VALUE_SCHEMA.field("values"))
            return pa.Table.from_arrays([block["problem_id"], block["k"], column], schema=VALUE_SCHEMA)

        blocks = ShardReader(shard, ["problem_id", "k", "prompt_ids", "response_ids"]).blocks()
        write_tables(out, map(valued, blocks), VALUE_SCHEMA)

    def _forward(self, prompts: list[np.ndarray], responses: list[np.ndarray], layout: Layout) -> Tensor:
        with torch.inference_mode():
            return response_values(self.model, lay_out(prompts, responses, self.model.device, layout))
