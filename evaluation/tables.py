"""Rows of a dataset folder as the Hub holds it: parquet, JSON lines, JSON or CSV, by the Hub's own file rules.

Which files make up a split: what the card's `configs` say, else names. Nothing in a folder is executed.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from erpd_hub.errors import ArtifactError, ConfigError

Row = dict[str, Any]

_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
_SPLITS = ("train", "test", "validation", "dev", "valid", "eval")
_CARD = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def read_split(folder: Path, *, config_name: str | None, split: str) -> list[Row]:
    """All rows of a split, files in order of name.

    Raises:
        ArtifactError: no file of the split, or one that cannot be read.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    chosen = split_files(names, _card_configs(folder), config_name=config_name, split=split)
    if not chosen:
        shown = ", ".join(names[:5]) or "no data file"
        raise ArtifactError(f"{folder.name}: expected files of split {split!r}, got {shown}; set `split`")
    return [row for name in chosen for row in read_file(folder / name)]


def split_files(names: Sequence[str], configs: Sequence[Row], *, config_name: str | None, split: str) -> list[str]:
    """Which of a dataset's files hold a split: by the card's configs, else by the split's name in the file's.

    Raises:
        ConfigError: there is no such config, or it has no such split.
    """
    if any(config.get("data_files") for config in configs):
        patterns = _card_patterns(configs, config_name, split)
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    inside = [name for name in names if config_name is None or name.split("/")[0] == config_name]
    if not inside and config_name is not None:
        folders = sorted({name.split("/")[0] for name in names if "/" in name})
        raise ConfigError(f"config_name: expected one of {', '.join(folders) or 'none'}, got {config_name!r}")
    named = [name for name in inside if _names(split, name)]
    if named or split != "train":
        return named
    return [name for name in inside if not any(_names(other, name) for other in _SPLITS)]


def read_file(path: Path) -> list[Row]:
    """Rows of one file.

    Raises:
        ArtifactError: it is not what its suffix says.
    """
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix == ".csv":
                return list(csv.DictReader(stream))
            return _json_rows(stream.read())
    except (ValueError, pa.ArrowException, csv.Error) as error:
        raise ArtifactError(f"{path.name}: expected rows as {path.suffix[1:]}, got {error}") from None


def _json_rows(text: str) -> list[Row]:
    """Rows of one JSON array or of JSON lines."""
    if text.lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = [_json_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("rows that are no objects")
    return rows


def _json_line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None


def require_columns(rows: Iterable[Row], columns: Iterable[str], *, where: str) -> None:
    """Check that each column is in at least one row.

    Raises:
        ConfigError: one is not; the message has the nearest name.
    """
    present = dict.fromkeys(name for row in rows for name in row)
    for column in columns:
        if column not in present:
            close = get_close_matches(column, present, 1, 0.4) or get_close_matches(
                column.lower(), [name.lower() for name in present], 1, 0.4
            )
            actual = next((name for name in present if close and name.lower() == close[0].lower()), None)
            hint = f"did you mean {actual!r}?" if actual else f"there are {', '.join(present) or 'none'}"
            raise ConfigError(f"{where}: expected a column {column!r}, got none of that name; {hint}")


def _card_patterns(configs: Sequence[Row], config_name: str | None, split: str) -> list[str]:
    """Patterns of a split in the card's `configs`; the config asked for, else the default one, else the first.

    Raises:
        ConfigError: there is no such config, or it has no such split.
    """
    named = [config for config in configs if config.get("config_name") == (config_name or "default")]
    chosen = named or ([] if config_name else [*(c for c in configs if c.get("default")), *configs])
    if not chosen:
        names = ", ".join(str(config.get("config_name")) for config in configs)
        raise ConfigError(f"config_name: expected one of {names}, got {config_name!r}")
    files = chosen[0].get("data_files") or []
    if isinstance(files, str):
        files = [{"split": "train", "path": files}]
    items = [item for item in files if isinstance(item, dict)]
    paths = [item.get("path") or [] for item in items if item.get("split") == split]
    if not paths:
        raise ConfigError(f"split: expected one of {', '.join(str(i.get('split')) for i in items)}, got {split!r}")
    return [pattern for path in paths for pattern in ([path] if isinstance(path, str) else path)]


def _card_configs(folder: Path) -> list[Row]:
    card = folder / "README.md"
    match = _CARD.match(card.read_text(encoding="utf-8")) if card.is_file() else None
    if not match:
        return []
    try:
        configs = (yaml.safe_load(match[1]) or {}).get("configs", [])
    except (yaml.YAMLError, AttributeError):
        return []  # anybody's card: without usable metadata the file names decide
    return [config for config in configs if isinstance(config, dict)]


def _names(split: str, file_name: str) -> bool:
    """Whether a file's name or one of its folders says the split as a word (`data/test-00000-of-00001.parquet`)."""
    return re.search(rf"(?<![a-z]){re.escape(split)}(?![a-z])", file_name.lower()) is not None
