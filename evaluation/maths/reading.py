"""From an answer's text to tokens: LaTeX, plain text and Unicode come out the same. Linear in the text's length.

Nothing here has a meaning yet: typesetting goes, synonyms become one, words are told from letters that stand beside
each other. `syntax` reads the tokens.
"""
# ruff: noqa: RUF001  the table is of characters that look alike

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from erpd_hub.evaluation.maths.nodes import Unreadable
from erpd_hub.evaluation.maths.words import CONNECTORS, FUNCTIONS, NAMES, NUMBER_WORDS, SCALES, WORD_SIGNS


class Token(NamedTuple):
    kind: str
    """`num`, `sym`, `func`, `cmd`, `word` or `op` (then the text is the sign)."""
    text: str
    value: Fraction | None = None
    decimals: int = 0
    spaced: bool = False
    """Whether white space stands before it."""


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
    "₹": "$", "€": "$", "£": "$", "¥": "$",
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (rf"\{name} " for name in NAMES["greek"]), strict=True)),
}  # fmt: skip
_CHARACTERS = str.maketrans(_UNICODE)
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_TYPESETTING = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|boldsymbol|rm|bf|it|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge|mathop|mathstrut|phantom|underline|bm|pmb|emph|checkmark|blacksquare|qed)(?![a-zA-Z])"
    r"|\\(?:text)?color(?:box)?\s*\{\w+\}"
    r"|\\[()\[\]]|\$|\*\*(?=[^*]*$)|^\*\*|\\(?:[,;:!> ]|q?quad(?![a-zA-Z])|hspace\{[^{}]*\}|space(?![a-zA-Z]))|~|`"
)
_NESTED_TEXT = re.compile(r"\\text\s*\{\s*(\\text(?:bf|it|rm)\s*\{[^{}]*\})\s*\}")
_DIGIT_GROUPS = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\;|\\:|\\ |\\!,?|,\\!|~|\u202f|\u2009|\xa0)(?=\d{3}(?!\d))")
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s*\{\d+\})"
    r"|(?P<num>\d+(?:\.\d+)?(?!\d)|\.\d+)"
    r"|(?P<text>\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?)\s*\{[^{}]*\})"
    r"|(?P<boxed>\\(?:boxed|fbox|ensuremath)(?![a-zA-Z]))"
    r"|(?P<cmd>\\[a-zA-Z]+\*?|\\[{}|%$#&_\\])"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<op>\.\.\.|\*\*|<=|>=|!=|==|:=|~=|!!|[-+*/^_=<>(){}\[\]|!,;:%'&.?])"
)
_COMMANDS = {
    "nicefrac": "frac", "sfrac": "frac",
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le",
    "leqslant": "le",
    "geq": "ge", "geqslant": "ge", "neq": "ne", "leqq": "le", "geqq": "ge", "lt": "<", "gt": ">", "cdots": "ldots",
    "dots": "ldots", "dotsc": "ldots", "dotsb": "ldots", "vdots": "ldots", "lbrace": "{", "rbrace": "}",
    "lvert": "|", "rvert": "|",
    "vert": "|", "varnothing": "emptyset", "smallsetminus": "setminus", "backslash": "setminus",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "tg": "tan", "ctg": "cot", "varphi": "phi",
    "varepsilon": "epsilon",
    "vartheta": "theta", "lbrack": "[", "rbrack": "]", "iff": "=", "simeq": "approx", "percent": "%",
    "bmod": "mod", "ast": "cdot",
    "degree": "circ", "imath": "i", "land": "and", "lor": "or", "wedge": "and", "vee": "or", "colon": ":",
    "widehat": "bar", "hat": "bar",
    "overline": "bar", "vec": "bar", "tilde": "bar", "mathcal": "mathbb", "mathscr": "mathbb", "lparen": "(",
    "rparen": ")",
}  # fmt: skip
_SIGNS = {
    "*": "cdot",
    "**": "^",
    "<=": "le",
    ">=": "ge",
    "!=": "ne",
    "==": "=",
    ":=": "=",
    "~=": "approx",
    "...": "ldots",
}
_FRACTION_DIGITS = 1000  # of a decimal: what is longer is no final answer


def tokenise(text: str) -> list[Token]:
    """The tokens of an answer.

    Raises:
        Unreadable: it has a character or a word that means nothing here.
    """
    tokens: list[Token] = []
    prepared, position, spaced = _prepare(text), 0, False
    while position < len(prepared):
        match = _TOKEN.match(prepared, position)
        if match is None:
            raise Unreadable(prepared[position])
        position = match.end()
        if match.lastgroup == "space":
            spaced = True
            continue
        tokens.extend(token._replace(spaced=spaced) if not i else token for i, token in enumerate(_tokens(match)))
        spaced = False
    return tokens


def _prepare(text: str) -> str:
    text = _SUPERSCRIPT_RUN.sub(lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: f"_{{{run[0].translate(_SUBSCRIPTS)}}}", text)
    text = unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)
    text = re.sub(r"\\\\(?=[a-zA-Z])", r"\\", text) if r"\begin" not in text else text
    text = re.sub(r"\\\$", " ", _DIGIT_GROUPS.sub("", text))
    text = re.sub(r"(?<=\d)\s*\{,\}\s*(?=\d)", ", ", text)
    text = _NESTED_TEXT.sub(r"\1", text)
    return _TYPESETTING.sub(" ", text).strip().rstrip("\\" if text.rstrip().endswith("\\\\") else "").rstrip(" .;,")


def _tokens(match: re.Match[str]) -> list[Token]:
    kind, text = match.lastgroup, match[0]
    if kind == "num":
        return [_number(text)]
    if kind == "repeating":
        return [_repeating(text)]
    if kind == "text":
        return _words(text.partition("{")[2][:-1])
    if kind == "letters":
        return _letters(text)
    if kind == "boxed":
        return []
    if kind == "cmd":
        return [_command(text[1:])]
    return [Token("op", _SIGNS.get(text, text))]


def _number(text: str) -> Token:
    decimals = len(text.partition(".")[2])
    if len(text) > _FRACTION_DIGITS * 4:
        raise Unreadable("digits")
    return Token("num", text, Fraction(text), decimals)


def _repeating(text: str) -> Token:
    """`0.1\\overline{6}`"""
    fixed, _, repeated = text.partition("\\")
    digits = repeated.partition("{")[2].rstrip("}")
    whole, _, tail = fixed.partition(".")
    scale = 10 ** len(tail)
    value = Fraction(int((whole + tail) or "0"), scale) + Fraction(int(digits), scale * (10 ** len(digits) - 1))
    return Token("num", text, value)


def _command(name: str) -> Token:
    name = _COMMANDS.get(name.rstrip("*"), name.rstrip("*"))
    if name in CONNECTORS:
        return Token("op", name)
    if name in FUNCTIONS:
        return Token("func", name)
    if name in NAMES["greek"] or name in NAMES["capital greek"] or name in ("ell", "aleph"):
        return Token("sym", name) if name != "pi" else Token("cmd", "pi")
    if len(name) == 1 and not name.isalpha():
        return Token("op", "\\" + name if name in "{}" else name)
    return Token("cmd", name)


def _letters(text: str) -> list[Token]:
    """A run of letters outside `\\text{}`: a word, a function, or symbols side by side."""
    if len(text) == 1:
        return [_letter(text)]
    known = _known_word(text)
    if known is not None:
        return [known]
    for name in ("sqrt", "pi"):  # `2sqrt3`, `5pi`, `sqrtx` have no space between
        if text.startswith(name) and len(text) == len(name) + 1:
            return [*_letters(name), _letter(text[-1])]
    if len(text) <= 3 or text.isupper():
        return [Token("word?", text)]
    return [Token("word", text.casefold())]


def _words(text: str) -> list[Token]:
    """The content of a `\\text{}`."""
    tokens: list[Token] = []
    for word in re.findall(r"[A-Za-z]+|\d+(?:\.\d+)?|[,;%$()=<>+-]|[^\sA-Za-z\d]", text):
        if word[0].isdigit():
            tokens.append(_number(word))
        elif word in (".", "'", '"', "$", "\\", "!", "?", ":", "`", "*"):
            continue
        elif not word[0].isalpha():
            tokens.append(Token("op", word))
        elif len(word) == 1 and len(text.strip()) == 1:
            tokens.append(_letter(word))
        else:
            tokens.append(_known_word(word) or Token("word", word.casefold()))
    return tokens


def _known_word(word: str) -> Token | None:
    lower = word.casefold()
    if lower in CONNECTORS:
        return Token("op", lower, spaced=True)
    if lower in WORD_SIGNS:
        sign = WORD_SIGNS[lower]
        return Token("op", sign) if not sign.isalpha() else Token("cmd", sign)
    if lower in NUMBER_WORDS:
        return Token("num", lower, Fraction(NUMBER_WORDS.index(lower)))
    if lower in SCALES:
        return Token("num", "scale", Fraction(SCALES[lower]))
    if word in _COMMANDS and _COMMANDS[word] in FUNCTIONS:
        return Token("func", _COMMANDS[word])
    if lower in FUNCTIONS:
        return Token("func", lower)
    if lower in ("sqrt", "binom", "frac", "floor", "ceil", "abs", "cbrt", "choose"):
        return Token("cmd", lower)
    if word in NAMES["greek"]:
        return Token("sym", word)
    return None


def _letter(text: str) -> Token:
    return Token("cmd", text) if text in ("e", "i") else Token("sym", text)
