"""The samples of one problem: a column for each checkpoint, all its verdicts, and the text of one sample."""

import json
from collections.abc import Sequence

from markupsafe import Markup

from data import Source
from markup import badge, notice, prose, response, table
from places import Row, details_place
from scores import name_of

MOST_K = 4_096
"""Samples of a problem that a slider reaches."""


def sample_columns(source: Source, scores: Sequence[Row], problem: str, k: int) -> Markup:
    """A column for each checkpoint: all its samples of the problem, and the text of sample k."""
    columns = [_column(source, score, problem, k) for score in scores]
    return Markup('<div class="columns">{}</div>').format(Markup("").join(columns))


def question_line(problem: str, question: str | None) -> Markup:
    """The question above the columns; its id alone where nothing is published of it."""
    asked = prose(question) if question else Markup("its text is not published, or not readable")
    return Markup('<div class="question"><p class="small">problem {}</p>{}</div>').format(problem, asked)


def _column(source: Source, score: Row, problem: str, k: int) -> Markup:
    place = details_place(score)
    found = source.samples(place, problem) if place else None
    rows = found.rows if found else []
    shown = next((row for row in rows if row["k"] == k), None)
    head = Markup("<h4>{}</h4>{}").format(
        name_of(score), notice(found.missing if found else ["no samples are published"])
    )
    listing = table(
        ("k", "verdict", "answer seen", "tokens", "finish", "judge"), [_sample_cells(row, k) for row in rows]
    )
    text = _sample_text(shown) if shown else notice([f"no sample {k} of this problem"])
    return Markup("<section>{}{}{}</section>").format(head, listing, text)


def _sample_cells(row: Row, k: int) -> list[object]:
    here = badge(str(row["k"]), "here") if row["k"] == k else row["k"]
    answer = Markup("{}").format("-" if row["extracted"] is None else str(row["extracted"])[:200])
    return [here, badge(str(row["verdict"])), answer, _length(row), row["finish_reason"] or "-", _ruling(row["judge"])]


def _sample_text(row: Row) -> Markup:
    gold = "(left out, as the benchmark's licence asks)" if row["gold"] is None else str(row["gold"])
    return Markup('<p class="gold">right answer: {}</p>{}').format(prose(gold), response(str(row["text"] or "")))


def _ruling(judge: str | None) -> object:
    """What the judge said of this sample, as its column holds it."""
    if judge is None:
        return "-"
    try:
        ruling = json.loads(judge)
        return badge(str(ruling.get("status"))) if isinstance(ruling, dict) else "unreadable"
    except (ValueError, RecursionError):
        return "unreadable"


def _length(row: Row) -> object:
    """Tokens of the response: of its ids, or as a server counted them."""
    found = row["response_ids"] if row["response_ids"] is not None else row["num_tokens"]
    return "-" if found is None else found
