"""What a problem asks: its prompt without the chat template and the instruction that every prompt has around it."""

import re
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from data import Source
from places import Row, checkpoint_place, details_place
from tokens import decoded, tokenizer_of

SHOWN = 70
"""Characters of a question in a menu."""
SPECIAL = re.compile(r"<[|\uff5c][^<>]{1,60}[|\uff5c]>")


def questions(source: Source, score: Row, problems: Sequence[str]) -> dict[str, str]:
    """The questions of these problems as one checkpoint was asked them; none where its prompts are not published."""
    details = details_place(score)
    prompts = source.prompts(details, tuple(problems)) if details else {}
    return framed(tokenizer_of(source, checkpoint_place(score)), prompts) if any(prompts.values()) else {}


def framed(tokenizer: Tokenizer | None, prompts: Mapping[str, list[int] | None]) -> dict[str, str]:
    """The questions of prompts given as token ids."""
    texts = {problem: decoded(tokenizer, ids) for problem, ids in prompts.items()}
    return without_frame({problem: text for problem, text in texts.items() if text})


def without_frame(prompts: Mapping[str, str]) -> dict[str, str]:
    """The prompts without what all share before and after the question; one alone without its special tokens."""
    texts = list(dict.fromkeys(prompts.values()))
    if len(texts) < 2:
        return {problem: SPECIAL.sub(" ", text).strip() for problem, text in prompts.items()}
    before, after = len(_before(texts)), len(_after(texts))
    return {problem: text[before : len(text) - after].strip() for problem, text in prompts.items()}


def beginning(question: str) -> str:
    """One line of a menu."""
    line = " ".join(question[: 4 * SHOWN].split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN].rstrip()}…"


def _before(texts: Sequence[str]) -> str:
    """What all begin with, up to the end of a line or of a special token: questions may begin alike."""
    return re.sub(r"[^\n>]*\Z", "", _shared(texts))


def _after(texts: Sequence[str]) -> str:
    """What all end with, from a line or a special token on, and never into what they begin with."""
    room = min(map(len, texts)) - len(_before(texts))
    shared = _shared([text[::-1] for text in texts])[::-1]
    shared = shared[max(0, len(shared) - room) :]
    return re.sub(r"\A[^\n<]*", "", shared)


def _shared(texts: Sequence[str]) -> str:
    """The characters that all begin with."""
    first, last = min(texts), max(texts)
    return first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
