"""The benchmarks: what is asked, with which prompt and decoding, how often, and where the problems are from.

A benchmark is data: `registry.yaml` beside this file, a user's file of the same form, or dataset and columns by name
(`erpd_hub.config.benchmarks`). Hub datasets are read at `revision`, or at the newest commit, which then stands in the
lineage of the evaluation; `state_of` says whether the problems are those that the entry was checked with.
"""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from erpd_hub.arithmetic import random_problems
from erpd_hub.chain import chain_problems
from erpd_hub.config import Decoding, PromptFormat, PromptSelection
from erpd_hub.config.benchmarks import (
    AD_HOC,
    BenchmarkEntry,
    FileSource,
    Generated,
    GeneratedChains,
    GeneratedPrograms,
    HubSource,
    LiveCodeBenchSource,
)
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.evaluation.golds import normalise_gold
from erpd_hub.evaluation.tables import Row, read_file, read_split, require_columns
from erpd_hub.programs import program_problems
from erpd_hub.prompts import Problem, problem_key
from erpd_hub.recipe_files import parse_mapping
from erpd_hub.references import PathRef, RepoRef

logger = logging.getLogger(__name__)

Source = Generated | GeneratedChains | GeneratedPrograms | HubSource | FileSource | LiveCodeBenchSource
State = Literal["known", "other", "unrecorded"]
"""Whether problems and golds are those that the entry was checked with; `unrecorded` where it does not say."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's entry (`BenchmarkEntry`, which documents the fields) under its name."""

    name: str
    version: int
    source: Source
    num_problems: int | None
    k: int
    format: PromptFormat
    decoding: Decoding
    licence: str
    note: str
    grader: Literal["math", "code"] = "math"
    share: Literal["full", "ids"] = "full"
    problems_sha256: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a score and its details depend on: version, problems, prompt, decoding, what is shared; not K, which a
        run may choose. A file's content is an input of the evaluation, its path nothing."""
        source = self.source.model_dump(mode="json", exclude={"type", "path"})
        return {
            "version": self.version,
            "source": source,
            "format": self.format.model_dump(mode="json"),
            "decoding": self.decoding.model_dump(mode="json"),
            **({"grader": self.grader} if self.grader != "math" else {}),
            **({"share": self.share} if self.share != "full" else {}),
        }

    @property
    def definition_sha256(self) -> str:
        """Of the identity: tells two benchmarks of the same name apart."""
        return definition_hash(self.identity)

    @property
    def reference(self) -> RepoRef | PathRef | None:
        """Where its data come from; None for a generated one."""
        if isinstance(self.source, HubSource | LiveCodeBenchSource):
            return RepoRef(self.source.dataset, self.source.revision)
        return PathRef(self.source.path) if isinstance(self.source, FileSource) else None

    @property
    def is_fixed(self) -> bool:
        """Whether the problems cannot change: generated from a seed, read at a commit, or a file, which is an input."""
        revision = getattr(self.source, "revision", "")
        return revision is not None and (not revision or re.fullmatch(r"[0-9a-f]{40}", revision) is not None)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of its dataset that are needed; empty for all."""
        return self.source.files if isinstance(self.source, LiveCodeBenchSource) else ()


def definition_hash(identity: Mapping[str, Any]) -> str:
    """sha256 of a benchmark's identity, also of one that a record holds."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def make_benchmark(name: str, entry: BenchmarkEntry) -> Benchmark:
    return Benchmark(name, **{field: getattr(entry, field) for field in BenchmarkEntry.model_fields})


def _registry() -> dict[str, Benchmark]:
    text = (files("erpd_hub.evaluation") / "registry.yaml").read_text(encoding="utf-8")
    entries = parse_mapping(text, "registry.yaml")
    return {name: make_benchmark(name, BenchmarkEntry.model_validate(entry)) for name, entry in entries.items()}


BENCHMARKS: dict[str, Benchmark] = _registry()


def get_benchmark(name: str, definitions: Mapping[str, BenchmarkEntry] | None = None) -> Benchmark:
    """A benchmark of the user's own definitions, or a registered one.

    Raises:
        ConfigError: there is none of that name.
    """
    if definitions and name in definitions:
        return make_benchmark(name, definitions[name])
    if name not in BENCHMARKS:
        known = [*BENCHMARKS, *(definitions or {})]
        close = get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise ConfigError(f"benchmark: expected a registered name or {AD_HOC}, got {name!r}; {hint}")
    return BENCHMARKS[name]


def searched_benchmarks(config: PromptSelection) -> tuple[Benchmark, ...]:
    """The benchmarks whose problems a prompt set must not have.

    Raises:
        ConfigError: one is neither registered nor the user's own.
    """
    if config.decontaminate != "all":
        return tuple(get_benchmark(name, config.definitions) for name in config.decontaminate)
    registered = [benchmark for benchmark in BENCHMARKS.values() if benchmark.grader == "math"]
    return (*registered, *(make_benchmark(name, entry) for name, entry in config.definitions.items()))


def load_problems(benchmark: Benchmark, folder: Path | None) -> list[Problem]:
    """The problems in the source's order; `folder` is the pulled dataset or the user's file, None for a generated one.

    A row without an answer, or with one known to be bad, stays, with an empty gold: ungradable, so it shows.

    Raises:
        ArtifactError: the folder lacks the split, a problem's text, or its id column is not unique.
        ConfigError: a column is missing.
    """
    source = benchmark.source
    if isinstance(source, Generated | GeneratedChains | GeneratedPrograms):
        return _generate(benchmark.name, source)
    assert folder is not None, f"{benchmark.name} comes from a dataset"
    if isinstance(source, LiveCodeBenchSource):
        from erpd_hub.evaluation.code import livecodebench

        return list(livecodebench.load_problems(benchmark.name, source, folder))
    config, split = (source.config, source.split) if isinstance(source, HubSource) else (None, "train")
    rows = read_file(folder) if folder.is_file() else read_split(folder, config_name=config, split=split)
    where = source.dataset if isinstance(source, HubSource) else folder.name
    return _problems(benchmark.name, source, rows, where=where)


def problems_hash(problems: Iterable[Problem]) -> str:
    """sha256 of ids, texts and golds: tells which state of a dataset a score is about."""
    rows = [[problem.problem_id, problem.problem, problem.gold] for problem in problems]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def state_of(benchmark: Benchmark, problems: Iterable[Problem]) -> State:
    """Whether all problems of a benchmark are as its entry knows them."""
    if benchmark.problems_sha256 is None:
        return "unrecorded"
    return "known" if problems_hash(problems) == benchmark.problems_sha256 else "other"


def check_state(benchmark: Benchmark, problems: Iterable[Problem], *, required: bool = False) -> State:
    """Say before anything is sampled that the problems are not those that the entry was checked with.

    Args:
        required: Whether they have to be; without a recorded state it is enough that nothing can change them.

    Raises:
        StageError: they have to be, and are not known to be.
    """
    state = state_of(benchmark, problems)
    if state == "known" or (state == "unrecorded" and (not required or benchmark.is_fixed)):
        return state
    got = "others: its dataset has changed" if state == "other" else "ones that no commit and no hash is known of"
    where = f"{benchmark.name}: expected the problems that its entry was checked with, got {got}"
    if required:
        advice = "pin the commit that has them (`like:` with `source: {revision: ...}`), or drop require_known_problems"
        raise StageError(f"{where}; {advice}")
    logger.warning("%s; the score will say so (problems_state: other)", where)
    return state


def _generate(name: str, source: Generated | GeneratedChains | GeneratedPrograms) -> list[Problem]:
    drawn = source.model_dump(exclude={"type"})
    if isinstance(source, Generated):
        pairs = random_problems(**drawn)
    else:
        pairs = chain_problems(**drawn) if isinstance(source, GeneratedChains) else program_problems(**drawn)
    return [Problem(problem_key(problem), name, problem, answer) for problem, answer in pairs]


def _problems(name: str, source: HubSource | FileSource, rows: list[Row], *, where: str) -> list[Problem]:
    columns = [source.problem_column, source.answer_column, *([source.id_column] if source.id_column else [])]
    require_columns(rows, columns, where=f"{name} ({where})")
    problems = []
    seen: Counter[str] = Counter()
    for index, row in enumerate(rows):
        text = str(row.get(source.problem_column) or "").strip()
        if not text:
            raise ArtifactError(f"{where}: expected a problem in row {index}, got none; leave the row out")
        problem_id = str(row[source.id_column]) if source.id_column else problem_key(text)
        seen[problem_id] += 1
        if seen[problem_id] > 1:
            problem_id = _repeated(source, problem_id, seen[problem_id], where=f"{where}: row {index}")
        problems.append(Problem(problem_id, name, text, _gold(source, problem_id, row.get(source.answer_column))))
    return problems


def _repeated(source: HubSource | FileSource, problem_id: str, times: int, *, where: str) -> str:
    """The id of a problem that has been there before: a row counts as often as the dataset has it, and is named."""
    if source.id_column:
        raise ArtifactError(f"{where}: expected a different id in each row, got {problem_id!r} twice; set `id_column`")
    logger.warning("%s repeats an earlier problem; it counts by itself, as %s-%d", where, problem_id, times)
    return f"{problem_id}-{times}"


def _gold(source: HubSource | FileSource, problem_id: str, answer: object) -> str:
    text = "" if answer is None else str(answer)
    if source.answer_marker is not None:
        answer = text = text.rpartition(source.answer_marker)[2] if source.answer_marker in text else ""
    return "" if (problem_id, text.strip()) in source.bad_golds else normalise_gold(answer)
