"""The program in a response: LiveCodeBench's rule, applied to what follows the thinking."""

from erpd_hub.evaluation.answers import after_thinking


def extract_program(text: str, *, thinking: bool) -> str | None:
    """What lies between the last two lines with a fence after the last `</think>`; None without.

    Args:
        thinking: Whether the prompt opened a think block: without `</think>` the response then has no program, nor has
            one that opened a block itself.
    """
    answer = after_thinking(text, thinking=thinking)
    if answer is None:
        return None
    lines = answer.split("\n")
    fences = [index for index, line in enumerate(lines) if "```" in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) or None
