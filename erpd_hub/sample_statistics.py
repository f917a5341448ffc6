"""What a folder of samples is like, for records and refusals."""

from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from erpd_hub.samples import shard_paths


def describe_samples(folder: Path) -> dict[str, Any]:
    """Numbers for a card: means over samples, and how many prompts have outcomes of one kind only.

    Ungraded samples are left out of the accuracy and counted. Read shard by shard: memory does not grow with the rows.
    """
    outcomes: dict[str, list[int]] = {}
    verdicts: Counter[str] = Counter()
    tokens = 0
    for path in shard_paths(folder):
        columns = pq.read_table(path, columns=["problem_id", "label", "verdict", "response_ids"])
        for problem_id, label in zip(columns["problem_id"].to_pylist(), columns["label"].to_pylist(), strict=True):
            outcomes.setdefault(problem_id, []).extend([] if label is None else [label])
        verdicts.update(columns["verdict"].to_pylist())
        tokens += pc.sum(pc.list_value_length(columns["response_ids"])).as_py() or 0
    return _described(outcomes, verdicts, tokens)


def _described(outcomes: dict[str, list[int]], verdicts: Counter[str], tokens: int) -> dict[str, Any]:
    labels = [label for group in outcomes.values() for label in group]
    samples = verdicts.total()
    right = sum(bool(group) and all(group) for group in outcomes.values())
    wrong = sum(bool(group) and not any(group) for group in outcomes.values())
    ungraded = sum(not group for group in outcomes.values())
    return {
        "prompts": len(outcomes),
        "samples": samples,
        "accuracy": fmean(labels) if labels else None,
        "truncated": verdicts["truncated"] / samples,
        "no_answer": verdicts["no_answer"] / samples,
        "timeout": verdicts["timeout"],
        "ungradable": verdicts["ungradable"],
        "groups_all_right": right,
        "groups_all_wrong": wrong,
        "groups_mixed": len(outcomes) - right - wrong - ungraded,
        "mean_length": tokens / samples,
        "response_tokens": tokens,
    }
