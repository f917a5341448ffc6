"""The picture of a run: AVG@K against KL to base, a path per line of checkpoints over its steps."""

from collections.abc import Sequence
from pathlib import Path

from erpd_hub.summary import Checkpoint

# Okabe-Ito colours: told apart by colour-blind readers; markers differ as well, for print.
STYLE = {
    "base": ("black", "*"),
    "teacher": ("#D55E00", "s"),
    "unlearned": ("#999999", "v"),
    "student": ("#0072B2", "o"),
    "control": ("#009E73", "D"),
}


def plot_frontier(checkpoints: Sequence[Checkpoint], path: Path, *, title: str) -> None:
    """Write a PNG: x KL(checkpoint || base) in nats per token (symmetric log), y AVG@K with one standard error."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn = [item for item in checkpoints if item.kl_to_base is not None and item.avg is not None]
    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    labelled: set[str] = set()
    for name, line in _lines(drawn).items():
        role = line[0].role
        colour, marker = STYLE[role]
        axes.errorbar(
            [item.kl_to_base or 0.0 for item in line],
            [item.avg for item in line],
            yerr=[item.stderr or 0.0 for item in line],
            color=colour,
            marker=marker,
            markersize=11 if role == "base" else 6,
            linestyle="-" if len(line) > 1 else "none",
            capsize=2,
            label=None if role in labelled else role,
        )
        labelled.add(role)
        for item in line:
            text = f"{name} {item.step}" if item is line[-1] and len(line) > 1 else str(item.step)
            place = (item.kl_to_base or 0.0, item.avg or 0.0)
            axes.annotate(name if len(line) == 1 else text, place, (6, 5), textcoords="offset points", fontsize=7)
    _decorate(axes, drawn, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _lines(checkpoints: Sequence[Checkpoint]) -> dict[str, list[Checkpoint]]:
    """Checkpoints of the same training, by name, in order of step; the base is where every path starts."""
    lines: dict[str, list[Checkpoint]] = {}
    for item in checkpoints:
        lines.setdefault(item.ref.partition("@")[0], []).append(item)
    return {name: sorted(line, key=lambda item: item.step or 0) for name, line in lines.items()}


def _decorate(axes, drawn: Sequence[Checkpoint], title: str) -> None:  # type: ignore[no-untyped-def]
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlim(-0.001, 2.5 * max(0.01, *(item.kl_to_base or 0.0 for item in drawn)))  # room for names on the right
    axes.set_xlabel("KL(checkpoint || base), nats per token, on the checkpoint's own samples at T=1")
    k = sorted({item.k for item in drawn})
    axes.set_ylabel(f"AVG@{'/'.join(map(str, k))} on {', '.join(sorted({item.benchmark for item in drawn}))}")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="best")
