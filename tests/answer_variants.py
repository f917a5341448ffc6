"""Right and wrong answers made from golds, in the ways that models write them.

Only rewriting that is certain is done: typesetting, other names for the same number, orders that do not matter; and for
wrong answers one number, sign, bracket or item changed. Draws come from a seed, so a set is the same every time.
"""
# ruff: noqa: RUF001  lists of forms, one kind a line, with the characters that models write

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

GOLD_COLUMNS = {
    "HuggingFaceH4__aime_2024": "answer",
    "MathArena__aime_2025": "answer",
    "MathArena__hmmt_feb_2024": "answer",
    "MathArena__hmmt_feb_2025": "answer",
    "MathArena__hmmt_nov_2025": "answer",
    "MathArena__hmmt_feb_2026": "answer",
    "ByteDance-Seed__BeyondAIME": "answer",
    "Hwilner__imo-answerbench__v2": "Short Answer",
    "openai__gsm8k__main__test": "answer",
    "agentica-org__DeepScaleR-Preview-Dataset__sample": "answer",
    "roll_math_deepmath_deal__sample": "ground_truth",
}
_INTEGER = re.compile(r"-?\d+")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d+)\}\{(\d+)\}|(-?)(\d+)/(\d+)")
_SYMBOL = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z](?![a-zA-Z])")


def read_golds(folder: Path) -> dict[str, list[str]]:
    """Golds of every file that is there, without repeats, delimiters and full stops."""
    found = {}
    for name, column in GOLD_COLUMNS.items():
        if (path := folder / f"{name}.jsonl").is_file():
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            golds = [str(row[column]).rpartition("####")[2].strip().strip("$").strip(" .") for row in rows]
            found[name] = list(dict.fromkeys(gold.replace("{,}", "") for gold in golds if gold))
    return found


def is_maths(gold: str) -> bool:
    """Whether a gold is one of those that are rewritten: no words in it, and nothing left open."""
    without = re.sub(r"\\(?:text|mathrm)\{[^{}]*\}|\\[a-zA-Z]+", " ", gold)
    return not re.search(r"[A-Za-z]{4,}|\$", without) and "\\text" not in gold and "begin" not in gold


def right_answers(gold: str, rng: random.Random, count: int) -> list[str]:
    return _some(list(dict.fromkeys([*_exact_forms(gold), *_typeset(gold)])), rng, count)


def wrong_answers(gold: str, rng: random.Random, count: int) -> list[str]:
    return _some([wrong for wrong in dict.fromkeys(_near_misses(gold)) if wrong != gold], rng, count)


def _some(forms: list[str], rng: random.Random, count: int) -> list[str]:
    return forms if len(forms) <= count else rng.sample(forms, count)


def _typeset(gold: str) -> Iterator[str]:
    yield from (gold, f"${gold}$", f"\\({gold}\\)", f"\\displaystyle {gold}", f"{gold}.", f" {gold} ", f"{{{gold}}}")
    yield from (gold.replace("\\frac", "\\dfrac"), gold.replace("\\frac", "\\tfrac"), gold.replace(" ", ""))
    yield from (gold.replace("(", "\\left(").replace(")", "\\right)"), f"\n{gold}\n", f"\\text{{Answer: }} {gold}")
    yield from (_unicode(gold), _plain(gold), gold.replace("\\cdot", "\\times"))
    if not re.search(r"[=<>,]|\\[lg]eq?\b|\\in\b|\\cup|\\text", gold):
        yield from (
            f"x = {gold}" if "x" not in gold else gold,
            f"\\textbf{{Answer:}} {gold}",
            f"\\frac{{2({gold})}}{{2}}",
        )
        yield from (f"-(-({gold}))", f"\\boxed{{{gold}}}", f"\\mathbf{{{gold}}}" if "{" not in gold else gold)
        if not _SYMBOL.search(gold) and "\\circ" not in gold and "%" not in gold:
            yield from (f"{gold}\\text{{ cm}}^2", f"{gold}\\ \\mathrm{{units}}", f"{gold}\\text{{ ways}}")


def _unicode(gold: str) -> str:
    gold = re.sub(r"\\sqrt\{(\w+)\}", r"√\1", gold).replace("\\cdot", "·").replace("\\pi", "π").replace("-", "−")
    return re.sub(r"\^\{?2\}?(?!\d)", "²", gold.replace("\\infty", "∞").replace("\\cup", "∪"))


def _plain(gold: str) -> str:
    for _ in range(3):
        gold = re.sub(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", gold)
        gold = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", gold)
        gold = re.sub(r"\^\{([^{}]*)\}", r"^(\1)", gold)
    return gold.replace("\\cdot", "*").replace("\\pi", "pi").replace("\\left", "").replace("\\right", "")


def _exact_forms(gold: str) -> Iterator[str]:
    if _INTEGER.fullmatch(gold):
        yield from _integer_forms(gold)
    elif match := _FRACTION.fullmatch(gold):
        sign, top, bottom = (group or "" for group in (match.groups()[:3] if match[2] else match.groups()[3:]))
        yield from _fraction_forms(sign, int(top), int(bottom))
    elif items := _items(gold):
        yield from _list_forms(items)
    elif "\\pm" not in gold and re.fullmatch(r"\((?:[^()]|\([^()]*\))*,(?:[^()]|\([^()]*\))*\)", gold):
        yield from (gold[1:-1], f"({', '.join('abcdefgh'[: gold.count(',') + 1])}) = {gold}")


def _integer_forms(gold: str) -> Iterator[str]:
    yield from (
        f"{gold}.0",
        f"{gold}.00",
        f"n = {gold}",
        f"m+n={gold}",
        f"{gold}^\\circ",
        f"{gold} dollars",
        f"\\${gold}",
    )
    yield from (f"\\text{{{gold}}}", f"{gold} \\text{{ units}}", f"= {gold}", f"\\text{{The answer is }} {gold}")
    value = int(gold)
    yield from (
        f"{value:,}",
        f"{value:,}".replace(",", "{,}"),
        f"{value:,}".replace(",", "\\,"),
        f"0{gold}"[value < 0 :],
    )
    yield from (f"\\frac{{{2 * value}}}{{2}}", f"{value - 1} + 1 = {value}", f"\\{{{gold}\\}}")


def _fraction_forms(sign: str, top: int, bottom: int) -> Iterator[str]:
    yield from (
        f"{sign}{top}/{bottom}",
        f"{sign}\\frac{{{3 * top}}}{{{3 * bottom}}}",
        f"p = {sign}\\frac{{{top}}}{{{bottom}}}",
    )
    yield from (
        f"\\frac{{{sign}{top}}}{{{bottom}}}",
        f"{sign}{top} / {bottom}",
        f"{sign}\\frac{{{top}}}{{{bottom}}} \\approx 0.12",
    )
    if 10**9 % bottom == 0:
        yield f"{sign}{top / bottom:.9f}".rstrip("0")
    if top > bottom > 1:
        yield f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}"


def _items(gold: str) -> list[str]:
    """Items of a list without brackets of any kind around parts of it."""
    if (
        re.fullmatch(r"\d{1,3}(?:,\d{3})+", gold)
        or re.search(r"[()\[\]<>=]|\\[lg]eq?|dots|\\\{", gold)
        or "," not in gold
    ):
        return []
    return [item.strip() for item in gold.split(",")]


def _list_forms(items: list[str]) -> Iterator[str]:
    turned = items[::-1]
    yield from (", ".join(turned), f"\\{{{', '.join(items)}\\}}", "; ".join(items))
    yield ", ".join(turned[:-1]) + f", \\text{{ and }} {turned[-1]}"
    yield from ("t = " + " \\text{ or } t = ".join(items), f"t \\in \\{{{','.join(turned)}\\}}")


def _near_misses(gold: str) -> Iterator[str]:
    for match in list(re.finditer(r"(?<![.\d])\d+(?!\.)", gold))[:4]:
        for other in (int(match[0]) + 1, int(match[0]) * 10, int(match[0]) - 1):
            yield gold[: match.start()] + str(other) + gold[match.end() :]
    if gold not in ("0", "(0, 0)", "\\infty") and not re.search(r"[,=<>]|\\[lg]eq?|\\cup|\\in|\\pm|i\\sqrt", gold):
        yield from (f"-({gold})", f"2({gold})", f"{gold} + 10^{{-9}}", f"{gold}\\pi")
        yield from (f"{gold}, 7777", f"\\pm ({gold})", f"{gold} \\text{{ if }} n \\text{{ is odd}}")
    if "+" in gold and not re.search(r"[=<>,]", gold):
        yield gold.replace("+", "-", 1)
    if re.fullmatch(r"\\frac\{(\d+)\}\{(\d+)\}", gold):
        top, bottom = re.findall(r"\d+", gold)
        yield from (f"\\frac{{{bottom}}}{{{top}}}", f"{int(top) / int(bottom):.2f}1")
    if items := _items(gold):
        yield from (", ".join(items[1:]), ", ".join([*items, "7777"]), f"({', '.join(reversed(items))}, 1)")
    if re.fullmatch(r"\(\d+(?:, ?\d+)+\)", gold):
        yield f"\\{{{gold[1:-1]}\\}}"
        numbers = re.findall(r"\d+", gold)
        if numbers != numbers[::-1]:
            yield f"({', '.join(numbers[::-1])})"
    if re.search(r"^[\[(].*\\infty|\\infty.*[\])]$", gold) and "cup" not in gold:
        yield gold.translate(str.maketrans("()[]", "[]()"))
