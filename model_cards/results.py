"""Scores in the card of a checkpoint: `model-index` at its top and a section, both replaced as a whole each time."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from erpd_hub.evaluation.caveats import caveats
from erpd_hub.model_cards.templates import template
from erpd_hub.model_cards.text import yaml_block

_HEADING, _NEXT = "\n## Evaluation\n\n", "\n## How to load it\n\n"
_FENCE = "\n---\n"

Row = Mapping[str, Any]
"""Of the leaderboard."""
Scored = tuple[Row, Sequence[tuple[str, Row]]]
"""A row of the checkpoint, and those of others that were measured alike, with what these are to it."""


def with_results(card: str, scored: Sequence[Scored], model_index: Sequence[Mapping[str, Any]]) -> str:
    """A card with just these scores; one without front matter, or that is not ours in form, stays as it is."""
    top, fence, body = card.partition(_FENCE)
    data = _front_matter(top) if fence else None
    before, heading, after = body.rpartition(_NEXT)
    if data is None or not heading:
        return card
    data = {name: value for name, value in data.items() if name != "model-index"}
    if model_index:
        data["model-index"] = list(model_index)
    kept = before.rpartition(_HEADING)[0] if _HEADING in before else before
    section = f"\n{_HEADING}{_section(scored).strip()}\n" if scored else ""
    return f"---\n{yaml_block(data)}---\n{kept.rstrip()}\n{section}{heading}{after}"


def _section(scored: Sequence[Scored]) -> str:
    lines = [line for row, others in scored for line in (("this", row), *others)]
    alone = [row["benchmark"] for row, others in scored if not others and row["role"] != "base"]
    judged = any(row["judge"] for _, row in lines)
    less = [(said, row["benchmark"], line) for said, row in lines for line in caveats(row)]
    return template("evaluation").render(lines=lines, scored=scored, alone=alone, judged=judged, less=less)


def _front_matter(top: str) -> dict[str, Any] | None:
    if not top.startswith("---\n"):
        return None
    try:
        data = yaml.safe_load(top.removeprefix("---\n"))
    except yaml.YAMLError:
        return None
    return data if isinstance(data, dict) else None
