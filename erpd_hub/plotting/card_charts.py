"""The charts of cards: a training's curves, a signal's histogram, tokens by position, scores and distances as bars."""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from erpd_hub.plotting.drawing import RIGHT, WRONG, count_steps
from erpd_hub.plotting.style import card_panels, legend_below, panels, plain
from erpd_hub.plotting.tokens import draw_floor, draw_positions, is_finite, noise_said

MOST_BARS = 40
_BINS = 60
_PANELS = (
    ("log-prob, nats per token", ("logprob_positive", "logprob_negative")),
    ("V", ("value_positive", "value_negative")),
    ("entropy, nats per token", ("entropy",)),
    ("KL(old || student), k3, nats per token", ("kl_old_to_student_k3",)),
    ("KL(sampler || teacher), k3, nats per token", ("kl_sampler_to_teacher_k3",)),
    ("KL(old || teacher), k3, nats per token", ("kl_old_to_teacher_k3",)),
    ("KL(policy || start), k3, nats per token", ("kl_policy_to_start_k3",)),
    ("share of right answers while training", ("reward",)),
    ("probability of tokens", ("probability_positive", "probability_negative")),
    ("explained variance", ("explained_variance",)),
    ("loss", ("loss",)),
)
_MOST_PANELS = 4


def recorded(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The panels that a training has something for, at most four, each with its title and keys."""
    found = [
        (title, [key for key in keys if any(line.get(key) is not None for line in lines)]) for title, keys in _PANELS
    ]
    return [(title, keys) for title, keys in found if keys][:_MOST_PANELS]


def training(lines: Sequence[Mapping[str, Any]], shown: Sequence[tuple[str, Sequence[str]]]) -> Any:
    """What a training recorded, in the panels of `recorded`."""
    figure, axes = card_panels(len(shown))
    for one, (title, keys) in zip(axes, shown, strict=True):
        one.set_title(title, loc="left")
        for key in keys:
            wrong = key.endswith("_negative")
            label = WRONG if wrong else RIGHT if key.endswith("_positive") else None
            points = [(line["step"] - 1, line[key]) for line in lines if line.get(key) is not None]
            look = {"color": "#D55E00", "linestyle": ":"} if wrong else {"color": "#0072B2", "linestyle": "-"}
            one.plot(*zip(*points, strict=True), label=label, **look)
    count_steps(axes)
    legend_below(figure)
    return figure


def histogram(folder: Path, metrics: Mapping[str, Any]) -> Any:
    """A signal's values by outcome, read shard by shard. Raises ValueError: they are not all finite."""
    reach = [metrics[name] for name in ("quantile_0.01", "quantile_0.99", "mean", "std")]
    if not all(value is not None and isfinite(value) for value in reach):
        raise ValueError("expected finite values, got others")
    edge = max(abs(reach[0]), abs(reach[1]), 3 * reach[3]) or 1.0
    counts = signal_counts(folder, edge)
    figure, (axes,) = card_panels(1, width=5.6, height=2.4)
    edges = [-edge + 2 * edge * at / _BINS for at in range(_BINS + 1)]
    for label, colour, dash, text in ((1, "#0072B2", "-", RIGHT), (0, "#D55E00", ":", WRONG)):
        if total := sum(counts[label]):
            axes.stairs([count / total for count in counts[label]], edges, color=colour, linestyle=dash, linewidth=1.4,
                        label=text)  # fmt: skip
    draw_floor(axes.axvspan, metrics)
    axes.set_yscale("log")
    axes.set_xlabel(f"log-ratio, nats{noise_said(metrics)}")
    axes.set_title("share of tokens", loc="left")
    legend_below(figure, columns=3)
    return figure


def signal_counts(folder: Path, edge: float) -> dict[int, list[int]]:
    """Tokens of each label in equal bins over [-edge, edge], the outermost with all that is beyond."""
    import numpy as np

    from erpd_hub.columns import ShardReader, flat_values, row_lengths
    from erpd_hub.samples import shard_paths

    counts: dict[int, np.ndarray] = {0: np.zeros(_BINS, np.int64), 1: np.zeros(_BINS, np.int64)}
    for shard in shard_paths(folder):
        for block in ShardReader(shard, ["label", "signal"]).blocks():
            labels: np.ndarray = np.repeat(block["label"].cast("float32").to_numpy(), row_lengths(block["signal"]))
            places = (flat_values(block["signal"]).astype(np.float64) + edge) / (2 * edge) * _BINS
            bins = np.clip(places, 0, _BINS - 1).astype(np.int64)
            for label, found in counts.items():
                found += np.bincount(bins[labels == label], minlength=_BINS)
    return {label: [int(count) for count in found] for label, found in counts.items()}


def positions(table: Mapping[str, Any], title: str) -> Any:
    """A quantity of tokens along the responses. Raises ValueError: its values are not all finite."""
    if not is_finite(table):
        raise ValueError("expected finite values, got others")
    figure, axes = card_panels(2, height=2.2)
    draw_positions(axes, table)
    for one, name in zip(axes, (f"{title}: {RIGHT}", WRONG + noise_said(table)), strict=True):
        one.set_title(name, loc="left")
        one.set_xlabel("position in the response, %")
    legend_below(figure, columns=6)
    return figure


def scores(scored: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """AVG@K in percent with its 95 % interval; (folder, metrics of its details), all with an `avg`."""
    figure, (axes,) = panels(1, height=_height(scored))
    averages = [100 * metrics["avg"] for _, metrics in scored]
    bounds = [metrics.get("interval") or (nan, nan) for _, metrics in scored]
    low = [average - 100 * bound[0] for average, bound in zip(averages, bounds, strict=True)]
    high = [100 * bound[1] - average for average, bound in zip(averages, bounds, strict=True)]
    _bars(axes, [name for name, _ in scored], averages, [low, high], "AVG@K, %")
    return figure


def distances(probed: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """KL to base and entropy, nats per token, with 1.96 standard errors; (folder, metrics of its probe)."""
    figure, axes = panels(2, columns=2, height=_height(probed))
    quantities = (("kl_checkpoint_to_base", "KL(checkpoint || base)"), ("entropy", "entropy"))
    for one, (key, title) in zip(axes, quantities, strict=True):
        values = [_or_nan(metrics.get(key)) for _, metrics in probed]
        errors = [1.96 * _or_nan(metrics.get(f"{key}_stderr")) for _, metrics in probed]
        _bars(one, [name for name, _ in probed], values, [errors, errors], f"{title}, nats per token")
    axes[1].set_yticklabels([])
    return figure


def _bars(
    axes: Any, names: Sequence[str], values: Sequence[float], errors: Sequence[Sequence[float]], label: str
) -> None:
    """A point with its bar for each name, the first on top."""
    shown = min(len(names), MOST_BARS)
    rows = list(range(shown))
    axes.errorbar(values[:shown], rows, xerr=[side[:shown] for side in errors], fmt="o", color="#0072B2", capsize=2)
    axes.set_yticks(rows, [plain(name) for name in names[:shown]])
    axes.set_ylim(shown - 0.4, -0.6)
    axes.set_xlabel(label if shown == len(names) else f"{label}; the first {shown} of {len(names)} folders")


def _or_nan(value: float | None) -> float:
    """What is missing is not drawn; as 0 it would be a value."""
    return nan if value is None else value


def _height(rows: Sequence[object]) -> float:
    return 0.9 + 0.17 * min(len(rows), MOST_BARS)
