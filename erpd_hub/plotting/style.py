"""How our pictures look, and how they are written.

Colours are Okabe and Ito's, told apart by colour-blind readers; lines differ by dash and points by shape as well, for
print in grey. Text is at least 7 points at the width of a page. The same data give the same bytes: no dates, no ids by
chance, matplotlib's own font, no settings of the user's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00")
"""Okabe and Ito's, without the black that bases have, and with a darker yellow that shows on white."""
MARKERS = "osD^vPX<>hp"
DASHES = {"base": "", "unlearned": "", "endpoint": "", "teacher": "-", "student": "--", "control": ":", "online": "-."}
"""Of a line, by what its checkpoints are."""
WIDTH = 7.0
"""Inches: the text width of a paper."""
DPI = 200
CARD_DPI = 100

_SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # the one that comes with matplotlib
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "path",  # letters are drawn: no font is asked for, here or elsewhere
    "svg.hashsalt": "erpd-hub",
}


def available() -> bool:
    """Whether there is anything to draw with: the core alone has no matplotlib."""
    return find_spec("matplotlib") is not None


@contextmanager
def styled() -> Iterator[None]:
    """Our settings and nobody else's, for drawing as well as for writing."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def panels(number: int, *, columns: int = 3, width: float = WIDTH, height: float = 2.5) -> tuple[Any, list[Any]]:
    """A figure with so many axes, row by row; `height` in inches is that of a row."""
    from matplotlib.figure import Figure

    columns = min(columns, number)
    rows = -(-number // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for spare in grid[number:]:
        spare.remove()
    return figure, list(grid[:number])


def card_panels(number: int, *, width: float = WIDTH, height: float = 1.9, columns: int = 2) -> tuple[Any, list[Any]]:
    """The same with margins that are given, for small pictures of short labels: to find the best ones takes as long as
    drawing does."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(columns, number)
    rows = -(-number // columns)
    high = height * rows + 0.25
    figure = Figure(figsize=(width, high))
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for spare in grid[number:]:
        spare.remove()
    figure.subplots_adjust(left=0.6 / width, right=1 - 0.2 / width, bottom=0.68 / high, top=1 - 0.25 / high,
                           wspace=0.28, hspace=0.75 / (height - 0.75))  # fmt: skip
    for axes in grid[:number]:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    return figure, list(grid[:number])


def legend_below(figure: Any, *, columns: int = 4) -> None:
    """One legend of all panels under them, every label once."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found and figure.get_layout_engine() is None:  # of `card_panels`, which leaves room for it
        figure.legend(list(found.values()), list(found), loc="lower center", ncols=min(columns, len(found)))
    elif found:
        rows = -(-len(found) // columns)
        wide, high = figure.get_size_inches()
        figure.set_size_inches(wide, high + 0.17 * rows)
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(columns, len(found)))


def write(figure: Any, stem: Path, formats: Sequence[str], *, title: str, description: str) -> list[Path]:
    """Write a figure once in each format (`png`, `svg`), its title and description inside as metadata."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    for kind, path in zip(formats, paths, strict=True):
        figure.savefig(path, format=kind, dpi=DPI, metadata=_metadata(kind, title, description))
    return paths


def png(figure: Any, stream: Any, *, title: str, description: str = "") -> None:
    """Write a card's picture, its title and description inside as metadata."""
    figure.savefig(stream, format="png", dpi=CARD_DPI, metadata=_metadata("png", title, description))


def _metadata(kind: str, title: str, description: str) -> dict[str, str | None]:
    """Without date and version, which would make other bytes of the same data."""
    plain = {"Title": _latin(title), "Description": _latin(description)}
    return plain | ({"Software": None} if kind == "png" else {"Date": None, "Creator": None})


def _latin(text: str) -> str:
    """PNG's text is Latin-1."""
    return text.encode("latin-1", "replace").decode("latin-1")


def plain(text: str) -> str:
    """A name as text: matplotlib would read what stands between two `$` as a formula."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("$", r"\$")


def looks(names: Sequence[str], roles: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """How each line is drawn: colour and shape in turn, dash by role, hollow once the colours have come round; a base
    is a black star."""
    found = {}
    numbers = count()
    for name in names:
        if roles[name] == "base":
            found[name] = {"color": "black", "marker": "*", "markersize": 9, "linestyle": "none"}
            continue
        number = next(numbers)
        colour, hollow = COLOURS[number % len(COLOURS)], number // len(COLOURS) % 2 == 1
        found[name] = {"color": colour, "marker": MARKERS[number % len(MARKERS)],
                       "linestyle": DASHES.get(roles[name], "-") or "none",
                       "markerfacecolor": "white" if hollow else colour}  # fmt: skip
    return found
