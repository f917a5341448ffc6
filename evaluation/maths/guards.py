"""What no second opinion may overrule: an answer that says more than the maths in it, or another kind of thing."""

import re
from collections.abc import Iterator

from erpd_hub.evaluation.maths.comparing import compare
from erpd_hub.evaluation.maths.nodes import Unreadable
from erpd_hub.evaluation.maths.words import FUNCTIONS, REFUSED

_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\(?:text|math)(?:bf|it|rm|sf|normal)?\s*\{|\\[A-Za-z]+")
_DOTS = re.compile(r"\\[lc]?dots(?![a-z])|\.\.\.|\u2026")
_BASE = re.compile(r"\d\s*_\s*\{?\s*(\d+)")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)[\s{}$~]*([A-Za-z]{2,})?")
_TEXT = re.compile(r"\\(?:text|math)(?:bf|it|rm|sf|normal)?\s*\{|\\[,;:! ]")
_TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf|normal)?|mathrm|mbox)\s*\{([^{}]*)\}")
_BRACKETED = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_HEDGE = re.compile(r"\b(?:or|and|also|but|maybe|perhaps|possibly|probably|alternatively)\b", re.IGNORECASE)
_RATIO = re.compile(r"[0-9]{1,18}(?:\s*:\s*[0-9]{1,18})+")
_MAX_CHARACTERS = 600
_MAX_DEPTH = 20
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SEVERAL = re.compile(r"[,;]|\b(?:and|or)\b")


def refuses(gold: str, answer: str) -> bool:
    """Whether an answer that the reader cannot read is not to be accepted for the maths in it.

    It has a word that changes what is said (`5 if n is odd`), it lists several things with numbers where the gold has
    one, or one in two units (`5 feet 6 inches`), it names another number beside it (`5 (or 6)`), it has dots, primes or
    a base that the gold has not, it is longer or deeper than any answer that algebra could read in good time, it is a
    set where the gold is a tuple, or an interval has other brackets.
    """
    if len(answer) > _MAX_CHARACTERS or _depth(answer) > _MAX_DEPTH:
        return True
    if _words(answer) & REFUSED - _words(gold) or (_numbers(answer) > 1 and not re.search("[,;]", gold)):
        return True
    if _marks(answer) - _marks(gold) or (len(_amounts(gold)) == 1 and len(_amounts(answer)) > 1):
        return True
    if any(not _is_said_by(gold, aside) for aside in _asides(answer)):
        return True
    ratios = _ratio(gold), _ratio(answer)
    if ratios[0] and ratios[1] and not _are_proportional(*ratios):
        return True
    kinds = _kind(gold), _kind(answer)
    return None not in kinds and kinds[0] != kinds[1]


def _ratio(text: str) -> list[int]:
    """The parts of `3 : 4 : 5`; none for what is no ratio of whole numbers."""
    bare = _TEXT.sub("", text).replace("$", "").strip()
    return [int(part) for part in bare.split(":")] if _RATIO.fullmatch(bare) else []


def _are_proportional(ratio: list[int], other: list[int]) -> bool:
    return len(ratio) == len(other) and all(
        part * other[0] == ratio[0] * same for part, same in zip(ratio, other, strict=True)
    )


def _depth(text: str) -> int:
    """How many brackets are open at once."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(_COMMAND.sub(" ", text))}


def _marks(text: str) -> set[str]:
    """What says more than the number or list that it stands at: dots, a prime, a base other than ten."""
    found = {"dots"} if _DOTS.search(text) else set()
    if re.search(r"\d\s*(?:'|\^\s*\{?\s*\\prime)", text):
        found.add("prime")
    if any(base != "10" for base in _BASE.findall(text)):
        found.add("base")
    return found


def _amounts(text: str) -> list[str]:
    """The numbers of a text of numbers and words alone: `5 feet 6 inches` has two."""
    bare = _TEXT.sub(" ", text)
    parts = _AMOUNT.findall(bare)
    rest = _WORD.sub(" ", _AMOUNT.sub(" ", bare))
    plain = not re.search(r"[^\s{}$.~,]", rest) and all(word for _, word in parts[:-1])
    named = any(word.casefold() in FUNCTIONS | {"sqrt", "pi"} for _, word in parts)
    return [] if named or not plain else [digits for digits, _ in parts]


def _asides(text: str) -> Iterator[str]:
    """What a text says behind its first number in words, in brackets with words, or after `or` and its like."""
    yield from _TEXT_COMMAND.findall(_after_number(text))
    rest = _after_number(_TEXT_COMMAND.sub(r" \1 ", text))
    yield from (inside for inside in _BRACKETED.findall(rest) if _words(inside))
    if hedge := _HEDGE.search(rest):
        yield rest[hedge.end() :].rstrip(" .)]")


def _after_number(text: str) -> str:
    """What follows the first number."""
    first = _NUMBER.search(text)
    return text[first.end() :] if first else ""


def _is_said_by(gold: str, aside: str) -> bool:
    """Whether an aside has no number, the gold itself once more, or of several golds one."""
    numbers = set(_NUMBER.findall(aside))
    if not numbers or (_SEVERAL.search(gold) and numbers <= set(_NUMBER.findall(gold))):
        return True
    maths = re.search(r"[-\\\d].*", _WORD.sub(" ", aside), re.DOTALL)
    try:
        return maths is not None and compare(gold, maths[0].rstrip(" .,:;)]")) is True
    except (Unreadable, RecursionError):
        return False


def _kind(text: str) -> tuple[str, str] | None:
    """The outermost brackets, where they hold a list of two or more."""
    bare = re.sub(r"\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|\\[,;!:]|\s|\$", "", text).replace("\\lbrace", "\\{")
    for opening in ("\\{", "(", "["):
        if bare.startswith(opening):
            closing = bare[-2:] if bare.endswith("\\}") else bare[-1:]
            inner = bare[len(opening) : -len(closing)]
            return (opening, closing) if closing in (")", "]", "\\}") and _splits(inner) else None
    return None


def _numbers(text: str) -> int:
    """How many parts between commas outside all brackets hold a digit; thousands separators do not count."""
    depth, parts = 0, [""]
    for character in re.sub(r"(?<=\d),(?=\d{3}(?!\d))|\{,\}", "", text):
        depth += (character in "([{") - (character in ")]}")
        if character in ",;" and depth <= 0 and not parts[-1].endswith("\\"):
            parts.append("")
        else:
            parts[-1] += character
    return sum(any(character.isdigit() for character in part) for part in parts)


def _splits(inner: str) -> bool:
    """Whether a text has a comma outside all brackets, and no bracket that closes before it was opened."""
    depth, commas = 0, 0
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        commas += character == "," and depth == 0
        if depth < 0:
            return False
    return commas > 0
