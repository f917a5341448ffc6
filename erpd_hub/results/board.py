"""A leaderboard for people: rows grouped by lineage, base before teachers before students. Pure, but for its table."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table

from erpd_hub.evaluation.benchmarks import BENCHMARKS
from erpd_hub.evaluation.caveats import caveats
from erpd_hub.evaluation.harness import GRADED_BY
from erpd_hub.plain import escape
from erpd_hub.results.rows import Row
from erpd_hub.score_table import percent

_ORDER = ("base", "teacher", "unlearned", "student", "control", "online", "endpoint")
_CHARS = 10
"""Of a commit."""
_SETTINGS = (
    "temperature", "top_p", "max_new_tokens", "max_sequence_tokens", "limit", "k", "benchmark_definition"
)  # fmt: skip
"""What scores must share to be compared, beside what graded them."""


def select(
    rows: Iterable[Row], *, benchmarks: Sequence[str] = (), runs: Sequence[str] = (), roles: Sequence[str] = ()
) -> list[Row]:
    """The rows of these benchmarks, runs and roles; an empty choice takes all."""
    wanted = (("benchmark", benchmarks), ("run", runs), ("role", roles))
    return [row for row in rows if all(not chosen or row.get(name) in chosen for name, chosen in wanted)]


def grouped(rows: Iterable[Row]) -> list[tuple[str, list[tuple[int, Row]]]]:
    """Rows under the base that they come from, with their depth below it: teachers under the base, and under each
    teacher the students that its signal went into; what has no teacher stands under the base."""
    by_base: dict[str, list[Row]] = {}
    for row in rows:
        by_base.setdefault(_base(row), []).append(row)
    return [(base, list(_tree(sorted(found, key=_key)))) for base, found in sorted(by_base.items())]


def _base(row: Row) -> str:
    if row.get("base_repo"):
        return f"{row['base_repo']}@{str(row['base_revision'])[:_CHARS]}"
    return str(row["checkpoint_repo"]) if not row.get("pinned", True) else "unknown base"


def _key(row: Row) -> tuple[Any, ...]:
    role = _ORDER.index(row["role"]) if row["role"] in _ORDER else len(_ORDER)
    step = row["step"] if row["step"] is not None else -1
    return (row["run"], role, str(row["checkpoint"]).partition("@")[0], step, row["checkpoint"], row["benchmark"])


def _tree(rows: Sequence[Row]) -> Iterator[tuple[int, Row]]:
    """Depth and row; a checkpoint's children follow its last benchmark."""
    here = {_place(row) for row in rows}
    children: dict[tuple[str, str], list[Row]] = {}
    roots = []
    for row in rows:
        teacher = (row.get("teacher_repo"), row.get("teacher_revision"))
        if teacher in here and teacher != _place(row):
            children.setdefault(teacher, []).append(row)
        else:
            roots.append(row)
    seen: set[int] = set()
    pending = [(row, last, 0 if row["role"] in ("base", "endpoint") else 1) for row, last in _marked(roots)][::-1]
    while pending:  # a line of teachers may be longer than Python's stack
        row, last, depth = pending.pop()
        if id(row) in seen:
            continue
        seen.add(id(row))
        yield depth, row
        below = _marked(children.get(_place(row), []) if last else [])
        pending += [(child, is_last, depth + 1) for child, is_last in below][::-1]
    yield from ((1, row) for row in rows if id(row) not in seen)  # of a circle, which no lineage has


def _marked(rows: Sequence[Row]) -> Iterator[tuple[Row, bool]]:
    """Each row, and whether it is the last one of its checkpoint."""
    for index, row in enumerate(rows):
        yield row, index + 1 == len(rows) or _place(rows[index + 1]) != _place(row)


def _place(row: Row) -> tuple[str, str]:
    return str(row["checkpoint_repo"]), str(row["checkpoint_revision"])


def board_tables(rows: Sequence[Row], *, details: bool = False) -> Iterator[Table]:
    """One table for each base, one line a checkpoint and benchmark; scores and shares in percent, KL and entropy in
    nats a token.

    Args:
        details: Whether to say where the samples are.
    """
    judged = any(row.get("judge") for row in rows)
    for base, found in grouped(rows):
        table = _headings(f"from {base}", judged, details)
        for depth, row in found:
            place = f"{row['details_repo']}/{row['details_folder']}@{str(row['details_revision'])[:_CHARS]}"
            table.add_row(*_cells(row, depth, judged), *([escape(place)] if details else ()))
        yield table


def _headings(title: str, judged: bool, details: bool) -> Table:
    table = Table(title=escape(title), title_justify="left", box=None, header_style="bold")
    for name in ("checkpoint", "role", "run", "benchmark"):
        table.add_column(name, no_wrap=True)
    scores = ("AVG@K %", "± s.e.", "95 %", *(("judged %", "± s.e.", "canaries") if judged else ()), "n", "K")
    for name in (*scores, "graded", "KL to base", "entropy", "length", "truncated", "no answer"):
        table.add_column(name, justify="right", no_wrap=True)
    if details:
        table.add_column("details", no_wrap=True)
    return table


def _cells(row: Row, depth: int, judged: bool) -> Iterator[str]:
    yield f"{'  ' * depth}{escape(row['checkpoint'])}{'' if row.get('pinned', True) else ' (unpinned)'}"
    yield escape(row["role"])
    yield escape(row["run"])
    limit = f", first {row['limit']}" if row.get("limit") is not None else ""
    yield escape(f"{row['benchmark']} v{row['version']}{limit}{' *' if row['selection'] else ''}")
    yield percent(row["avg"])
    yield percent(row["stderr"])
    yield "-" if not row["interval"] else f"{percent(row['interval'][0])}..{percent(row['interval'][1])}"
    if judged:
        yield f"{percent(row.get('avg_judged'))}{' !' if row.get('canaries_problem') else ''}"
        yield percent(row.get("stderr_judged"))
        yield percent(row.get("canary_acceptance"))
    yield f"{row['n_graded']}/{row['n']}" if _is_partly_graded(row) else str(row["n"])
    yield f"{row['k']}{'' if row.get('equal_k') in (True, None) else ' !'}"
    yield percent(row["coverage"])
    yield _number(row["kl_checkpoint_to_base"], 4)
    yield _number(row["entropy"], 3)
    yield _number(row["mean_length"], 1)
    yield percent(row["truncated"])
    yield percent(row["no_answer"])


def board_notes(rows: Iterable[Row]) -> Iterator[str]:
    """What the marks of a table mean, as far as it has any."""
    rows = list(rows)
    if any(row["selection"] for row in rows):
        yield "* something was decided on this benchmark: biased, and in no mean over benchmarks"
    if any(row.get("pinned") is False for row in rows):
        yield "(unpinned) an endpoint: nothing says which weights answered"
    if any(row.get("equal_k") is False for row in rows):
        yield "! at K: problems have unequal K, so the means of some rest on fewer samples"
    alarms = {f"judge {row['judge']}: {row['canaries_problem']}" for row in rows if row.get("canaries_problem")}
    yield from (escape(f"! at a judged score, which cannot be trusted: {alarm}") for alarm in sorted(alarms))
    if any(row.get("problems_state") == "other" for row in rows):
        names = sorted({row["benchmark"] for row in rows if row.get("problems_state") == "other"})
        yield f"{', '.join(map(escape, names))}: the problems are not those that the registry knows"
    for name in sorted({row["benchmark"] for row in rows if not _is_registered(row)}):
        yield f"{escape(name)}: measured under another definition than the registered one of this name and version"
    if any(_is_partly_graded(row) for row in rows):
        yield "a/b in n: a of b problems have a graded sample, and score, errors and interval are over those alone"
    for row in rows:
        place = f"{row['run']}, {row['checkpoint']} on {row['benchmark']}"
        yield from (escape(f"{place}: {caveat}") for caveat in caveats(row))
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        measured.setdefault((row["benchmark"], row["version"]), []).append(settings(row))
    for (name, version), found in sorted(measured.items()):
        other = [key for key in found[0] if len({each[key] for each in found}) > 1]
        if other:
            yield escape(f"{name} v{version}: scores that differ in {', '.join(other)} are not comparable; see --json")


def settings(row: Row) -> dict[str, Any]:
    """What two scores on a benchmark must share to be compared."""
    harness = json.loads(row.get("harness") or "{}")
    return {**{name: row.get(name) for name in _SETTINGS}, **{name: harness.get(name) for name in GRADED_BY}}


def _is_registered(row: Row) -> bool:
    """Whether a row's benchmark is what the registry has under its name and version, as far as either says."""
    registered = BENCHMARKS.get(row["benchmark"])
    found = row.get("benchmark_definition")
    if registered is None or found is None or registered.version != row["version"]:
        return True
    return found == registered.definition_sha256


def _is_partly_graded(row: Row) -> bool:
    return row.get("n_graded") is not None and row["n_graded"] < row["n"]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
