"""Model text as HTML: every character escaped, mathematics as MathML, thoughts folded.

Text of a model is hostile. It gets here as data and leaves as escaped characters, or as MathML whose elements and
attributes are on a list; nothing of it is ever read as HTML or Markdown.
"""

from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markupsafe import Markup, escape

SHOWN = 40_000
"""Characters of a response that are shown, half from its beginning and half from its end."""

LONGEST_FORMULA = 1_000
MOST_FORMULAS = 400
BOXED = "\\boxed{"
"""Begins a formula wherever it stands: models write their answers so, outside of any delimiters as well."""
DELIMITERS = (("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False), ("$", "$", False))

MATHML = "{http://www.w3.org/1998/Math/MathML}"
ELEMENTS = frozenset(
    {
        "math", "mi", "mn", "mo", "ms", "mtext", "mspace", "mrow", "mfrac", "msqrt", "mroot", "mstyle", "merror",
        "mpadded", "mphantom", "mfenced", "menclose", "msub", "msup", "msubsup", "munder", "mover", "munderover",
        "mmultiscripts", "mtable", "mtr", "mtd",
    }
)  # fmt: skip
ATTRIBUTES = frozenset(
    {
        "display", "displaystyle", "mathvariant", "stretchy", "fence", "form", "lspace", "rspace", "minsize",
        "maxsize", "separator", "linethickness", "notation", "columnalign", "rowspacing", "columnspacing",
        "columnlines", "rowlines", "width", "height", "depth", "movablelimits", "accent",
    }
)  # fmt: skip


def response(text: str) -> Markup:
    """A response: the thoughts before the last `</think>` folded, the rest open."""
    thoughts, marker, answer = text.rpartition("</think>")
    if not marker:
        return Markup('<div class="answer">{}</div>').format(prose(text))
    thoughts = thoughts.removeprefix("<think>").strip()
    summary = f"thinking, {len(thoughts):,} characters"
    folded = Markup("<details><summary>{}</summary><div>{}</div></details>").format(summary, prose(thoughts))
    return Markup('{}<div class="answer">{}</div>').format(folded, prose(answer.strip()))


def prose(text: str) -> Markup:
    """Text with its formulas as MathML; of a long one the beginning and the end, and how much is left out."""
    if len(text) <= SHOWN:
        return _with_formulas(text)
    left_out = len(text) - SHOWN
    gap = Markup('<p class="gap">… {} characters left out …</p>').format(f"{left_out:,}")
    return _with_formulas(text[: SHOWN // 2]) + gap + _with_formulas(text[-(SHOWN // 2) :])


def formula(tex: str, *, display: bool = False) -> Markup:
    """TeX as MathML; as it is written where it cannot be read."""
    try:
        tree = ElementTree.fromstring(convert(tex, display="block" if display else "inline"))
        return Markup(ElementTree.tostring(_allowed(tree), encoding="unicode"))
    except Exception:  # the converter raises whatever its tables run into; the text is shown instead
        return Markup("<code>{}</code>").format(tex)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, kind: str = "") -> Markup:
    """A table of escaped cells; a cell that is `Markup` goes in as it is."""
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in headers)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in rows
    )
    return Markup(
        '<div class="scroll"><table class="erpd {}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(kind, head, body)


def link(url: str, text: str) -> Markup:
    """A link to a page of the Hub that is opened beside this one."""
    return Markup('<a href="{}" target="_blank" rel="noopener noreferrer">{}</a>').format(url, text)


def badge(text: str, kind: str = "") -> Markup:
    return Markup('<span class="badge {}">{}</span>').format(kind or text, text)


def notice(sentences: Iterable[str]) -> Markup:
    """What is missing, one sentence a line; nothing where nothing is."""
    lines = list(dict.fromkeys(sentences))
    if not lines:
        return Markup("")
    return Markup('<div class="notice">{}</div>').format(Markup("<br>").join(escape(line) for line in lines))


def _with_formulas(text: str) -> Markup:
    return Markup("").join(
        formula(piece, display=display) if is_formula else escape(piece) for piece, is_formula, display in _pieces(text)
    )


def _pieces(text: str) -> Iterator[tuple[str, bool, bool]]:
    """(text, whether it is a formula, whether displayed), in order. Looks LONGEST_FORMULA ahead at most."""
    start = position = formulas = 0
    while position < len(text) and formulas < MOST_FORMULAS:
        found = _formula_at(text, position) if text[position] in "$\\" else None
        if found is None:
            position += 2 if text[position] == "\\" else 1
            continue
        inside, end, display = found
        yield text[start:position], False, False
        yield inside, True, display
        start = position = end
        formulas += 1
    yield text[start:], False, False


def _formula_at(text: str, position: int) -> tuple[str, int, bool] | None:
    """The formula that begins here, where it ends, and whether it is displayed."""
    if text.startswith(BOXED, position):
        end = _closing_brace(text, position + len(BOXED))
        return (text[position:end], end, False) if end else None
    for opening, closing, display in DELIMITERS:
        if not text.startswith(opening, position):
            continue
        begin = position + len(opening)
        end = text.find(closing, begin, begin + LONGEST_FORMULA)
        inside = text[begin:end]
        if end < 0 or not inside.strip():
            return None
        follows = text[end + len(closing) : end + len(closing) + 1]
        if opening == "$" and (inside[0].isspace() or inside[-1].isspace() or follows.isdigit() or "\n\n" in inside):
            return None  # an amount of money
        return inside, end + len(closing), display
    return None


def _closing_brace(text: str, start: int) -> int | None:
    """Behind the brace that closes the one before `start`; looks LONGEST_FORMULA ahead at most."""
    depth = 1
    for position in range(start, min(len(text), start + LONGEST_FORMULA)):
        if text[position] in "{}" and text[position - 1] != "\\":
            depth += 1 if text[position] == "{" else -1
        if depth == 0:
            return position + 1
    return None


def _allowed(element: ElementTree.Element) -> ElementTree.Element:
    """A copy with the listed elements and attributes; another element becomes a row of its children."""
    name = element.tag.removeprefix(MATHML)
    attributes = {key: value for key, value in element.attrib.items() if key in ATTRIBUTES}
    copy = ElementTree.Element(name if name in ELEMENTS else "mrow", attributes)
    copy.text, copy.tail = element.text, element.tail
    copy.extend(_allowed(child) for child in element)
    return copy
