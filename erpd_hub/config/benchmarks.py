"""What a benchmark is, as data: the registry's entries and a user's own have this one form.

A user's entry travels inside the step that names it (`definitions`), so that planning, a worker process and the record
see the whole of it. `namespace/name[@revision]:[config/]split:problem_column:answer_column` names a column pair of any
Hub dataset without an entry; it becomes one when the step is checked.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from erpd_hub.config.formats import Decoding, PromptFormat
from erpd_hub.fields import Config, LocalOnly, Operational, as_tuple

AD_HOC = "namespace/name[@revision]:[config/]split:problem_column:answer_column"

_DATASET = r"[\w][\w.-]*/[\w][\w.-]*"
_AD_HOC = re.compile(
    rf"(?P<dataset>{_DATASET})(?:@(?P<revision>[\w][\w./-]*))?:(?:(?P<config>[^:/]+)/)?(?P<split>[^:/]+)"
    r":(?P<problem_column>[^:]+):(?P<answer_column>[^:]+)"
)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,79}")
_COPY = re.compile(r"-(?:judged|to-\d+)$")
"""Ends the folders of judged copies and of extensions."""


def _dataset(text: str) -> str:
    if not re.fullmatch(_DATASET, text):
        raise ValueError(f"expected a Hub dataset as namespace/name, got {text!r}")
    return text


class Generated(Config):
    """Additions drawn from a seed (see `erpd_hub.arithmetic.random_problems`)."""

    type: Literal["additions"]
    count: PositiveInt
    seed: NonNegativeInt
    min_digits: PositiveInt
    max_digits: PositiveInt
    spaces: bool = False


class GeneratedChains(Config):
    """Chains of additions drawn from a seed (see `erpd_hub.chain.chain_problems`)."""

    type: Literal["chains"]
    count: PositiveInt
    seed: NonNegativeInt
    min_digits: PositiveInt
    max_digits: PositiveInt
    steps: PositiveInt


class GeneratedPrograms(Config):
    """Programming problems of one line drawn from a seed, with their tests (see `erpd_hub.programs`)."""

    type: Literal["programs"]
    count: PositiveInt
    seed: NonNegativeInt
    min_digits: PositiveInt
    max_digits: PositiveInt


class _Columns(Config):
    """What of a row is the problem, and what the gold."""

    problem_column: str = "problem"
    answer_column: str = "answer"
    id_column: str | None = None
    """None takes a hash of the problem."""
    answer_marker: str | None = None
    """The gold is what follows the last marker in the answer column."""
    bad_golds: tuple[tuple[str, str], ...] = ()
    """(problem id, answer) pairs that are wrong at the source; these problems have no gold and are ungradable."""


class HubSource(_Columns):
    """A split of a Hub dataset."""

    type: Literal["hub"]
    dataset: Annotated[str, AfterValidator(_dataset)]
    revision: str | None = None
    """A commit; None is the newest, which then stands in the lineage of the evaluation."""
    config: str | None = None
    split: str = "test"


class FileSource(_Columns):
    """A file of rows, or a folder of such files: parquet, JSON lines, JSON or CSV."""

    type: Literal["file"]
    path: Annotated[str, LocalOnly] = ""
    """Never recorded: what counts is the content, whose hash goes into the fingerprint."""


class LiveCodeBenchSource(Config):
    """Problems with tests from LiveCodeBench's release files, optionally those of a window of contest dates."""

    type: Literal["livecodebench"]
    dataset: Annotated[str, AfterValidator(_dataset)] = "livecodebench/code_generation_lite"
    revision: str | None = None
    files: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of the dataset; only these are downloaded. `test5.jsonl` is what v5 added, `test.jsonl` to it are release_v5."""
    start: date | None = None
    """From its midnight on."""
    end: date | None = None
    """Up to its midnight, as LiveCodeBench counts: a contest held later on that day is out."""

    @model_validator(mode="after")
    def _is_window(self) -> "LiveCodeBenchSource":
        if self.start and self.end and self.start > self.end:
            raise ValueError(f"start: expected a date up to end {self.end}, got {self.start}")
        return self


def _source_type(value: Any) -> Any:
    """`{path: ...}` is a file, `{files: ...}` LiveCodeBench, `{dataset: ...}` any Hub dataset."""
    if not isinstance(value, Mapping) or "type" in value:
        return value
    kind = "file" if "path" in value else "livecodebench" if "files" in value else "hub"
    return {"type": kind, **value}


Source = Annotated[
    Generated | GeneratedChains | GeneratedPrograms | HubSource | FileSource | LiveCodeBenchSource,
    Field(discriminator="type"),
    BeforeValidator(_source_type),
]


class BenchmarkEntry(Config):
    """A benchmark without its name. Of a user's own only the source has to be said."""

    version: PositiveInt = 1
    """Raised when the same name asks or grades something else."""
    source: Source
    num_problems: PositiveInt | None = None
    """At the source's state when the entry was written, for plans; the actual number is that of the rows."""
    problems_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Of ids, texts and golds of all problems as they were when the entry was checked: a score on another state of the
    dataset says so."""
    k: PositiveInt = 8
    """Samples a problem unless the run says otherwise; [P] 32 on the contests, 16 on BeyondAIME and 4 on
    IMO-AnswerBench; 8 is ours [I]."""
    format: PromptFormat = PromptFormat(
        template="{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    decoding: Decoding = Decoding(temperature=0.6, top_p=0.95, max_new_tokens=81_920)
    """[P] Qwen3-4B; other sampling parameters are left at the model's default there."""
    grader: Literal["math", "code"] = "math"
    """`math` compares the final answer with the gold, `code` runs the response's program on the problem's tests."""
    share: Literal["full", "ids"] = "full"
    """What details show of the problems: `ids` leaves prompts and golds out, for licences that ask for it."""
    licence: str = "unknown"
    """Of the problems."""
    note: str = ""
    """Why it is here and what to know of its problems."""

    @model_validator(mode="after")
    def _has_its_grader(self) -> "BenchmarkEntry":
        needed = "code" if isinstance(self.source, LiveCodeBenchSource | GeneratedPrograms) else "math"
        if self.grader != needed:
            raise ValueError(f"grader: expected {needed} with a source of type {self.source.type}, got {self.grader}")
        return self


def check_name(name: str) -> str:
    """Raises ValueError: not fit to be a folder's name, or the folder of another benchmark's copy."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a benchmark name of letters, digits, '_', '-' and '.', got {name!r}")
    if _COPY.search(name):
        raise ValueError(
            f"expected a benchmark name without -judged or -to-NUMBER at its end, which copies have, got {name!r}"
        )
    return name


def _own_names(definitions: dict[str, BenchmarkEntry]) -> dict[str, BenchmarkEntry]:
    """Raises ValueError: a name that is none, or a registered one over something else, whose scores would be taken for
    that benchmark's."""
    from erpd_hub.evaluation.benchmarks import BENCHMARKS, make_benchmark

    for name, entry in definitions.items():
        check_name(name)
        if name in BENCHMARKS and make_benchmark(name, entry) != BENCHMARKS[name]:
            raise ValueError(f"expected another name, {name} is registered; `like: {name}` takes its entry over")
    return definitions


Definitions = Annotated[dict[str, BenchmarkEntry], AfterValidator(_own_names), Operational]
"""Entries of the user's own by name, in the configs that name them. What of them makes a score enters the fingerprint
with the benchmark itself (`Node.identity`)."""


def is_ad_hoc(text: str) -> bool:
    """Whether a benchmark is named by dataset and columns."""
    return "/" in text or ":" in text


def parse_ad_hoc(text: str) -> tuple[str, BenchmarkEntry]:
    """Name and entry of a benchmark that is named by dataset and columns; the name says which columns by a hash.

    Raises:
        ValueError: not of the form.
    """
    match = _AD_HOC.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a registered name or {AD_HOC}, got {text!r}")
    source = HubSource.model_validate({"type": "hub", **match.groupdict()})
    entry = BenchmarkEntry(source=source, note="Named by dataset and columns.")
    told = hashlib.sha256(json.dumps(source.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:6]
    parts = [source.dataset.replace("/", "--"), *([source.config] if source.config else []), source.split]
    stem = re.sub(r"[^\w.-]", "-", "--".join(parts))[:73]
    return f"{stem}-{told}", entry


def with_ad_hoc(data: Any, field: str) -> Any:
    """A step's keys with benchmarks that are named by dataset and columns as names and `definitions`."""
    names = as_tuple(data.get(field)) if isinstance(data, Mapping) else None
    single = isinstance(data, Mapping) and isinstance(data.get(field), str)
    if not isinstance(names, list | tuple) or not any(isinstance(name, str) and is_ad_hoc(name) for name in names):
        return data
    made = {name: parse_ad_hoc(name) for name in names if isinstance(name, str) and is_ad_hoc(name)}
    plain = [made[name][0] if name in made else name for name in names]
    definitions = {**(data.get("definitions") or {}), **dict(made.values())}
    return {**data, field: plain[0] if single and len(plain) == 1 else plain, "definitions": definitions}
