"""Points of a sweep: what its words mean (`key=a,b,c`, `key=[a, b]`, files of points) and how points are named."""

import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from erpd_hub.errors import ConfigError
from erpd_hub.names import shortened, slug, value_name
from erpd_hub.recipe_files import parse_value, read_text

_OF_THE_RUN = ("run", "namespace", "description", "seed", "threads", "hub", "facts", "extends")
"""What all points of a sweep have in common."""


LONGEST = 64
"""Characters of a run's name; the Hub takes 96 with the step's."""


class Setting(NamedTuple):
    """One key of a recipe set to a value, both as in an override."""

    key: str
    text: str

    @property
    def value(self) -> Any:
        return parse_value(self.text, self.key)


Settings = tuple[Setting, ...]


def label(settings: Iterable[Setting]) -> str:
    return ", ".join(f"{setting.key}={setting.text}" for setting in settings) or "the recipe itself"


def point_name(settings: Iterable[Setting], room: int = LONGEST) -> str:
    """`student-kl-weight-0-1-seed-3`; keys of the same step name it once, and what would be too long ends in a hash."""
    parts: list[str] = []
    seeds: list[str] = []
    above = ""
    for setting in sorted(settings):
        step, dot, rest = setting.key.partition(".")
        key = rest if dot and step == above else setting.key
        (seeds if setting.key == "seed" else parts).append(f"{slug(key)}-{value_name(setting.value)}")
        above = step
    name = shortened("-".join(parts), room - len("-".join(seeds)) - 1)
    return "-".join(part for part in (name, *seeds) if part)


class Axis(NamedTuple):
    """A key and the values it takes."""

    key: str
    texts: tuple[str, ...]

    @property
    def settings(self) -> list[Setting]:
        return [Setting(self.key, text) for text in self.texts]


def parse_words(words: Iterable[str]) -> tuple[list[str], list[Axis]]:
    """Overrides (`key=value`, as in `run`) and axes (`key=a,b` or `key=[a, b]`, where a value that is a list is written
    `[[...]]`).

    Raises:
        ConfigError: a word that is neither, or a key that a sweep cannot vary.
    """
    fixed, axes = [], []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r}: expected key=a,b,c or key=value, such as student.kl_weight=0,0.1")
        texts = _values(text)
        if len(texts) == 1:
            fixed.append(f"{key}={texts[0]}")
        else:
            axes.append(Axis(_checked(key), texts))
    keys = [axis.key for axis in axes]
    if repeated := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"{repeated}: expected each key once; its values are separated by commas")
    return fixed, axes


def combine(axes: Sequence[Axis], points: Sequence[Settings] = ((),), *, zipped: bool = False) -> list[Settings]:
    """Every combination of the axes' values with each of the points; zipped, the first values, the second, and so on.

    Raises:
        ConfigError: zipped axes of different length.
    """
    lengths = {len(axis.texts) for axis in axes}
    if zipped and len(lengths) > 1:
        counts = ", ".join(f"{axis.key} has {len(axis.texts)}" for axis in axes)
        raise ConfigError(f"--zip: expected as many values for each key, got {counts}")
    values = [axis.settings for axis in axes]
    rows = list(zip(*values, strict=True)) if zipped and axes else list(product(*values))
    found = [(*point, *row) for point in points for row in rows]
    for settings in found:
        keys = [setting.key for setting in settings]
        if repeated := next((key for key in keys if keys.count(key) > 1), None):
            raise ConfigError(f"{repeated}: expected each key once, got it in the points and on the command line")
    return found


def read_points(path: Path) -> list[Settings]:
    """A YAML file with a list of points, each a mapping of keys to values.

    Raises:
        ConfigError: it is something else.
    """
    data = parse_value(read_text(path), path.name)
    if not isinstance(data, list) or not data or not all(isinstance(point, dict) and point for point in data):
        raise ConfigError(f"{path.name}: expected a list of points, each a mapping such as {{student.kl_weight: 0.1}}")
    return [tuple(Setting(_checked(str(key)), _text(value)) for key, value in point.items()) for point in data]


def _checked(key: str) -> str:
    if key.partition(".")[0] in _OF_THE_RUN:
        hint = "use --seeds" if key == "seed" else "give it one value, or none"
        raise ConfigError(f"{key}: all points of a sweep have the same; {hint}")
    return key


def _text(value: Any) -> str:
    """A value as an override has it."""
    return value if isinstance(value, str) and parse_value(value, value) == value else json.dumps(value)


def _values(text: str) -> tuple[str, ...]:
    parts = _split(text)
    if len(parts) == 1 and text.startswith("["):
        values: Any = parse_value(text, text)
        if isinstance(values, list) and values:
            return tuple(_text(value) for value in values)
    return tuple(parts)


def _split(text: str) -> list[str]:
    """At commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        elif letter in "[{":
            depth += 1
        elif letter in "]}":
            depth -= 1
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
