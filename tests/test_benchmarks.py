"""The registered benchmarks (entries, reading a Hub dataset, golds the grader accepts) and the evaluate stage."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erpd_hub.arithmetic import random_problems
from erpd_hub.config import Decoding, EvaluateConfig, PromptFormat, TinyBase
from erpd_hub.config.benchmarks import BenchmarkEntry, Generated, HubSource
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.evaluation.benchmarks import (
    BENCHMARKS,
    check_state,
    get_benchmark,
    load_problems,
    make_benchmark,
    problems_hash,
    state_of,
)
from erpd_hub.evaluation.grading import Response, check_golds, grade_many
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.evaluation.tables import read_split, require_columns, split_files
from erpd_hub.fields import identity
from erpd_hub.samples import read_rows
from erpd_hub.stage_context import StageContext
from erpd_hub.stages import evaluate

SAMPLES = {  # one row or two in each Hub dataset's own columns
    "aime_2024": [{"id": 60, "problem": "What is 200 + 4?", "answer": "204"}],
    "aime_2025": [{"problem_idx": 1, "problem": "What is 7 * 10?", "answer": 70}],
    "hmmt_feb_2025": [{"problem_idx": 1, "problem": "Half of sqrt 2?", "answer": r"\frac{\sqrt{2}}{2}"}],
    "hmmt_nov_2025": [{"problem_idx": 4, "problem": "An interval?", "answer": r"$(0, \frac{1}{3}]$"}],
    "hmmt_feb_2026": [{"problem_idx": 32, "problem": r"Give it as \boxed{0,1,2}.", "answer": r"74^\circ"}],
    "beyond_aime": [{"problem": "What is 10^6?", "answer": 1000000}],
    "imo_answerbench": [
        {"Problem ID": "imo-bench-number_theory-001", "Problem": "Which n?", "Short Answer": "odd $n$\n"},
        {"Problem ID": "imo-bench-algebra-001", "Problem": "How many?", "Short Answer": "1,406"},
    ],
    "gsm8k": [{"question": "2 apples and 3?", "answer": "There are 2+3=<<2+3=5>>5.\n#### 5"}],
}
BENCHDATA = {
    "aime_2024": "HuggingFaceH4__aime_2024",
    "aime_2025": "MathArena__aime_2025",
    "hmmt_feb_2025": "MathArena__hmmt_feb_2025",
    "hmmt_nov_2025": "MathArena__hmmt_nov_2025",
    "hmmt_feb_2026": "MathArena__hmmt_feb_2026",
    "beyond_aime": "ByteDance-Seed__BeyondAIME",
    "imo_answerbench": "Hwilner__imo-answerbench__v2",
    "gsm8k": "openai__gsm8k__main__test",
}
HUB_NAMES = [name for name, benchmark in BENCHMARKS.items() if isinstance(benchmark.source, HubSource)]
GENERATED = {
    "addition": '{"count": 200, "max_digits": 3, "min_digits": 2, "seed": 7919000001, "spaces": false}',
    "addition-1digit": '{"count": 40, "max_digits": 1, "min_digits": 1, "seed": 7919000003, "spaces": false}',
    "addition-lazy": '{"count": 200, "max_digits": 2, "min_digits": 2, "seed": 7919000004, "spaces": false}',
    "chain": '{"count": 64, "max_digits": 2, "min_digits": 2, "seed": 7919000005, "steps": 40}',
    "addition-2digit": '{"count": 100, "max_digits": 2, "min_digits": 2, "seed": 7919000002, "spaces": true}',
}
"""Sources as they stand in the fingerprints of artifacts."""


def pulled(folder: Path, name: str, text: str) -> Path:
    """A dataset folder as pulled from the Hub, with one JSONL file of the benchmark's split."""
    source = BENCHMARKS[name].source
    assert isinstance(source, HubSource)
    path = folder / (source.config or "data") / f"{source.split}-00000-of-00001.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder


def as_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_entries_are_whole() -> None:
    assert set(SAMPLES) == set(HUB_NAMES)
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.version >= 1
        assert benchmark.licence
        assert benchmark.note
        assert benchmark.k > 1
        assert benchmark.grader == ("code" if benchmark.source.type in ("livecodebench", "programs") else "math")
        assert benchmark.share == (
            "full" if "NC" not in benchmark.licence and "LeetCode" not in benchmark.licence else "ids"
        )
        assert benchmark.problems_sha256 or benchmark.grader == "code", name
    assert (BENCHMARKS["beyond_aime"].k, BENCHMARKS["imo_answerbench"].k, BENCHMARKS["aime_2024"].k) == (16, 4, 32)


def test_unknown_name_says_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'aime_2025'"):
        get_benchmark("aime2025")


def test_generated_entries_are_those_of_published_fingerprints() -> None:
    for name, source in GENERATED.items():
        identity = BENCHMARKS[name].identity
        assert set(identity) == {"version", "source", "format", "decoding"}
        assert (identity["version"], json.dumps(identity["source"], sort_keys=True)) == (1, source)
        assert state_of(BENCHMARKS[name], load_problems(BENCHMARKS[name], None)) == "known"


def test_what_decides_on_a_score_is_in_the_identity() -> None:
    aime = BENCHMARKS["aime_2025"]
    changes = (
        {"version": 9}, {"share": "full"}, {"decoding": Decoding()}, {"format": PromptFormat()},
        {"source": BENCHMARKS["aime_2024"].source},
    )  # fmt: skip
    shas = {replace(aime, **change).definition_sha256 for change in changes}
    assert len(shas | {aime.definition_sha256}) == len(changes) + 1
    for free in ({"k": 1}, {"note": "x"}, {"licence": "x"}, {"num_problems": 1}, {"problems_sha256": None}):
        assert replace(aime, **free).identity == aime.identity


@pytest.mark.parametrize("name", ["addition", "addition-2digit"])
def test_generated(name: str) -> None:
    benchmark = get_benchmark(name)
    problems = load_problems(benchmark, None)
    assert len(problems) == benchmark.num_problems == len({p.problem_id for p in problems})
    assert problems == load_problems(benchmark, None)
    for problem in problems:
        a, b = problem.problem.split("+")
        assert int(a) + int(b) == int(problem.gold)
    assert check_golds([p.gold for p in problems], extract=benchmark.format.extract) == [None] * len(problems)


def test_generated_problems_are_not_those_of_small_seeds() -> None:
    source = get_benchmark("addition").source
    assert isinstance(source, Generated)
    held = {p.problem for p in load_problems(get_benchmark("addition"), None)}
    drawn = {
        p for seed in range(20) for p, _ in random_problems(5, min_digits=2, max_digits=4, seed=seed, spaces=False)
    }
    assert not held & drawn


@pytest.mark.parametrize("name", HUB_NAMES)
def test_grader_accepts_golds_of_own_rows(name: str, tmp_path: Path) -> None:
    problems = load_problems(get_benchmark(name), pulled(tmp_path, name, as_lines(SAMPLES[name])))
    assert len(problems) == len(SAMPLES[name])
    assert all(problem.gold and problem.source == name for problem in problems)
    assert check_golds([p.gold for p in problems], extract="boxed") == [None] * len(problems)
    grades = grade_many([Response(p.gold, f"{p.problem} \\boxed{{{p.gold}}}") for p in problems], extract="boxed")
    assert {grade.label for grade in grades} == {1}


@pytest.mark.parametrize("name", HUB_NAMES)
def test_the_real_rows_are_those_the_entry_knows(name: str, tmp_path: Path) -> None:
    if not (folder := os.environ.get("ERPD_BENCHDATA")):
        pytest.skip("ERPD_BENCHDATA is not set")
    text = (Path(folder) / f"{BENCHDATA[name]}.jsonl").read_text()
    problems = load_problems(get_benchmark(name), pulled(tmp_path, name, text))
    assert len(problems) == get_benchmark(name).num_problems
    assert state_of(get_benchmark(name), problems) == "known"
    assert state_of(get_benchmark(name), problems[1:]) == "other"


def test_other_problems_are_named_before_sampling_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = {"problem_idx": 1, "problem": "p", "answer": 1}
    aime, open_entry = (
        get_benchmark("aime_2025"),
        make_benchmark("mine", BenchmarkEntry(source=HubSource(dataset="a/b", type="hub"))),
    )
    problems = load_problems(aime, pulled(tmp_path, "aime_2025", as_lines([row])))
    assert check_state(aime, problems) == "other"
    assert "aime_2025: expected the problems that its entry was checked with, got others" in caplog.text
    assert check_state(open_entry, problems) == "unrecorded"
    for benchmark in (aime, open_entry):
        with pytest.raises(StageError, match="pin the commit"):
            check_state(benchmark, problems, required=True)
    for name in ("programs", "livecodebench_v6"):
        assert check_state(get_benchmark(name), problems, required=True) == "unrecorded"
    assert (
        check_state(get_benchmark("addition"), load_problems(get_benchmark("addition"), None), required=True) == "known"
    )


def test_which_benchmarks_have_no_pinned_commit() -> None:
    assert {name for name, benchmark in BENCHMARKS.items() if not benchmark.is_fixed} == {
        "aime_2024", "aime_2025", "hmmt_feb_2025", "hmmt_nov_2025", "hmmt_feb_2026", "imo_answerbench", "gsm8k",
    }  # fmt: skip
    assert all(BENCHMARKS[name].problems_sha256 for name in HUB_NAMES)


def test_gold_of_gsm8k_follows_the_last_marker(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "#### 1\n#### 1,200"}, {"question": "r", "answer": "no marker"}]
    problems = load_problems(get_benchmark("gsm8k"), pulled(tmp_path, "gsm8k", as_lines(rows)))
    assert [p.gold for p in problems] == ["1200", ""]


def test_a_row_without_a_usable_gold_stays(tmp_path: Path) -> None:
    rows = [
        {"Problem ID": "imo-bench-algebra-036", "Problem": "p", "Short Answer": "Algebra"},
        {"Problem ID": "b", "Problem": "q", "Short Answer": None},
        {"Problem ID": "c", "Problem": "r", "Short Answer": 0},
    ]
    folder = pulled(tmp_path, "imo_answerbench", as_lines(rows))
    assert [p.gold for p in load_problems(get_benchmark("imo_answerbench"), folder)] == ["", "", "0"]


def test_broken_datasets(tmp_path: Path) -> None:
    aime = get_benchmark("aime_2025")
    with pytest.raises(ConfigError, match=r"expected a column 'problem_idx'.*did you mean 'Problem_Idx'"):
        row = {"Problem_Idx": 1, "problem": "p", "answer": 1}
        load_problems(aime, pulled(tmp_path / "a", "aime_2025", as_lines([row])))
    row = {"problem_idx": 1, "problem": "p", "answer": 1}
    with pytest.raises(ArtifactError, match="different id"):
        load_problems(aime, pulled(tmp_path / "b", "aime_2025", as_lines([row, row])))
    with pytest.raises(ArtifactError, match="problem in row 0"):
        load_problems(aime, pulled(tmp_path / "c", "aime_2025", as_lines([row | {"problem": " "}])))
    for text in ("{broken", "[1, 2]", "3\n"):
        with pytest.raises(ArtifactError, match="expected rows as jsonl"):
            load_problems(aime, pulled(tmp_path / str(len(text)), "aime_2025", text))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no data file"):
        load_problems(aime, tmp_path / "empty")


def test_hash_tells_states_of_a_dataset_apart() -> None:
    problems = load_problems(get_benchmark("addition"), None)
    assert problems_hash(problems) == problems_hash(list(problems))
    assert problems_hash(problems) != problems_hash([replace(problems[0], gold="0"), *problems[1:]])


def test_all_formats_read_alike(tmp_path: Path) -> None:
    rows = [{"a": "1", "b": "x, y"}, {"a": "2", "b": "z"}]
    contents = {"jsonl": as_lines(rows), "json": json.dumps(rows), "csv": 'a,b\n1,"x, y"\n2,z\n'}
    for suffix, text in contents.items():
        (tmp_path / suffix).mkdir()
        (tmp_path / suffix / f"train.{suffix}").write_text(text)
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / "train-00000-of-00001.parquet")
    for suffix in (*contents, "parquet"):
        assert read_split(tmp_path / suffix, config_name=None, split="train") == rows


@pytest.mark.parametrize(
    ("names", "config_name", "split", "chosen"),
    [
        (["data/train-0.parquet", "data/test-0.parquet"], None, "test", ["data/test-0.parquet"]),
        (["main/test.parquet", "socratic/test.parquet"], "main", "test", ["main/test.parquet"]),
        (["rows.jsonl"], None, "train", ["rows.jsonl"]),
        (["rows.jsonl"], None, "test", []),
        (["rows.jsonl", "test.jsonl"], None, "train", ["rows.jsonl"]),
        (["contest.jsonl"], None, "test", []),
    ],
)
def test_split_by_names(names: list[str], config_name: str | None, split: str, chosen: list[str]) -> None:
    assert split_files(names, [], config_name=config_name, split=split) == chosen


def test_split_by_card(tmp_path: Path) -> None:
    card = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: 'x/*.jsonl'}\n"
        "- config_name: other\n  data_files: y.jsonl\n---\n# A dataset\n"
    )
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "one.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "y.jsonl").write_text('{"a": 2}\n')
    assert read_split(tmp_path, config_name=None, split="train") == [{"a": 1}]
    assert read_split(tmp_path, config_name="other", split="train") == [{"a": 2}]
    (tmp_path / "README.md").write_text("---\n: [broken\n---\n")
    assert len(read_split(tmp_path, config_name=None, split="train")) == 2


def test_columns_may_differ_by_row() -> None:
    require_columns([{"a": 1}, {"b": 2}], ["a", "b"], where="x")
    with pytest.raises(ConfigError, match=r"x: expected a column 'zzz'.*there are a, b"):
        require_columns([{"a": 1, "b": 2}], ["zzz"], where="x")


def test_evaluate_keeps_the_samples_its_figures_come_from(tmp_path: Path) -> None:
    from erpd_hub.models import save_checkpoint
    from erpd_hub.tiny_policies import tiny_policy

    save_checkpoint(*tiny_policy(TinyBase(type="tiny", hidden_size=12, layers=1), 0), tmp_path / "policy")
    config = EvaluateConfig(
        checkpoints=("policy",), benchmarks=("addition",), k=2, decoding=Decoding(max_new_tokens=4), limit=3
    )
    context = StageContext(seed=0, work=tmp_path / "work")
    metrics = evaluate.run(config, tmp_path / "out", context=context, checkpoints=(tmp_path / "policy",)).metrics
    rows = list(read_rows(tmp_path / "out"))
    assert len(rows) == 6
    assert summarise(rows).items() <= metrics.items()
    assert (metrics["n"], metrics["k"], metrics["limit"], metrics["coverage"]) == (3, 2, 3, 1)
    assert (metrics["benchmark"], metrics["benchmark_version"], metrics["bad_golds"]) == ("addition", 1, {})
    assert metrics["decoding"]["max_new_tokens"] == 4
    json.dumps(metrics)


def test_an_evaluation_refuses_other_problems_before_it_draws(tmp_path: Path) -> None:
    folder = pulled(tmp_path, "aime_2025", as_lines([{"problem_idx": 1, "problem": "p", "answer": 1}]))
    config = EvaluateConfig(checkpoints=("policy",), benchmarks=("aime_2025",), require_known_problems=True)
    assert "require_known_problems" not in identity(config)
    with pytest.raises(StageError, match=r"expected the problems .* got others.*drop require_known_problems"):
        evaluate.run(
            config, tmp_path / "out", context=StageContext(seed=0, work=tmp_path / "work"),
            checkpoints=(tmp_path / "none",), benchmarks={"aime_2025": folder},
        )  # fmt: skip
