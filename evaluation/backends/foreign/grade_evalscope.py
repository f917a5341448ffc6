"""evalscope's grader of contest maths: the two calls that its adapters make for one sample."""

from typing import Any

import guard


def load() -> guard.Grade:
    from evalscope.metrics.math.contracts import MathEvaluationError
    from evalscope.metrics.math.parser import compare_answers, extract_answer

    def grade(job: dict[str, Any]) -> dict[str, Any]:
        """Extract from the whole text and compare; `integer` as its AIME benchmarks do. The excluded have no label."""
        try:
            extracted = extract_answer(job["text"])
            result = compare_answers(extracted, job["gold"], integer_only=job["integer"])
        except MathEvaluationError as error:
            return {"label": None, "extracted": None, "reason": f"excluded: {error}"[:300]}
        return {"label": int(result.matched), "extracted": extracted or None, "reason": result.reason}

    return grade


if __name__ == "__main__":
    guard.serve(load)
