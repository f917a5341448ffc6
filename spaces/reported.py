"""The paper's own numbers as rows of the leaderboard, marked as reported: nothing of them can be computed again."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from places import Row

KINDS = ((r"base\b", "base"), (r"distill|student", "student"), (r"teacher|^(PPO|GRPO|SAPO|CE|MSE)$", "teacher"))
"""What a row of the paper's tables is, by its name there; others have no role."""


@cache
def numbers() -> list[dict[str, Any]]:
    """The paper's tables: {table, model, row, benchmark, avg}, avg in percent."""
    return list(json.loads((Path(__file__).parent / "paper.json").read_text("utf-8")))


@cache
def reported_rows() -> list[Row]:
    """One row for each number, in the order of the paper."""
    return [_row(item) for item in numbers()]


def _row(item: dict[str, Any]) -> Row:
    loss = re.match(r"(PPO|GRPO|SAPO|CE|MSE)(?=$|\+Distillation|,)", item["row"])
    return {
        "reported": True,
        "run": f"the paper, {item['table']}",
        "checkpoint": f"{item['model']}: {item['row']}",
        "role": next((role for pattern, role in KINDS if re.search(pattern, item["row"], re.I)), None),
        "loss": loss[1].lower() if loss else None,
        "benchmark": item["benchmark"],
        "avg": item["avg"] / 100,
    }
