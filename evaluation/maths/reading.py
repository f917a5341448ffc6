"""From an answer's text to tokens: LaTeX, plain text and Unicode come out the same. Linear in the text's length.

Nothing here has a meaning yet: synonyms become one, words are told from letters that stand beside each other. `syntax`
reads the tokens.
"""

import re
from fractions import Fraction
from typing import NamedTuple

from erpd_hub.evaluation.maths.nodes import Unreadable
from erpd_hub.evaluation.maths.typesetting import plain_text
from erpd_hub.evaluation.maths.words import CONNECTORS, FUNCTIONS, NAMES, NUMBER_WORDS, SCALES, WORD_SIGNS


class Token(NamedTuple):
    kind: str
    """`num`, `sym`, `func`, `cmd`, `word` or `op` (then the text is the sign)."""
    text: str
    value: Fraction | None = None
    decimals: int = 0
    spaced: bool = False
    """Whether white space stands before it."""


_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<repeating>\d*\.\d*\\(?:overline|bar|dot)\s*\{\d+\})"
    r"|(?P<num>\d+(?:\.\d+)?(?!\d)|\.\d+)"
    r"|(?P<text>\\(?:text(?:bf|it|rm|normal|sf|tt)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?)\s*\{[^{}]*\})"
    r"|(?P<boxed>\\(?:boxed|f(?:rame)?box|ensuremath)(?![a-zA-Z]))"
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
    "overline": "bar", "vec": "bar", "tilde": "bar", "mathcal": "mathbb", "mathscr": "mathbb", "Bbb": "mathbb",
    "lparen": "(", "rparen": ")", "longmapsto": "mapsto",
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
    prepared, position, spaced = plain_text(text), 0, False
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
        elif word in (".", "'", '"', "$", "\\", "!", "?", "`", "*"):
            continue
        elif word == ":" and not (tokens and tokens[-1].kind == "word"):
            continue  # but "Maximum: 8"
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
    if lower in ("mod", "modulo"):
        return Token("cmd", "mod")
    if lower in ("sqrt", "binom", "frac", "floor", "ceil", "abs", "cbrt", "choose", "max", "gcd", "lcm"):
        return Token("cmd", lower)
    if word in NAMES["greek"]:
        return Token("sym", word)
    return None


def _letter(text: str) -> Token:
    return Token("cmd", text) if text in ("e", "i") else Token("sym", text)
