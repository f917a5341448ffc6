"""Stage 2 in verl: batches of stored responses with an advantage for each token. Copy it; needs torch and datasets.

`DataProto.from_dict(tensors=batch)` makes what `update_policy` of an actor takes; set `meta_info["temperature"]`."""

from collections.abc import Iterator

import torch
from datasets import load_dataset
from torch.nn.utils.rnn import pad_sequence


def load_batches(folder: str, prompts_per_step: int, pad_token_id: int) -> Iterator[dict[str, torch.Tensor]]:
    """One dict of tensors for each optimizer step, the last maybe smaller: prompts padded left, responses right."""
    groups: dict[str, list] = {}
    for row in load_dataset("parquet", data_files=f"{folder}/data/*.parquet", split="train"):
        groups.setdefault(row["problem_id"], []).append(row)
    names = list(groups)
    for start in range(0, len(names), prompts_per_step):
        yield tensors([row for name in names[start : start + prompts_per_step] for row in groups[name]], pad_token_id)


def tensors(rows: list[dict], pad_token_id: int) -> dict[str, torch.Tensor]:
    """prompts (B, P), responses and everything of response tokens (B, T), the whole sequence (B, P + T)."""
    prompts, responses = ([torch.tensor(row[name]) for row in rows] for name in ("prompt_ids", "response_ids"))
    response_mask = pad_sequence([torch.ones_like(r) for r in responses], True)
    prompt_mask = pad_sequence([torch.ones_like(p) for p in prompts], True, 0, "left")
    padded = pad_sequence(prompts, True, pad_token_id, "left"), pad_sequence(responses, True, pad_token_id)
    attention_mask = torch.cat([prompt_mask, response_mask], dim=1)
    advantages, old = (
        pad_sequence([torch.tensor(row[name], dtype=torch.float32) for row in rows], True)
        for name in ("advantages", "old_logprobs")
    )
    return {
        "prompts": padded[0],
        "responses": padded[1],
        "input_ids": torch.cat(padded, dim=1),
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(dim=1) - 1).clamp(min=0),
        "response_mask": response_mask,
        "old_log_probs": old,
        "advantages": advantages,
        "returns": advantages,
    }
