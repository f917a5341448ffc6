"""Along a training: Fig. 4 (score, log-probs, entropy of teachers), Fig. 5 (an MSE teacher unlearns and recovers)."""

from collections.abc import Sequence
from typing import Any

from erpd_hub.checkpoint_role import weights_of
from erpd_hub.plotting.drawing import (
    RIGHT,
    WRONG,
    Drawn,
    Skipped,
    count_steps,
    draw_base,
    draw_curve,
    draw_scores,
    has_curve,
    intervals_said,
    letter,
    places,
    score_label,
)
from erpd_hub.plotting.reading import Made, Row, RunData
from erpd_hub.plotting.style import legend_below, looks, panels, plain

FITTED = 0.9
"""Explained variance that the paper's MSE teacher exceeds."""
_CRITIC_LOOK = {"color": "black", "linestyle": "-.", "linewidth": 0.8}
_LABELS = (("positive", "-", RIGHT), ("negative", ":", WRONG))


def teachers(run: RunData) -> Drawn | Skipped:
    """Fig. 4: how long a fixed batch goes on teaching, and how far the policy drifts meanwhile."""
    found = [item for item in run.of_stage("teacher") if item.loss != "mse" and has_curve(item, "entropy")]
    if not found:
        return Skipped("the run has no teacher but MSE's (Fig. 5 has those), or their steps were not recorded")
    scored = [item for item in found if run.rows_of(item)]
    titles = ["log-prob, nats per token", "entropy, nats per token"]
    figure, axes = panels(3 if scored else 2, height=2.3)
    letter(axes, [score_label(run.rows), *titles] if scored else titles)
    look = _looks(found)
    if scored:
        _draw_score_panel(axes[0], run, scored, look)
    for item in found:
        for key, dash, _ in _LABELS:
            if has_curve(item, f"logprob_{key}"):
                draw_curve(axes[-2], item, f"logprob_{key}", **look[item.name] | {"linestyle": dash})
        draw_curve(axes[-1], item, "entropy", **look[item.name], label=plain(item.name))
    _say_labels(axes[-2])
    count_steps(axes)
    legend_below(figure)
    rows = [row for item in scored for row in run.rows_of(item)]
    return Drawn(
        figure,
        "Teachers on one fixed batch of rollouts: token means of the log-prob of right (solid) and wrong (dotted) "
        f"responses, and the entropy, both on the training batch of each step{_scores_said(rows)}",
        places(found, rows),
        _unscored(run, found),
    )


def unlearning(run: RunData) -> Drawn | Skipped:
    """Fig. 5: probabilities fall and come back, the loss goes to zero, the outcome is explained as by a critic."""
    found = [item for item in run.of_stage("teacher") if item.loss == "mse" and has_curve(item, "explained_variance")]
    if not found:
        return Skipped("the run has no MSE teacher whose steps were recorded")
    scored = [item for item in found if run.rows_of(item)]
    titles = ["probability of tokens", "MSE loss", "explained variance"]
    figure, axes = panels(4 if scored else 3, columns=2 if scored else 3, height=2.1)
    letter(axes, [*titles, score_label(run.rows)] if scored else titles)
    look = _looks(found)
    for item in found:
        for key, dash, _ in _LABELS:
            if has_curve(item, f"probability_{key}"):
                draw_curve(axes[0], item, f"probability_{key}", **look[item.name] | {"linestyle": dash})
        draw_curve(axes[1], item, "loss", **look[item.name], label=plain(item.name))
        draw_curve(axes[2], item, "explained_variance", **look[item.name])
    axes[2].axhline(FITTED, color="grey", linestyle="--", linewidth=0.9, label=f"{FITTED:g}, which the paper's exceeds")
    critics = [item for item in run.of_stage("critic") if has_curve(item, "explained_variance")][:1]
    for item in critics:
        draw_curve(axes[2], item, "explained_variance", **_CRITIC_LOOK, label=f"{plain(item.name)} (linear head)")
    if scored:
        _draw_score_panel(axes[3], run, scored, look)
    _say_labels(axes[0])
    picked = _mark_unlearned(axes, run, found)
    count_steps(axes)
    legend_below(figure, columns=3)
    rows = [row for item in scored for row in run.rows_of(item)]
    return Drawn(
        figure,
        "MSE teachers (Eq. 10): the probability of right (solid) and wrong (dotted) responses, token means on each "
        f"step's batch; loss; explained variance 1 - Var(R - p) / Var(R){_scores_said(rows)}"
        + (" The critic's is of its values, V in the place of p." if critics else "")
        + (" A vertical line is where an unlearned checkpoint was taken." if picked else ""),
        places([*found, *critics, *picked], rows),
        (*_unscored(run, found), *(() if critics else ("the run has no `critic` to hold the teacher against",))),
    )


def _looks(found: Sequence[Made]) -> dict[str, dict[str, Any]]:
    """Teachers are told apart by colour and shape: the dash says right or wrong."""
    names = [item.name for item in found]
    return {name: look | {"markersize": 3.5} for name, look in looks(names, dict.fromkeys(names, "teacher")).items()}


def _draw_score_panel(axes: Any, run: RunData, scored: Sequence[Made], look: dict[str, dict[str, Any]]) -> None:
    draw_base(axes, run)
    for item in scored:
        rows = run.rows_of(item)
        draw_scores(axes, [row["step"] for row in rows], rows, look[item.name], item.name)


def _scores_said(rows: Sequence[Row]) -> str:
    """The end of a caption's first sentence: what the panel of scores shows, where there is one."""
    return f"; AVG@K along their saved steps. {intervals_said(rows)}" if rows else "."


def _say_labels(axes: Any) -> None:
    """What the dashes mean, for the legend."""
    for _, dash, text in _LABELS:
        axes.plot([], [], color="grey", linestyle=dash, label=text)


def _mark_unlearned(axes: Sequence[Any], run: RunData, found: Sequence[Made]) -> list[Made]:
    """A line at every step that an unlearned checkpoint was taken at."""
    repos = {item.record.repo_id for item in found}
    picked = []
    for item in run.of_stage("unlearned"):
        source = weights_of(item.record)
        if source is None or source.repo_id not in repos or "step" not in item.record.metrics:
            continue
        picked.append(item)
        for one in axes:
            one.axvline(item.record.metrics["step"], color="#444444", linestyle=(0, (1, 2)), linewidth=1.0)
        step = item.record.metrics["step"]
        axes[0].plot([], [], color="#444444", linestyle=(0, (1, 2)), label=plain(f"{item.name} (step {step})"))
    return picked


def _unscored(run: RunData, found: Sequence[Made]) -> tuple[str, ...]:
    missing = [f"{item.name} has no score: it was not evaluated" for item in found if not run.rows_of(item)]
    rows: list[Row] = [row for item in found for row in run.rows_of(item)]
    return (*missing, *(() if run.base or not rows else ("the base was not evaluated",)))
