"""lighteval's `custom` model that answers with stored samples, so that what differs from our score is the grader's.

`samples.jsonl` beside tasks.json (see `lighteval_tasks.py`) has one problem a line: problem_id and its texts in order.
"""

import json
import os
from pathlib import Path
from typing import Any

from lighteval.models.abstract_model import LightevalModel
from lighteval.models.custom.custom_model import CustomModelConfig
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc


class _NoCache:
    """lighteval keeps answers on disk and gives them to the next model of the same name; stored samples need none."""

    def _init_registry(self, registry: Any) -> None:
        pass


class StoredSamples(LightevalModel):
    """Generates by reading; what the base class demands besides, none of our tasks asks for."""

    def __init__(self, config: CustomModelConfig) -> None:
        self.config = config
        self._cache = _NoCache()
        path = Path(os.environ["ERPD_LIGHTEVAL_TASKS"]).with_name("samples.jsonl")
        with path.open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        self._texts = {row["problem_id"]: row["texts"] for row in rows}

    @property
    def tokenizer(self) -> Any:
        raise NotImplementedError("stored samples are texts")

    @property
    def add_special_tokens(self) -> bool:
        return False

    @property
    def max_length(self) -> int:
        return 1 << 20

    def greedy_until(self, docs: list[Doc]) -> list[ModelResponse]:
        """All samples of each problem.

        Raises:
            KeyError: a problem that nothing is stored for; an empty answer in its place would be graded wrong.
        """
        return [
            ModelResponse(input=doc.query, text=self._texts[(doc.specific or {})["problem_id"]][: doc.num_samples])
            for doc in docs
        ]

    def loglikelihood(self, docs: list[Doc]) -> list[ModelResponse]:
        raise NotImplementedError("stored samples have no log-probs of other answers")

    def loglikelihood_rolling(self, docs: list[Doc]) -> list[ModelResponse]:
        raise NotImplementedError("stored samples have no log-probs of other answers")
