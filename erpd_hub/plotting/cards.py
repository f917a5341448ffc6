"""The small pictures in cards, drawn from an artifact's own files and record when it is pushed.

They lie in `plots/`, which is no part of an artifact's payload: digest and fingerprint are what they would be without.
Where there is no matplotlib there are none, and the card shows none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from erpd_hub.artifacts import CARD, LineageRecord
from erpd_hub.model_cards import render
from erpd_hub.model_cards.pictures import DISTANCES, ERRORS, POSITIONS, SCORES, SIGNAL, TRAINING, pictures_in
from erpd_hub.plotting import card_charts as charts
from erpd_hub.plotting.reading import CURVES, TRAININGS
from erpd_hub.plotting.style import available, png, styled


def write_card(folder: Path, record: LineageRecord, *, recipe: str, graph: str) -> None:
    """The card of an artifact with its pictures, into its folder; `recipe` and `graph` as `model_cards.render`'s."""
    draw_pictures(folder, record)
    said = record.model_dump(mode="json", by_alias=True)
    card = render(said, recipe=recipe, graph=graph, pictures=pictures_in(folder))
    (folder / CARD).write_text(card, encoding="utf-8")


def draw_pictures(folder: Path, record: LineageRecord) -> None:
    """Write the pictures of an artifact into its folder; none where there is nothing to show or to draw with."""
    if not available():
        return
    with styled():
        for name, figure in _pictures(folder, record):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            png(figure, path, title=f"{record.step} of {record.run}")


def repository_pictures(records: Sequence[Mapping[str, Any]]) -> dict[str, bytes | None]:
    """Pictures of a repository whose folders are artifacts, by path; None for one that it has not (any more)."""
    found: dict[str, bytes | None] = {SCORES: None, DISTANCES: None}
    if available():
        with styled():
            for name, figure in _of_folders(records):
                stream = BytesIO()
                png(figure, stream, title=name)
                found[name] = stream.getvalue()
    return found


def _pictures(folder: Path, record: LineageRecord) -> Iterator[tuple[str, Any]]:
    path = folder / CURVES
    is_last = record.saved_step == record.config.get("steps")  # of the saved steps it has the whole curve
    is_trained = record.stage in TRAININGS and is_last and path.is_file()
    lines = [json.loads(line) for line in path.read_text().splitlines()] if is_trained else []
    if len(lines) > 1 and (shown := charts.recorded(lines)):
        yield TRAINING, charts.training(lines, shown)
    if record.kind == "signal" and "by_label_and_position" in record.metrics:
        yield SIGNAL, charts.histogram(folder, record.metrics)
        yield POSITIONS, charts.positions(record.metrics, "log-ratio, nats")
    if record.kind == "critic" and "errors" in record.metrics:
        yield ERRORS, charts.positions(record.metrics["errors"], "V - R")


def _of_folders(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    scored = [(record["folder"], record["metrics"]) for record in records if record["metrics"].get("avg") is not None]
    if scored:
        yield SCORES, charts.scores(scored)
    key = "kl_checkpoint_to_base"
    probed = [(record["folder"], record["metrics"]) for record in records if record["metrics"].get(key) is not None]
    if probed:
        yield DISTANCES, charts.distances(probed)
