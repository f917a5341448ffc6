"""How the log-ratios of a whole signal are spread: by outcome and position, against the noise floor."""

import math
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

import charts
from data import Source
from markup import notice
from places import Place, is_number

HISTOGRAM_TOKENS = 200_000
GROUPS = ("right responses", "wrong responses", "first tokens", "first half", "second half")
COLUMNS = ("label", "signal")


def histogram(source: Source, place: Place) -> tuple[str, charts.Figure | None]:
    """What it is of, and the figure; without one, why."""
    missing: list[str] = []
    readable = (each for each in source.row_groups(place, COLUMNS, missing) if {*COLUMNS} <= {*each.column_names})
    groups, tokens, whole = beginning_of(readable, HISTOGRAM_TOKENS)
    if not tokens:
        return notice(missing or ["no tokens to count"]), None
    found = spread(groups)
    described = source.json(place, "signal.json").rows
    noise = described[0].get("noise") if described else None
    measured = noise.get("noise_floor") if isinstance(noise, dict) else None
    floor = measured if is_number(measured) else None
    counted = f"{tokens:,} tokens" if whole else f"the first {tokens:,} tokens"
    about = Markup("<p>{}</p>").format(f"{counted}{_noise_sentence(found, floor)}.")
    return notice(missing) + about, charts.signal_histogram(found, floor)


def beginning_of(groups: Iterable[pa.Table], most: int) -> tuple[list[pa.Table], int, bool]:
    """The first samples of an artifact up to `most` tokens: their row groups, their tokens, and whether that is all."""
    found: list[pa.Table] = []
    tokens = 0
    for group in groups:
        lengths = pc.fill_null(pc.list_value_length(group["signal"]), 0)
        reached = pc.add(pc.cumulative_sum(pc.cast(lengths, pa.int64())), tokens)
        fitting = pc.sum(pc.less_equal(reached, most)).as_py() or 0
        if fitting:
            found.append(group.slice(0, fitting))
            tokens = reached[fitting - 1].as_py()
        if fitting < group.num_rows:
            return found, tokens, False
    return found, tokens, True


def spread(groups: Sequence[pa.Table]) -> dict[str, list[float]]:
    """Finite signal values of right and of wrong responses, of first tokens, and of the two halves of the responses."""
    found: dict[str, list[float]] = {name: [] for name in GROUPS}
    for label, signal in (row for group in groups for row in zip(*(group[name] for name in COLUMNS), strict=True)):
        values = [value for value in signal.as_py() or [] if value is not None and math.isfinite(value)]
        half = len(values) // 2
        parts = (
            values if label.as_py() == 1 else [],
            values if label.as_py() == 0 else [],
            values[:1],
            values[:half],
            values[half:],
        )
        for name, part in zip(GROUPS, parts, strict=True):
            found[name] += part
    return {name: values for name, values in found.items() if values}


def _noise_sentence(found: Mapping[str, Sequence[float]], floor: float | None) -> str:
    if floor is None:
        return "; no noise floor was measured"
    values = [value for name in GROUPS[3:] for value in found.get(name, ())]
    if not floor:
        return "; a second forward pass gave the same log-probs: a noise floor of 0 nats"
    above = sum(abs(value) > floor for value in values) / max(len(values), 1)
    return f", {100 * above:.1f} % of them beyond the noise floor of {floor:.2g} nats"
