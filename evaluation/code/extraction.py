"""The program in a response: LiveCodeBench's rule, applied to what follows the thinking."""


def extract_program(text: str, *, thinking: bool) -> str | None:
    """What lies between the last two lines with a fence after the last `</think>`; None without.

    Args:
        thinking: Whether the prompt opened a think block: without `</think>` the response then has no program.
    """
    _, closed, answer = text.rpartition("</think>")
    if thinking and not closed:
        return None
    lines = answer.split("\n")
    fences = [index for index, line in enumerate(lines) if "```" in line]
    if len(fences) < 2:
        return None
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) or None
