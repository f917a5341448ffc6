"""evalscope's grader of contest maths: the calls by which a response becomes a score in a run of its own."""

from typing import Any

import guard


def load() -> guard.Grade:
    from evalscope.api.messages import parse_content_with_reasoning
    from evalscope.metrics.math.contracts import MathEvaluationError
    from evalscope.metrics.math.parser import compare_answers, extract_answer

    def grade(job: dict[str, Any]) -> dict[str, Any]:
        """Extract from what follows a `<think>` block and compare; `integer` as its AIME benchmarks do.

        The excluded have no label.
        """
        try:
            text, _ = parse_content_with_reasoning(job["text"])
            extracted = extract_answer(text)
            result = compare_answers(extracted, job["gold"], integer_only=job["integer"])
        except MathEvaluationError as error:
            return {"label": None, "extracted": None, "reason": f"excluded: {error}"[:300]}
        return {"label": int(result.matched), "extracted": extracted or None, "reason": result.reason}

    return grade


if __name__ == "__main__":
    guard.serve(load)
