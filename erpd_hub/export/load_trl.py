"""Stage 2 in TRL's GRPOTrainer, on stored responses with an advantage for each token. Copy it; needs trl, written for
1.16. `GRPOTrainer` draws and grades in one method; this one hands over what is stored instead."""

import torch
from datasets import Dataset, load_dataset
from torch.nn.utils.rnn import pad_sequence
from trl import GRPOTrainer

COLUMNS = ("prompt_ids", "response_ids", "advantages", "old_logprobs")


def load_prompts(folder: str) -> Dataset:
    """A row for each prompt, with its samples as lists; `num_generations` is the longest of them."""
    groups: dict[str, list] = {}
    for row in load_dataset("parquet", data_files=f"{folder}/data/*.parquet", split="train"):
        groups.setdefault(row["problem_id"], []).append(row)
    return Dataset.from_list([{"prompt": "", **{c: [r[c] for r in rows] for c in COLUMNS}} for rows in groups.values()])


def no_reward(completions: list, **_: object) -> list[float]:
    """GRPOTrainer wants a reward function; nothing calls it."""
    return [0.0] * len(completions)


class StoredResponses(GRPOTrainer):
    def _generate_and_score_completions(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        # A prompt's row comes num_generations times in a row, spread over processes; a prompt with fewer samples gets
        # empty ones, which count nothing.
        first, rows = self.accelerator.process_index * len(inputs), []
        for place, group in enumerate(inputs):
            index = (first + place) % self.num_generations
            there = index < len(group["response_ids"])
            rows.append([group["prompt_ids"][0], *(group[c][index] if there else [] for c in COLUMNS[1:])])
        prompts, responses = ([torch.tensor(row[i], dtype=torch.long) for row in rows] for i in (0, 1))
        advantages, old = ([torch.tensor(row[i], dtype=torch.float32) for row in rows] for i in (2, 3))
        batch = {
            "prompt_ids": pad_sequence(prompts, True, 0, "left"),
            "prompt_mask": pad_sequence([torch.ones_like(p) for p in prompts], True, 0, "left"),
            "completion_ids": pad_sequence(responses, True),
            "completion_mask": pad_sequence([torch.ones_like(r) for r in responses], True),
            "advantages": pad_sequence(advantages, True),
            "old_per_token_logps": pad_sequence(old, True),
        }
        batch = {name: value.to(self.accelerator.device) for name, value in batch.items()}
        tokens = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        return {**batch, "num_items_in_batch": tokens.float()}
