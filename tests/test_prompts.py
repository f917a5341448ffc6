"""The prompts stage and the reading and rendering of prompt sets."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from erpd_hub.chain import parse_chain
from erpd_hub.config import GeneratedPrompts, HubPrompts, JsonlPrompts, PromptFormat, RangeFilter
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems
from erpd_hub.fields import identity
from erpd_hub.prompts import (
    PROMPT_SCHEMA,
    Problem,
    normalise_problem,
    opens_thinking,
    problem_key,
    read_prompts,
    render,
)
from erpd_hub.stage_context import StageContext
from erpd_hub.stages.prompts import run

LONG = "Find the sum of all integer bases b greater than nine for which seventeen in base b divides it"


def context(folder: Path, seed: int = 0) -> StageContext:
    return StageContext(seed=seed, work=folder / "work")


def jsonl(folder: Path, rows: list[dict]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_jsonl(folder: Path, rows: list[dict], seed: int = 0, **config) -> tuple[list[Problem], dict]:
    """Problems and metrics of a JSONL prompts step; its output is `folder/out`."""
    config = JsonlPrompts(type="jsonl", path="./rows.jsonl", decontaminate=(), **config)
    result = run(config, folder / "out", context=context(folder, seed), path=jsonl(folder, rows))
    return read_prompts(folder / "out")[0], result.metrics


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


GENERATED = ["addition", "addition-1digit", "addition-2digit", "addition-lazy", "chain"]
"""The benchmarks that need no dataset."""


def numbered(count: int) -> list[dict]:
    return [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(count)]


def test_generated_prompts(tmp_path: Path) -> None:
    config = GeneratedPrompts(type="generator", generator="addition", count=50, format={"template": "{problem}?"})
    result = run(config, tmp_path / "a", context=context(tmp_path))
    problems, format = read_prompts(tmp_path / "a")
    assert len({p.problem_id for p in problems}) == 50
    assert {p.source for p in problems} == {"addition"}
    assert format.template == "{problem}?"
    assert result.metrics["count"] == 50
    assert result.metrics["decontaminated_against"] == GENERATED
    run(config, tmp_path / "b", context=context(tmp_path))
    digests = [hashlib.sha256((tmp_path / x / "data/train-00000.parquet").read_bytes()).digest() for x in "ab"]
    assert digests[0] == digests[1]


def test_rounds_are_disjoint_even_when_nearly_all_problems_are_used(tmp_path: Path) -> None:
    config = GeneratedPrompts(
        type="generator", generator="addition", min_digits=1, max_digits=1, count=60, decontaminate=()
    )
    run(config, tmp_path / "r1", context=context(tmp_path))
    smaller = config.model_copy(update={"count": 40})
    result = run(smaller, tmp_path / "r2", context=context(tmp_path, 1), disjoint_from=(tmp_path / "r1",))
    first, second = ({p.problem for p in read_prompts(tmp_path / r)[0]} for r in ("r1", "r2"))
    assert len(first | second) == 100
    assert result.metrics["in_earlier_sets"] == 60
    with pytest.raises(StageError, match=r"at least 60 problems, got 40 .*in_earlier_sets 60"):
        run(config, tmp_path / "r3", context=context(tmp_path), disjoint_from=(tmp_path / "r1",))


def test_benchmark_problems_are_dropped_and_listed(tmp_path: Path) -> None:
    held = load_problems(get_benchmark("addition-2digit"), None)
    config = GeneratedPrompts(
        type="generator",
        generator="addition",
        min_digits=2,
        max_digits=2,
        count=8000,
        decontaminate=("addition-2digit",),
    )
    result = run(config, tmp_path / "out", context=context(tmp_path))
    hits = lines(tmp_path / "out" / "hits.jsonl")
    assert {h["benchmark_problem_id"] for h in hits} == {p.problem_id for p in held}
    assert result.metrics["in_benchmarks"] == 100
    kept = {normalise_problem(p.problem) for p in read_prompts(tmp_path / "out")[0]}
    assert not kept & {normalise_problem(p.problem) for p in held}


def test_hub_prompts_and_a_hub_benchmark(tmp_path: Path) -> None:
    for name, rows in (
        ("pool", [{"Q": LONG + " and more", "A": 7, "difficulty": "3/8"}, {"Q": "1+1", "A": 2, "difficulty": "8/8"}]),
        ("aime", [{"problem_idx": 1, "problem": LONG, "answer": 70}]),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = HubPrompts(type="hub", dataset="some/pool@main", problem_column="Q", answer_column="A")
    benchmarks = {"aime_2025": tmp_path / "aime"}
    out = tmp_path / "out"
    result = run(config, out, context=context(tmp_path), dataset=tmp_path / "pool", benchmarks=benchmarks)
    assert read_prompts(out)[0] == [Problem(problem_key("1+1"), "some/pool", "1+1", "2")]
    (hit,) = lines(out / "hits.jsonl")
    assert (hit["benchmark"], hit["benchmark_problem_id"]) == ("aime_2025", "1")
    assert hit["share"] == 1
    assert hit["matched"].startswith("find the sum of all integer bases v greater than nine")
    assert result.metrics["decontaminated_against"] == sorted([*GENERATED, "aime_2025"])


def test_columns_that_are_asked_for_are_kept_and_others_leave_no_trace(tmp_path: Path) -> None:
    rows = [row | {"unit": "m", "bounds": [at, None], "other": 1} for at, row in enumerate(numbered(3))]
    problems, _ = run_jsonl(tmp_path, rows, columns="unit,bounds")
    extras = {problem.problem: json.loads(problem.extra or "") for problem in problems}
    assert extras == {row["problem"]: {"unit": "m", "bounds": row["bounds"]} for row in rows}
    plain, _ = run_jsonl(tmp_path, rows)
    assert pq.read_schema(tmp_path / "out" / "data" / "train-00000.parquet").equals(PROMPT_SCHEMA)
    assert plain == [replace(problem, extra=None) for problem in problems]
    assert "columns" not in identity(JsonlPrompts(type="jsonl", path="./rows.jsonl"))


def test_columns_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a column 'unit'"):
        run_jsonl(tmp_path, numbered(1), columns=("unit",))
    with pytest.raises(ConfigError, match="columns: expected values that JSON has in unit, got another: Out of range"):
        run_jsonl(tmp_path, [row | {"unit": float("nan")} for row in numbered(1)], columns=("unit",))
    with pytest.raises(ValueError, match="got 'answer'; leave it out, or give the dataset's column another name"):
        HubPrompts(type="hub", dataset="some/pool", columns=("unit", "answer"))


def test_bad_rows_are_listed_with_reasons(tmp_path: Path) -> None:
    rows = [
        {"problem": "good", "answer": 3, "id": "a"}, {"problem": " ", "answer": "4", "id": "b"},
        {"problem": "no gold", "answer": None, "id": "c"}, {"problem": "Good", "answer": "3", "id": "d"},
        {"problem": "unbalanced", "answer": "}{", "id": "e"}, {"problem": "other", "answer": "5", "id": "a"},
    ]  # fmt: skip
    problems, metrics = run_jsonl(tmp_path, rows, id_column="id")
    assert problems == [Problem("a", "jsonl", "good", "3")]
    assert (metrics["read"], metrics["bad"], metrics["duplicate"], metrics["count"]) == (6, 3, 2, 1)
    rejected = [(r["row"], r["problem_id"], r["reason"].split(" (")[0]) for r in lines(tmp_path / "out/rejected.jsonl")]
    assert rejected == [
        (1, "b", "no problem"), (2, "c", "no answer"), (3, "d", "duplicate of row 0"),
        (4, "e", "it is not extracted whole"), (5, "a", "duplicate of row 0"),
    ]  # fmt: skip
    with pytest.raises(StageError, match="got 3, the first is row 1: no problem"):
        run_jsonl(tmp_path, rows, on_bad_row="refuse")


def test_the_marked_answer_of_a_worked_solution_is_the_gold(tmp_path: Path) -> None:
    answers = ["48/2 = 24\n48+24 = 72\n#### 72", "So $x=3$, and the answer is $\\boxed{3}$.", 70.0]
    answers.append("We know that it is\nthree")
    rows = [{"problem": f"problem {index}", "answer": answer} for index, answer in enumerate(answers)]
    problems, metrics = run_jsonl(tmp_path, rows)
    assert {problem.gold for problem in problems} == {"72", "3", "70"}
    assert metrics["bad"] == 1
    assert lines(tmp_path / "out/rejected.jsonl")[0]["reason"] == "a worked solution, not an answer"


def test_filters(tmp_path: Path) -> None:
    rows = [row | {"level": f"{i}/8", "kind": "ab"[i % 2]} for i, row in enumerate(numbered(8))]
    rows.append({"problem": "no level", "answer": "1", "kind": "a"})
    filters = (RangeFilter(column="level", minimum=0.25, maximum=0.75), RangeFilter(column="kind", values=("a",)))
    problems, metrics = run_jsonl(tmp_path, rows, filters=filters)
    assert sorted(p.gold for p in problems) == ["12", "4", "8"]
    assert metrics["filtered"] == 6


def test_draw_is_seeded_and_a_dropped_row_moves_no_other(tmp_path: Path) -> None:
    rows = numbered(30)
    first, _ = run_jsonl(tmp_path, rows, count=10)
    assert first == run_jsonl(tmp_path, rows, count=10)[0]
    assert first != run_jsonl(tmp_path, rows, count=10, seed=1)[0]
    assert first == run_jsonl(tmp_path, rows)[0][:10]
    without = [row for row in rows if row["problem"] != first[0].problem]
    assert run_jsonl(tmp_path, without, count=9)[0] == first[1:]


def test_a_selection_of_nothing_is_refused(tmp_path: Path) -> None:
    strict = (RangeFilter(column="level", values=(9,)),)
    with pytest.raises(StageError, match=r"at least 1 problems, got 0 \(read 3, filtered 3, .*select less strictly"):
        run_jsonl(tmp_path, [row | {"level": 1} for row in numbered(3)], filters=strict)
    assert not (tmp_path / "out").exists()


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'problems'.*did you mean 'problem'"):
        run_jsonl(tmp_path, numbered(2), problem_column="problems")


def test_reading_what_is_no_prompt_set(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"format\.json"):
        read_prompts(tmp_path)


def test_problem_keys() -> None:
    assert problem_key("3 + 8") == problem_key("3+8 ")
    assert problem_key("What  is\nX?") == problem_key("what is x ?")
    assert problem_key("1 2") != problem_key("12")
    assert len(problem_key("")) == 16


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {char: i for i, char in enumerate("0123456789+?=\n S")} | {
        "<user>": 20,
        "<assistant>": 21,
        "<bos>": 22,
    }
    model = Tokenizer(WordLevel(vocabulary, unk_token="?"))
    model.pre_tokenizer = Split("", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=model, additional_special_tokens=["<user>", "<assistant>"])
    made.chat_template = (
        "{% for m in messages %}{{ 'S' if m.role == 'system' else '<user>' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{{ suffix or '' }}{% endif %}"
    )
    return made


def test_render(tokenizer: PreTrainedTokenizerFast) -> None:
    assert render("1+2", PromptFormat(template="{problem}?"), tokenizer) == [20, 1, 10, 2, 11, 21]
    format = PromptFormat(system_prompt="7", chat_template_kwargs={"suffix": "9"})
    assert render("1", format, tokenizer) == [15, 7, 20, 1, 21, 9]
    completion = PromptFormat(template="1=1\n{problem}=", chat=False)
    assert render("2", completion, tokenizer) == [1, 12, 1, 13, 2, 12]


def test_braces_in_a_problem_are_no_placeholders(tokenizer: PreTrainedTokenizerFast) -> None:
    assert render("{0}", PromptFormat(), tokenizer)[2] == 0


def test_an_open_think_block_is_seen() -> None:
    assert opens_thinking("<assistant><think>\n")
    assert not opens_thinking("<assistant><think>\n\n</think>\n\n")
    assert not opens_thinking("Explain <think> to me<assistant>")


def test_generated_chains(tmp_path: Path) -> None:
    config = GeneratedPrompts(
        type="generator", generator="chain", min_digits=1, max_digits=2, chain_steps=3, count=20, decontaminate=()
    )
    run(config, tmp_path, context=context(tmp_path))
    for problem in read_prompts(tmp_path)[0]:
        first, second, steps = parse_chain(problem.problem)
        assert (problem.source, steps) == ("chain", 3)
        assert int(problem.gold) == (2 * first + 3 * second) % 100
