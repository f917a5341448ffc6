"""Students and phases: Fig. 7 (fixed against evolving denominator) and Fig. 8 (online phases between offline ones)."""

from collections.abc import Sequence
from typing import Any

from erpd_hub.checkpoint_role import weights_of
from erpd_hub.plotting.drawing import (
    STEPS,
    Drawn,
    Skipped,
    count_steps,
    draw_base,
    draw_scores,
    intervals_said,
    letter,
    places,
    score_label,
)
from erpd_hub.plotting.efficiency import KL_ESTIMATE
from erpd_hub.plotting.reading import Made, Row, RunData, teachers_of
from erpd_hub.plotting.style import COLOURS, legend_below, looks, panels, plain


def denominators(run: RunData) -> Drawn | Skipped:
    """Fig. 7: the policy that sampled in the denominator, against the student itself."""
    students = [item for item in run.of_stage("distill") if _role(run, item) == "student"]
    signals = {digest for item in students if _evolves(item) for digest in _signals(item)}
    found = [item for item in students if _signals(item) & signals]
    if not any(_evolves(item) for item in found):
        return Skipped("no student of the run has an evolving denominator (`denominator: evolving`) and a score")
    rows = [row for item in found for row in run.rows_of(item)]
    probed = [row for row in rows if row["kl_to_base"] is not None]
    figure, axes = panels(2 if probed else 1, columns=2, width=6.4, height=2.6)
    letter(axes, (score_label(rows), "KL(student || base), nats per token"))
    look = looks([item.name for item in found], {item.name: "student" for item in found})
    draw_base(axes[0], run)
    teachers = _draw_teachers(axes[0], run, found)
    for item in found:
        own = run.rows_of(item)
        style = look[item.name] | {"linestyle": "--" if _evolves(item) else "-"}
        label = f"{item.name} ({'evolving' if _evolves(item) else 'fixed'})"
        draw_scores(axes[0], [row["step"] for row in own], own, style, label)
        known = [row for row in own if row["kl_to_base"] is not None]
        if known:
            errors = [1.96 * (row.get("kl_stderr") or 0.0) for row in known]
            axes[1].errorbar([row["step"] for row in known], [row["kl_to_base"] for row in known], yerr=errors,
                             capsize=2, elinewidth=0.8, **style)  # fmt: skip
    count_steps(axes)
    legend_below(figure, columns=3)
    fixed = {digest for item in found if not _evolves(item) for digest in _signals(item)}
    alone = [item.name for item in found if not _signals(item) & fixed]
    missing = [f"{name}: no student of its signal with a fixed denominator has a score" for name in alone]
    return Drawn(
        figure,
        "Students of the same signal with the sampling policy in its denominator (fixed, solid) and with the student "
        f"itself (evolving, dashed), over their steps; lines across are their teachers. {intervals_said(rows)}"
        + (f" KL(student || base) is {KL_ESTIMATE}, its bars 1.96 standard errors." if probed else ""),
        places(found, [*rows, *teachers]),
        (*missing, *(() if probed else ("no KL to the base was measured of these students",))),
    )


def switching(run: RunData) -> Drawn | Skipped:
    """Fig. 8: each phase goes on from where another ended; steps are counted along that line."""
    found = [item for item in run.of_stage("online", "distill") if _role(run, item) in ("online", "student")]
    if not any(item.stage == "online" for item in found):
        return Skipped("the run has no online phase with a score")
    figure, (axes,) = panels(1, width=5.6, height=3.2)
    look = looks([item.name for item in found], {item.name: _role(run, item) or "" for item in found})
    draw_base(axes, run)
    for item in found:
        start, score = _start(run, item)
        rows = run.rows_of(item)
        draw_scores(axes, [start + row["step"] for row in rows], rows, look[item.name],
                    f"{item.name} ({'online' if item.stage == 'online' else 'offline'})")  # fmt: skip
        if score is not None:
            axes.plot([start, start + rows[0]["step"]], [100 * score, 100 * rows[0]["avg"]], linewidth=1.0,
                      color=look[item.name]["color"], linestyle=look[item.name]["linestyle"])  # fmt: skip
    count_steps([axes], f"{STEPS} along the line of policies")
    rows = [row for item in found for row in run.rows_of(item)]
    axes.set_ylabel(score_label(rows))
    legend_below(figure, columns=3)
    return Drawn(
        figure,
        "Online phases (dash-dotted) and offline ones (dashed: the students that were distilled). A phase starts at "
        f"the policy that it started from, and at the steps which that one had taken. {intervals_said(rows)}",
        places(found, rows),
        () if any(item.stage == "distill" for item in found) else ("the run has no offline phase with a score",),
    )


def _role(run: RunData, item: Made) -> str | None:
    """What its checkpoints are; None for one without a score."""
    rows = run.rows_of(item)
    return rows[0]["role"] if rows else None


def _evolves(item: Made) -> bool:
    return item.record.config.get("denominator") == "evolving"


def _signals(item: Made) -> set[str]:
    return {edge.digest for edge in item.record.inputs if edge.role == "signal"}


def _draw_teachers(axes: Any, run: RunData, found: Sequence[Made]) -> list[Row]:
    rows = {row["ref"]: row for item in found for row in teachers_of(run, item.record.repo_id, run.rows)}
    for number, row in enumerate(rows.values()):
        axes.axhline(100 * row["avg"], color=COLOURS[-1 - number % len(COLOURS)], linestyle=":", linewidth=1.2,
                     label=plain(row["ref"] if "teacher" in row["ref"] else f"{row['ref']} (teacher)"))  # fmt: skip
    return list(rows.values())


def _start(run: RunData, item: Made) -> tuple[int, float | None]:
    """Steps that the policy had taken on which a phase began, and its score where it has one."""
    steps = 0
    score: float | None = None
    seen: set[str] = set()
    while (source := weights_of(item.record)) is not None and source.digest not in seen:
        seen.add(source.digest)
        row = next((row for row in run.rows if row["digest"] == source.digest), None)
        if score is None and row is not None:
            score = row["avg"]
        above = next((other for other in run.made if other.record.repo_id == source.repo_id), None)
        if above is None or above.stage == "base":
            break
        if above.stage in ("online", "distill"):
            steps += (row or {}).get("step") or above.record.saved_step or 0
        item = above
    return steps, score
