"""The registered benchmarks: what is asked, with which prompt and decoding, how often, and where the problems are from.

A benchmark is data; its `version` is raised when the same name asks or grades something else. Hub datasets are read at
`revision`, or at the newest commit, which then stands in the lineage of the evaluation.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from erpd_hub.arithmetic import random_problems
from erpd_hub.chain import chain_problems
from erpd_hub.config import Decoding, PromptFormat
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.tables import read_split, require_columns
from erpd_hub.prompts import Problem, problem_key


@dataclass(frozen=True)
class Generated:
    """Additions drawn from a seed (see `erpd_hub.arithmetic.random_problems`)."""

    count: int
    seed: int
    min_digits: int
    max_digits: int
    spaces: bool = False


@dataclass(frozen=True)
class GeneratedChains:
    """Chains of additions drawn from a seed (see `erpd_hub.chain.chain_problems`)."""

    count: int
    seed: int
    min_digits: int
    max_digits: int
    steps: int


@dataclass(frozen=True)
class HubSource:
    """A split of a Hub dataset."""

    dataset: str
    revision: str | None
    config: str | None
    split: str
    problem_column: str
    answer_column: str
    id_column: str | None = None
    answer_marker: str | None = None
    """The gold is what follows the last marker in the answer column."""
    bad_golds: tuple[tuple[str, str], ...] = ()
    """(problem id, answer) pairs that are wrong at the source; these problems have no gold and are ungradable."""


@dataclass(frozen=True)
class Benchmark:
    name: str
    version: int
    source: Generated | GeneratedChains | HubSource
    num_problems: int
    """At the source's state when the entry was written; the actual number is that of the rows."""
    k: int
    format: PromptFormat
    decoding: Decoding
    licence: str
    """Of the problems."""
    note: str
    """Why it is here and what to know of its problems."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a score depends on: version, problems, prompt, decoding; not K, which a run may choose."""
        return {
            "version": self.version,
            "source": asdict(self.source),
            "format": self.format.model_dump(mode="json"),
            "decoding": self.decoding.model_dump(mode="json"),
        }


_ADDITION_SEED = 7_919_000_001  # recipes count their seeds from 0
_CONTEST_FORMAT = PromptFormat(
    template="{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
)
_CONTEST_DECODING = Decoding(temperature=0.6, top_p=0.95, max_new_tokens=81_920)
_FEW_SHOT_FORMAT = PromptFormat(
    template="3 + 8 = 11\n45 + 38 = 83\n{problem} =", chat=False, stop=("\n",), extract="first-line"
)
_MATHARENA = "CC-BY-NC-SA-4.0"


def _matharena(name: str, num_problems: int, note: str) -> Benchmark:
    source = HubSource(f"MathArena/{name}", None, None, "train", "problem", "answer", "problem_idx")
    return _contest(name, source, num_problems, 32, _MATHARENA, note)


def _contest(name: str, source: HubSource, num_problems: int, k: int, licence: str, note: str) -> Benchmark:
    return Benchmark(name, 1, source, num_problems, k, _CONTEST_FORMAT, _CONTEST_DECODING, licence, note)


_ALL = (
    Benchmark(
        name="addition",
        version=1,
        source=Generated(count=200, seed=_ADDITION_SEED, min_digits=2, max_digits=3),
        num_problems=200,
        k=8,
        format=PromptFormat(template="{problem}?"),
        decoding=Decoding(max_new_tokens=64),
        licence="Apache-2.0",
        note="The tiny policy's own task; generated, and removed from generated prompt sets.",
    ),
    Benchmark(
        name="addition-1digit",
        version=1,
        source=Generated(count=40, seed=_ADDITION_SEED + 2, min_digits=1, max_digits=1),
        num_problems=40,
        k=8,
        format=PromptFormat(template="{problem}?"),
        decoding=Decoding(max_new_tokens=32),
        licence="Apache-2.0",
        note="For trying out a pipeline in seconds: there are only 100 such problems, so training has seen many.",
    ),
    Benchmark(
        name="addition-lazy",
        version=1,
        source=Generated(count=200, seed=_ADDITION_SEED + 3, min_digits=2, max_digits=2),
        num_problems=200,
        k=8,
        format=PromptFormat(template="{problem}?"),
        decoding=Decoding(max_new_tokens=48),
        licence="Apache-2.0",
        note="The task of the tiny policy that announces its method; generated, 200 of the 8,100 such problems.",
    ),
    Benchmark(
        name="chain",
        version=1,
        source=GeneratedChains(count=64, seed=_ADDITION_SEED + 4, min_digits=2, max_digits=2, steps=40),
        num_problems=64,
        k=4,
        format=PromptFormat(template="{problem}?"),
        decoding=Decoding(max_new_tokens=1024),
        licence="Apache-2.0",
        note="The tiny policy's long task: 40 additions one after the other, 965 tokens a response.",
    ),
    Benchmark(
        name="addition-2digit",
        version=1,
        source=Generated(count=100, seed=_ADDITION_SEED + 1, min_digits=2, max_digits=2, spaces=True),
        num_problems=100,
        k=8,
        format=_FEW_SHOT_FORMAT,
        decoding=Decoding(max_new_tokens=8),
        licence="Apache-2.0",
        note="Few-shot completion for small real models such as SmolLM2-135M, whose chat answers are of no use.",
    ),
    _contest(
        "aime_2024",
        HubSource("HuggingFaceH4/aime_2024", None, None, "train", "problem", "answer", "id"),
        30,
        32,
        "Apache-2.0 (dataset card; problems MAA)",
        "Integers from 0 to 999; older than the training data of most models.",
    ),
    _matharena("aime_2025", 30, "Integers from 0 to 999."),
    _matharena("hmmt_feb_2025", 30, "About half of the answers are integers."),
    _matharena("hmmt_nov_2025", 30, "About two thirds of the answers are integers."),
    _matharena("hmmt_feb_2026", 33, "Problem 32 has a \\boxed{} in its text; problem 9 needs exact arithmetic."),
    _contest(
        "beyond_aime",
        HubSource("ByteDance-Seed/BeyondAIME", None, None, "test", "problem", "answer"),
        100,
        16,
        "CC0-1.0",
        "Integers of any size; ids are hashes of the problems.",
    ),
    _contest(
        "imo_answerbench",
        HubSource(
            "Hwilner/imo-answerbench",
            None,
            None,
            "train",
            "Problem",
            "Short Answer",
            "Problem ID",
            bad_golds=(("imo-bench-algebra-036", "Algebra"),),
        ),
        400,
        4,
        "CC-BY-4.0",
        "About 26 answers are prose and compared as text, so a lower bound without a judge; v2 has a corrupt row.",
    ),
    _contest(
        "gsm8k",
        HubSource("openai/gsm8k", None, "main", "test", "question", "answer", answer_marker="####"),
        1319,
        4,
        "MIT",
        "Grade-school arithmetic; saturated by most models.",
    ),
)

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def get_benchmark(name: str) -> Benchmark:
    """A registered benchmark.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in BENCHMARKS:
        close = get_close_matches(name, BENCHMARKS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(BENCHMARKS)}"
        raise ConfigError(f"benchmark: expected a registered name, got {name!r}; {hint}")
    return BENCHMARKS[name]


def load_problems(benchmark: Benchmark, folder: Path | None) -> list[Problem]:
    """The problems in the source's order; `folder` is the pulled dataset, None for a generated one.

    A row without an answer, or with one known to be bad, stays, with an empty gold: ungradable, so it shows.

    Raises:
        ArtifactError: the folder lacks the split, a problem's text, or its ids are not unique.
        ConfigError: a column is missing.
    """
    if not isinstance(benchmark.source, HubSource):
        return _generate(benchmark.name, benchmark.source)
    assert folder is not None, f"{benchmark.name} comes from a Hub dataset"
    return _read(benchmark.name, benchmark.source, folder)


def problems_hash(problems: Iterable[Problem]) -> str:
    """sha256 of ids, texts and golds: tells which state of a dataset a score is about."""
    rows = [[problem.problem_id, problem.problem, problem.gold] for problem in problems]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _generate(name: str, source: Generated | GeneratedChains) -> list[Problem]:
    drawn = asdict(source)
    count = drawn.pop("count")
    pairs = random_problems(count, **drawn) if isinstance(source, Generated) else chain_problems(count, **drawn)
    return [Problem(problem_key(problem), name, problem, answer) for problem, answer in pairs]


def _read(name: str, source: HubSource, folder: Path) -> list[Problem]:
    rows = read_split(folder, config_name=source.config, split=source.split)
    columns = [source.problem_column, source.answer_column, *([source.id_column] if source.id_column else [])]
    require_columns(rows, columns, where=f"{name} ({source.dataset})")
    problems = []
    for index, row in enumerate(rows):
        text = str(row.get(source.problem_column) or "").strip()
        if not text:
            raise ArtifactError(f"{source.dataset}: expected a problem in row {index}, got none")
        problem_id = str(row[source.id_column]) if source.id_column else problem_key(text)
        problems.append(Problem(problem_id, name, text, _gold(source, problem_id, row.get(source.answer_column))))
    if len({problem.problem_id for problem in problems}) < len(problems):
        raise ArtifactError(f"{source.dataset}: expected a different id in each row, got some twice")
    return problems


def _gold(source: HubSource, problem_id: str, answer: object) -> str:
    text = "" if answer is None else str(answer)
    if source.answer_marker is not None:
        text = text.rpartition(source.answer_marker)[2] if source.answer_marker in text else ""
    return "" if (problem_id, text.strip()) in source.bad_golds else text.strip()
