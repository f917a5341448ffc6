"""lighteval's AVG@n metric for maths, one sample at a time: the metric that `lighteval_tasks.py` runs for all n."""

from typing import Any

import guard


def load() -> guard.Grade:
    from lighteval.metrics.metrics import Metrics
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc
    from lighteval_tasks import wrap_gold

    metric = Metrics.avg_at_n_math(sample_params={"n": 1}).sample_level_fn

    def grade(job: dict[str, Any]) -> dict[str, Any]:
        """The score of the whole text, thinking included, as avg@n sees it."""
        doc = Doc(query="", choices=[wrap_gold(job["gold"])], gold_index=0, task_name="")
        score = metric.compute(doc=doc, model_response=ModelResponse(text=[job["text"]]))
        found = (doc.specific or {}).get("extracted_predictions")
        return {"label": int(score), "extracted": str(found[0]) if found else None, "reason": None}

    return grade


if __name__ == "__main__":
    guard.serve(load)
