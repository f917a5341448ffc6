"""The pictures that a card may show: their names in `plots/`, and what is said of each. `plotting.cards` draws them."""

from collections.abc import Collection
from pathlib import Path

FOLDER = "plots"
TRAINING, SIGNAL, POSITIONS, ERRORS = (f"{FOLDER}/{name}.png" for name in ("training", "signal", "positions", "errors"))
SCORES, DISTANCES = f"{FOLDER}/scores.png", f"{FOLDER}/distances.png"
CAPTIONS = {
    TRAINING: "What each optimizer step saw before its own update, over the steps taken: token means on its batch.",
    SIGNAL: "Share of tokens by log-ratio, of right and of wrong responses in the same bins; the outermost hold all "
    "that is beyond. Grey, where it is not 0: the noise floor of scoring.",
    POSITIONS: "Log-ratios along the responses: median, 5 to 95 % (dark), 1 to 99 % (light), the furthest token of "
    "each tenth (marks) and the ten furthest of all (rings).",
    ERRORS: "V - R along the responses: median, 5 to 95 % (dark), 1 to 99 % (light), the furthest token of each tenth "
    "(marks) and the ten furthest of all (rings).",
    SCORES: "AVG@K with its 95 % interval.",
    DISTANCES: "KL(checkpoint || base) and entropy with 1.96 standard errors, on the checkpoint's own samples.",
}
"""What each picture shows: its text in the card."""


def pictures_of(files: Collection[str]) -> list[str]:
    """Those of our pictures among the files of a repository."""
    return [name for name in CAPTIONS if name in files]


def pictures_in(folder: Path) -> list[str]:
    """Those of our pictures that a folder holds."""
    return [name for name in CAPTIONS if (folder / name).is_file()]
