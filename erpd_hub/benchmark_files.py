"""A user's own benchmarks: YAML of the registry's form, in files or in the recipe, handed to the steps that name them.

my-contest:
  source: {dataset: me/contest, split: test, problem_column: question, answer_column: solution}
short-aime:
  like: aime_2025
  decoding: {max_new_tokens: 8192}
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erpd_hub.config.benchmarks import BenchmarkEntry, check_name, is_ad_hoc, parse_ad_hoc
from erpd_hub.errors import ConfigError
from erpd_hub.fields import as_tuple
from erpd_hub.recipe_files import merge, parse_mapping, read_text, suggestion
from erpd_hub.refusals import check_part

if TYPE_CHECKING:
    from erpd_hub.evaluation.benchmarks import Benchmark

_NAMED_IN = {"evaluate": "benchmarks", "select": "benchmark", "gate": "benchmark", "prompts": "decontaminate"}
"""Stages that name benchmarks, and the key that they do it with."""


def own_benchmarks(data: Mapping[str, Any], origin: str) -> dict[str, BenchmarkEntry]:
    """The entries of a recipe's `benchmark_files` and `benchmarks`.

    Raises:
        ConfigError: a file that cannot be read, a name that is taken, or an entry that does not fit.
    """
    raw: dict[str, tuple[str, Any]] = {}
    files = as_tuple(data.get("benchmark_files") or ())
    if not isinstance(files, list | tuple) or not all(isinstance(name, str) for name in files):
        raise ConfigError(f"{origin}: benchmark_files: expected a list of YAML files, got {files!r}")
    for name in files:
        _add(raw, _from_file(Path(name)), Path(name).name)
    inline = data.get("benchmarks") or {}
    if not isinstance(inline, Mapping):
        raise ConfigError(f"{origin}: benchmarks: expected a mapping of names to entries, got {inline!r}")
    _add(raw, inline, f"{origin}: benchmarks.")
    return {name: _entry(name, raw) for name in raw}


def all_benchmarks(files: Sequence[Path] = ()) -> dict[str, "Benchmark"]:
    """Registered benchmarks and those of files, by name.

    Raises:
        ConfigError: see `own_benchmarks`.
    """
    from erpd_hub.evaluation.benchmarks import BENCHMARKS, make_benchmark

    own = own_benchmarks({"benchmark_files": [str(path) for path in files]}, "benchmarks")
    return {**BENCHMARKS, **{name: make_benchmark(name, entry) for name, entry in own.items()}}


def find_benchmark(name: str, files: Sequence[Path] = ()) -> "Benchmark":
    """A benchmark by any name: registered, of a file, or dataset and columns.

    Raises:
        ConfigError: there is none.
    """
    from erpd_hub.evaluation.benchmarks import get_benchmark, make_benchmark

    if is_ad_hoc(name):
        try:
            return make_benchmark(*parse_ad_hoc(name))
        except ValueError as error:
            raise ConfigError(f"benchmark: {error}") from None
    found = all_benchmarks(files)
    return found[name] if name in found else get_benchmark(name)


def with_definitions(stage: str, step: Any, own: Mapping[str, BenchmarkEntry]) -> Any:
    """A step's keys with the entries of the user's own benchmarks that it names."""
    if not own or stage not in _NAMED_IN or not isinstance(step, Mapping):
        return step
    asked = step.get(_NAMED_IN[stage], "all" if stage == "prompts" else ())
    names = as_tuple(asked)
    used = own if asked == "all" else {name: entry for name, entry in own.items() if name in (names or ())}
    if not used:
        return step
    given = {name: entry.model_dump(mode="json") for name, entry in used.items()}
    return {**step, "definitions": {**given, **(step.get("definitions") or {})}}


def _from_file(path: Path) -> dict[str, Any]:
    """The entries of a file; a path in one starts from the file's folder."""
    entries = parse_mapping(read_text(path), path.name, "a mapping of benchmark names to entries")
    for entry in entries.values():
        source = entry.get("source") if isinstance(entry, dict) else None
        if isinstance(source, dict) and isinstance(source.get("path"), str):
            source["path"] = str(path.expanduser().parent / Path(source["path"]).expanduser())
    return entries


def _add(raw: dict[str, tuple[str, Any]], entries: Mapping[str, Any], origin: str) -> None:
    """Raises ConfigError: a name that is none, is registered or stands in two places."""
    if not entries:
        return
    from erpd_hub.evaluation.benchmarks import BENCHMARKS

    where = origin if origin.endswith(".") else f"{origin}: "
    for name, entry in entries.items():
        try:
            check_name(str(name))
        except ValueError as error:
            raise ConfigError(f"{origin.rstrip('.')}: {error}") from None
        if name in BENCHMARKS or name in raw:
            other = f"{name} is registered" if name in BENCHMARKS else f"{name} stands in {raw[name][0].rstrip('.: ')}"
            raise ConfigError(f"{where}{name}: expected another name, {other}; `like: {name}` takes its entry over")
        raw[str(name)] = (where, entry)


def _entry(name: str, raw: Mapping[str, tuple[str, Any]]) -> BenchmarkEntry:
    where, values = raw[name]
    origin, _, inside = where.rpartition(": ")
    place = f"{inside}{name}."
    full = _merged(name, raw, within=())
    return check_part(BenchmarkEntry, full, values, origin, place)


def _merged(name: str, raw: Mapping[str, tuple[str, Any]], *, within: tuple[str, ...]) -> dict[str, Any]:
    """An entry over the one that it is `like`, which may be a registered one, else over what entries have by default.

    A changed source has another content, so what was recorded of the other's is left out.
    """
    from erpd_hub.evaluation.benchmarks import BENCHMARKS

    if name in BENCHMARKS:
        return _as_entry(BENCHMARKS[name])
    where, values = raw[name]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}{name}: expected a mapping of keys, got {values!r}")
    own = {key: value for key, value in values.items() if key != "like"}
    above, known = values.get("like"), [*BENCHMARKS, *raw]
    if "like" in values and (above not in known or above in (*within, name)):
        hint = suggestion(str(above), known)
        raise ConfigError(f"{where}{name}.like: expected another benchmark, got {above!r}{hint}")
    below = _DEFAULTS if above is None else _merged(str(above), raw, within=(*within, name))
    if isinstance(source := own.get("source"), Mapping):
        below = {key: value for key, value in below.items() if key not in ("num_problems", "problems_sha256")}
        own["source"] = {"type": "file", **source} if "path" in source else source
    return merge(below, {"version": 1, **own})


_DEFAULTS: dict[str, Any] = {
    name: BenchmarkEntry.model_fields[name].default.model_dump(mode="json") for name in ("format", "decoding")
}


def _as_entry(benchmark: "Benchmark") -> dict[str, Any]:
    entry = BenchmarkEntry(**{name: getattr(benchmark, name) for name in BenchmarkEntry.model_fields})
    return entry.model_dump(mode="json")
