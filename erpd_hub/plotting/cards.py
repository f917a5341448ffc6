"""The small pictures in cards, drawn from an artifact's own files and record when it is pushed.

They lie in `plots/`, which is no part of an artifact's payload: digest and fingerprint are what they would be without.
Where there is no matplotlib there are none, and the card shows none. What cannot be drawn, such as values that are not
finite, is left out and said: an artifact that took hours is pushed all the same.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

from erpd_hub.artifacts import CARD, LineageRecord
from erpd_hub.lineage_views import Above
from erpd_hub.model_cards import render
from erpd_hub.model_cards.pictures import DISTANCES, ERRORS, POSITIONS, SCORES, SIGNAL, TRAINING, pictures_in
from erpd_hub.plotting import card_charts as charts
from erpd_hub.plotting.reading import CURVES, TRAININGS
from erpd_hub.plotting.style import available, png, styled

logger = logging.getLogger(__name__)

Draw = Callable[[], Any]
"""Makes a figure."""

_SHOWN = (
    (SCORES, charts.scores, ("avg", "interval")),
    (
        DISTANCES,
        charts.distances,
        ("kl_checkpoint_to_base", "kl_checkpoint_to_base_stderr", "entropy", "entropy_stderr"),
    ),
)
"""Pictures over the folders of a repository, each with the metrics that it shows; without the first there is none."""
_LOOK = 1
"""Raised when they are to be drawn anew of the same values."""


def write_card(folder: Path, record: LineageRecord, *, command: str, above: Above) -> None:
    """The card of an artifact with its pictures, into its folder; `command` and `above` as `model_cards.render`'s."""
    left_out = draw_pictures(folder, record)
    said = record.model_dump(mode="json", by_alias=True)
    card = render(said, command=command, above=above, pictures=pictures_in(folder), left_out=left_out)
    (folder / CARD).write_text(card, encoding="utf-8")


def draw_pictures(folder: Path, record: LineageRecord) -> list[str]:
    """Write the pictures of an artifact into its folder; none where there is nothing to show or to draw with. Returns
    the names of those that could not be drawn."""
    if not available():
        return []
    left_out = []
    for name, draw in _pictures(folder, record):
        content = _drawn(draw, name, title=f"{record.step} of {record.run}")
        if content is None:
            left_out.append(name)
        else:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return left_out


def repository_pictures(
    records: Sequence[Mapping[str, Any]], there: Mapping[str, bytes] = MappingProxyType({})
) -> dict[str, bytes | None]:
    """Pictures of a repository whose folders are artifacts, by path; None for one that it has not (any more). Empty
    where there is nothing to draw with, which is no reason to take away what is there.

    Args:
        there: Those that the repository has. One of the same values stays: another matplotlib would make other bytes
            of them, and two machines would take turns in replacing them.
    """
    if not available():
        return {}
    found: dict[str, bytes | None] = {SCORES: None, DISTANCES: None}
    for name, draw, values in _of_folders(records):
        drawn_of = f"look {_LOOK} of {sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()}"
        is_there = drawn_of.encode() in there.get(name, b"")
        found[name] = there[name] if is_there else _drawn(draw, name, title=name, description=drawn_of)
    return found


def _drawn(draw: Draw, name: str, *, title: str, description: str = "") -> bytes | None:
    """A picture as PNG; None for one that its values do not allow."""
    stream = BytesIO()
    try:
        with styled():
            png(draw(), stream, title=title, description=description)
    except (ValueError, ArithmeticError) as error:
        logger.warning("%s: %s cannot be drawn and is left out of the card: %s", title, name, error)
        return None
    return stream.getvalue()


def _pictures(folder: Path, record: LineageRecord) -> Iterator[tuple[str, Draw]]:
    path = folder / CURVES
    is_last = record.saved_step == record.config.get("steps")  # of the saved steps it has the whole curve
    is_trained = record.stage in TRAININGS and is_last and path.is_file()
    lines = [json.loads(line) for line in path.read_text().splitlines()] if is_trained else []
    if len(lines) > 1 and (shown := charts.recorded(lines)):
        yield TRAINING, partial(charts.training, lines, shown)
    if record.kind == "signal" and "by_label_and_position" in record.metrics:
        yield SIGNAL, partial(charts.histogram, folder, record.metrics)
        yield POSITIONS, partial(charts.positions, record.metrics, "log-ratio, nats")
    if record.kind == "critic" and "errors" in record.metrics:
        yield ERRORS, partial(charts.positions, record.metrics["errors"], "V - R")


def _of_folders(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Draw, list[Any]]]:
    """Path, how it is drawn, and the values that it is drawn of."""
    for name, draw, keys in _SHOWN:
        shown = [(record["folder"], record["metrics"]) for record in records]
        shown = [(folder, metrics) for folder, metrics in shown if metrics.get(keys[0]) is not None]
        if shown:
            values = [[folder, *(metrics.get(key) for key in keys)] for folder, metrics in shown]
            yield name, partial(draw, shown), values
