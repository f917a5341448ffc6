"""Token by token: Fig. 10 (log-ratios by outcome and position, against a linear critic), from the records' tables."""

from collections.abc import Callable, Mapping, Sequence
from math import floor, isfinite, log10
from typing import Any

from erpd_hub.plotting.drawing import RIGHT, WRONG, Drawn, Skipped, places
from erpd_hub.plotting.reading import RunData
from erpd_hub.plotting.style import legend_below, panels, plain

MOST_SIGNALS = 4
_DRAWN = ("min", "max", "quantile_0.01", "quantile_0.05", "quantile_0.5", "quantile_0.95", "quantile_0.99")
"""Of each tenth of the responses."""
_LABELS = (("positive", RIGHT, "#0072B2", "o"), ("negative", WRONG, "#D55E00", "X"))

Table = Mapping[str, Any]
"""What `signal_statistics.describe_signal` says of a quantity of tokens."""


def outliers(run: RunData) -> Drawn | Skipped:
    """Fig. 10: what a policy head says of tokens has outliers on right responses; a linear critic is smoother."""
    recorded = [item for item in run.of_stage("signal") if item.record.metrics.get("by_label_and_position")]
    signals = [item for item in recorded if is_finite(item.record.metrics)]
    critics = [item for item in run.of_stage("critic") if item.record.metrics.get("errors")]
    critics = [item for item in critics if is_finite(item.record.metrics["errors"])]
    if not signals:
        return Skipped("the run has no signal with finite statistics by label and position")
    endless = [item.name for item in recorded if item not in signals]
    shown = [*signals[:MOST_SIGNALS], *critics[:1]]
    figure, axes = panels(2 * len(shown), columns=2, height=1.9)
    for at, item in enumerate(shown):
        pair = axes[2 * at : 2 * at + 2]
        is_critic = item.stage == "critic"
        draw_positions(pair, item.record.metrics["errors"] if is_critic else item.record.metrics)
        pair[0].set_ylabel("V - R" if is_critic else "log-ratio, nats")
        pair[0].set_title(
            f"({'abcdefgh'[at]}) {plain(item.name)}{' (critic)' if is_critic else ''}: {RIGHT}", loc="left"
        )
        pair[1].set_title(f"{WRONG}{noise_said(item.record.metrics)}", loc="left")
    for one in axes[-2:]:
        one.set_xlabel("position in the response, %")
    legend_below(figure)
    left = [item.name for item in signals[MOST_SIGNALS:]]
    return Drawn(
        figure,
        "Token log-ratios by outcome and by position in the response: median, 5 to 95 % (dark), 1 to 99 % (light), the "
        "furthest token of each tenth (marks) and the ten furthest of all (rings). Axes are linear near 0 and "
        "logarithmic beyond; the grey band is the noise floor of scoring, where it is not 0."
        + (" The critic's row is its error V - R on the same tokens." if critics else ""),
        places(shown),
        (
            *(() if critics else ("the run has no `critic` to hold the policy head against",)),
            *((f"not drawn, for values that are not finite: {', '.join(endless)}",) if endless else ()),
            *((f"not drawn, of more than {MOST_SIGNALS} signals: {', '.join(left)}",) if left else ()),
        ),
    )


def is_finite(table: Table) -> bool:
    """Whether all that is drawn of a quantity is a number; a record has none for what is not finite."""
    values = [table["std"], *(row[name] for row in table["by_label_and_position"] for name in _DRAWN)]
    values += [item["value"] for item in table["outliers"]]
    return all(value is not None and isfinite(value) for value in values)


def draw_positions(pair: Sequence[Any], table: Table) -> None:
    """Right responses into the first axes, wrong ones into the second, on the same scale."""
    for axes, (label, _, colour, mark) in zip(pair, _LABELS, strict=True):
        labelled = (row for row in table["by_label_and_position"] if row["label"] == label)
        tenths = {middle: row for row in labelled if (middle := _middle(row)) is not None}
        if tenths:
            ends = [end for middle in tenths for end in (middle - 5, middle + 5)]
            column = {name: [row[name] for row in tenths.values()] for name in _DRAWN}
            for low, high, alpha, name in (("0.01", "0.99", 0.18, "1 to 99 %"), ("0.05", "0.95", 0.4, "5 to 95 %")):
                edges = _twice(column[f"quantile_{low}"]), _twice(column[f"quantile_{high}"])
                axes.fill_between(ends, *edges, color=colour, alpha=alpha, linewidth=0, label=name)
            axes.plot(ends, _twice(column["quantile_0.5"]), color="black", linewidth=1.1, label="median")
            marks = {"linestyle": "none", "marker": mark, "markersize": 3, "color": colour}
            for edge in ("min", "max"):
                axes.plot(list(tenths), column[edge], label="furthest of each tenth", **marks)
        listed = [item for item in table["outliers"] if item["label"] == (label == "positive")]
        places = [100 * (item["position"] + 0.5) / item["length"] for item in listed]
        axes.plot(places, [item["value"] for item in listed], linestyle="none", marker="o", markersize=6.5,
                  markerfacecolor="none", color="black", label="the ten furthest of all")  # fmt: skip
        draw_floor(axes.axhspan, table)
        axes.set_xlim(0, 100)
    _same_scale(pair, table)


def noise_said(table: Table) -> str:
    """The noise floor as a number: a band may be too narrow to see."""
    return "" if table.get("noise_floor") is None else f"; noise floor {table['noise_floor']:.2g} nats"


def draw_floor(span: Callable[..., object], table: Table) -> None:
    """What scoring again differs by, as a band on either side of 0; none where it made no difference."""
    if noise := table.get("noise_floor"):
        span(-noise, noise, color="grey", alpha=0.35, linewidth=0, label="noise floor")


def _twice(values: Sequence[float]) -> list[float]:
    """Each for both ends of its tenth."""
    return [value for value in values for _ in range(2)]


def _same_scale(pair: Sequence[Any], table: Table) -> None:
    edge = max(abs(row[name]) for row in table["by_label_and_position"] for name in ("min", "max")) or 1.0
    is_wide = bool(table["std"]) and edge > 5 * table["std"]
    for axes in pair:
        if is_wide:
            axes.set_yscale("symlog", linthresh=10.0 ** floor(log10(table["std"])), linscale=0.7)
        axes.set_ylim(-(1.8 if is_wide else 1.15) * edge, (1.8 if is_wide else 1.15) * edge)


def _middle(row: Table) -> float | None:
    """Percent of the response in the middle of a tenth; None for what is no tenth."""
    position = row["position"]
    return int(position.partition("-")[0]) + 5.0 if position and position.endswith("%") else None
