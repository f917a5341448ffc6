"""Custom tasks for lighteval: our benchmarks as data, `lighteval ... "erpd_NAME|0" --custom-tasks lighteval_tasks.py`.

`tasks.json` beside this file (or where ERPD_LIGHTEVAL_TASKS says) lists them; the problems lie in folders beside it,
one JSON object a line: problem_id, problem (the whole prompt), gold. `erpd-hub backends tasks` writes such a folder.
The file needs lighteval 0.13 and nothing else.
"""

import json
import os
from pathlib import Path
from typing import Any

from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc


def wrap_gold(gold: str) -> str:
    """A gold as lighteval's parser wants it: it reads maths between dollars only, a bare number as well."""
    return gold if "$" in gold else f"${gold}$"


def prompt(line: dict[str, Any], task_name: str) -> Doc:
    return Doc(
        task_name=task_name,
        query=line["problem"],
        choices=[wrap_gold(line["gold"])],
        gold_index=0,
        specific={"problem_id": line["problem_id"]},
    )


def _task(entry: dict[str, Any], folder: Path) -> LightevalTaskConfig:
    return LightevalTaskConfig(
        name=f"erpd_{entry['name']}",
        prompt_function=prompt,
        hf_repo=str(folder / entry["name"]),
        hf_subset="default",
        hf_avail_splits=["train"],
        evaluation_splits=["train"],
        metrics=[Metrics.avg_at_n_math(sample_params={"n": entry["k"]})],
        generation_size=entry["max_new_tokens"],
        stop_sequence=entry["stop"],
        version=entry["version"],
    )


def _tasks() -> list[LightevalTaskConfig]:
    path = Path(os.environ.get("ERPD_LIGHTEVAL_TASKS") or Path(__file__).with_name("tasks.json"))
    if not path.is_file():  # the file is also imported for `wrap_gold`
        return []
    return [_task(entry, path.parent) for entry in json.loads(path.read_text(encoding="utf-8"))]


TASKS_TABLE = _tasks()
