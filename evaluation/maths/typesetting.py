"""An answer's text without how it is typeset: Unicode as LaTeX, no colours and check marks, no Chinese counters."""
# ruff: noqa: RUF001  the tables are of characters that look alike

import re
import unicodedata

from erpd_hub.evaluation.maths.words import NAMES

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_UNICODE = {
    "√": r"\sqrt ", "∛": r"\sqrt[3]", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/",
    "∕": "/", "⁄": "/", "−": "-", "–": "-", "‐": "-", "‑": "-", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "±": r"\pm ",
    "∓": r"\mp ", "°": r"^\circ ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "≈": r"\approx ",
    "…": r"\ldots ", "⋯": r"\ldots ", "∖": r"\setminus ", "“": "", "”": "", "’": "'", "\u200b": "", "\u2061": "",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "、": ",", "和": r"\text{ and }", "或": r"\text{ or }", "₹": "$", "€": "$", "£": "$", "¥": "$",
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (rf"\{name} " for name in NAMES["greek"]), strict=True)),
}  # fmt: skip
_CHARACTERS = str.maketrans(_UNICODE)
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_TYPESETTING = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|boldsymbol|rm|bf|it|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge|mathop|mathstrut|phantom|underline|bm|pmb|emph)(?![a-zA-Z])"
    r"|\\(?:text)?color(?:box)?\s*\{\w+\}"
    r"|\\[()\[\]]|\$|\*\*(?=[^*]*$)|^\*\*|\\(?:[,;:!> ]|q?quad(?![a-zA-Z])|hspace\{[^{}]*\}|space(?![a-zA-Z]))|~|`"
)
_NESTED_TEXT = re.compile(r"\\text\s*\{\s*(\\text(?:bf|it|rm)\s*\{[^{}]*\})\s*\}")
_DIGIT_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\;|\\:|\\ |\\!,?|,\\!|~|\u202f|\u2009|\xa0)(?=\d{3}(?!\d))")


_MARKED = re.compile(r"\s*\*([^*]*)\*\s*")
_MARKS_AFTER = re.compile(
    r"(?:\\[,;:! ]|\s|(?<!\\)\$|\\(?:checkmark|blacksquare|[sS]quare|Box|qed)(?![a-zA-Z])|[✓✔✅■□∎\ufe0f])+$"
)
_CHINESE = re.compile("[\u3040-\u30ff\u3400-\u9fff]")
_CHINESE_LEAD = re.compile(
    "^[\\s:]*(?:最终|最后|正确|答案|答|结果|总数|总和|最大值|最小值|因此|所以|故|即|共有|一共|总共|共|有|等于|应为|应该|应|就|是|为|:|\\s)+"
)
_CHINESE_UNIT = re.compile(
    "(?:个|個|种|種|元|美元|美分|人|名|位|次|组|对|条|张|天|岁|小时|分钟|秒|厘米|千米|公里|平方米|立方米|米|千克|公斤|克|"
    "度|页|块|本|只|支|棵|辆|件|步|点|分|通り|つ|円|本|枚)[。.]?$"
)


def plain_text(text: str) -> str:
    """A text as LaTeX and ASCII, without what changes its looks alone."""
    text = _MARKS_AFTER.sub("", text)
    text = _SUPERSCRIPT_RUN.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: f"_{{{run[0].translate(_SUBSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)
    text = _without_chinese(re.sub(r"(?i)\bnon-(?=[a-z])", "non", text))
    text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text) if r"\begin" not in text else text
    text = re.sub(r"\\\$", " ", _DIGIT_GROUPS.sub("", text))
    text = re.sub(r"(?<=\d)\s*\{,\}\s*(?=\d)", ", ", text)
    text = _NESTED_TEXT.sub(r"\1", text)
    if marked := _MARKED.fullmatch(text):
        text = marked[1]
    return _TYPESETTING.sub(" ", text).strip().rstrip("\\" if text.rstrip().endswith("\\\\") else "").rstrip(" .;,")


def _without_chinese(text: str) -> str:
    """Without words that lead to a number and counters after it, where these are all the Chinese there is."""
    if not _CHINESE.search(text):
        return text
    bare = _CHINESE_LEAD.sub("", re.sub(r"\\text(?:bf|rm)?\s*\{([^{}]*)\}", r"\1", text))
    bare = _CHINESE_UNIT.sub("", bare.strip().strip("$").strip())
    return text if _CHINESE.search(bare) else bare
