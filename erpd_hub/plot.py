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
DASHES = ("-", "--", ":", "-.")


def plot_frontier(checkpoints: Sequence[Checkpoint], path: Path, *, title: str) -> None:
    """Write a PNG: x KL(checkpoint || base) in nats per token (symmetric log), y AVG@K with one standard error."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn = [item for item in checkpoints if item.kl_to_base is not None and item.avg is not None]
    figure, axes = plt.subplots(figsize=(8, 5), constrained_layout=True)
    seen: dict[str, int] = {}
    for name, line in _lines(drawn).items():
        role = line[0].role
        colour, marker = STYLE[role]
        dashes = DASHES[seen.setdefault(role, -1) + 1 & 3]
        seen[role] += 1
        axes.errorbar(
            [item.kl_to_base or 0.0 for item in line],
            [item.avg for item in line],
            yerr=[item.stderr or 0.0 for item in line],
            color=colour,
            marker=marker,
            markersize=11 if role == "base" else 6,
            linestyle=dashes if len(line) > 1 else "none",
            capsize=2,
            label=f"{name} ({role})" if role != name else name,
        )
        for item in line:
            if item.step is not None and len(line) > 1:
                place = (item.kl_to_base or 0.0, item.avg or 0.0)
                axes.annotate(str(item.step), place, (4, 5), textcoords="offset points", fontsize=7, color=colour)
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
    axes.set_xlim(left=-0.001)
    axes.set_xlabel("KL(checkpoint || base), nats per token, on the checkpoint's own samples at T=1")
    k = sorted({item.k for item in drawn})
    axes.set_ylabel(f"AVG@{'/'.join(map(str, k))} on {', '.join(sorted({item.benchmark for item in drawn}))}")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="best")
