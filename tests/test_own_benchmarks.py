"""Benchmarks of the user's own: YAML files, entries in a recipe, and datasets named by their columns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import save_policy

from erpd_hub.benchmark_files import find_benchmark
from erpd_hub.config import EvaluateConfig, SelectConfig
from erpd_hub.config.benchmarks import BenchmarkEntry, parse_ad_hoc
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.benchmarks import BENCHMARKS, get_benchmark, load_problems, make_benchmark
from erpd_hub.evaluation.details import is_concealed
from erpd_hub.fields import identity, recorded
from erpd_hub.hub.connecting import connect
from erpd_hub.inputs import OutsideInputs
from erpd_hub.launching.worker import Job
from erpd_hub.lineage import locate, verify
from erpd_hub.nodes import Edge
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.references import RepoRef
from erpd_hub.samples import read_rows
from erpd_hub.stage_context import StageContext


def recipe(evaluate: dict[str, Any], **top: Any) -> Any:
    steps = {"base": {"type": "tiny"}, "evaluate": {"checkpoints": ["base"], **evaluate}}
    return build_recipe({"run": "t", "steps": steps, **top}, "test")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_of_few_lines(tmp_path: Path) -> None:
    rows = [{"q": "1+1?", "a": "$2$"}, {"q": "2+2?", "a": 4}]
    write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    source = "{path: rows.jsonl, problem_column: q, answer_column: a}"
    file = write(tmp_path / "my.yaml", f"mine:\n  source: {source}\n  decoding: {{max_new_tokens: 4}}\n")
    benchmark = find_benchmark("mine", [file])
    assert [p.gold for p in load_problems(benchmark, tmp_path / "rows.jsonl")] == ["2", "4"]
    assert (benchmark.decoding.temperature, benchmark.decoding.max_new_tokens) == (0.6, 4), "the rest is as by default"
    plan = make_plan(recipe({"benchmarks": ["mine", "addition"]}, benchmark_files=[str(file)]))
    node = plan.node("r1/evaluate/base/mine")
    assert [str(edge.source) for edge in node.inputs if edge.role == "benchmark:mine"] == [str(tmp_path / "rows.jsonl")]
    assert str(tmp_path) not in json.dumps([node.identity, recorded(node.config)])
    assert node.identity["benchmark_entries"]["mine"] == benchmark.identity
    assert plan.node("r1/evaluate/base/addition").config.definitions == {}


def test_a_problem_that_a_dataset_repeats_counts_as_often_and_is_named(tmp_path: Path, caplog) -> None:
    rows = [{"problem": "1+1?", "answer": "2"}, {"problem": "2+2?", "answer": "4"}, {"problem": "1+1?", "answer": "3"}]
    file = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    benchmark = make_benchmark("mine", BenchmarkEntry.model_validate({"source": {"path": "rows.jsonl"}}))
    first, other, again = load_problems(benchmark, file)
    assert again.problem_id == f"{first.problem_id}-2" != other.problem_id
    assert (first.gold, again.gold) == ("2", "3")
    assert "rows.jsonl: row 2 repeats an earlier problem" in caplog.text


def test_any_part_of_a_definition_is_in_the_fingerprint(tmp_path: Path) -> None:
    def node_identity(**changes: Any) -> dict[str, Any]:
        entry = {"source": {"dataset": "me/rows"}, **changes}
        made = recipe({"benchmarks": ["mine"]}, benchmarks={"mine": entry})
        return make_plan(made).node("r1/evaluate/base/mine").identity

    same = node_identity(note="another note", licence="MIT")
    changed = (
        {"version": 2}, {"source": {"dataset": "me/rows", "split": "dev"}}, {"share": "ids"},
        {"format": {"template": "{problem}"}}, {"decoding": {"top_p": 0.5}}, {"k": 3},
    )  # fmt: skip
    found = [node_identity(), *(node_identity(**change) for change in changed)]
    assert same == found[0]
    assert len({json.dumps(item, sort_keys=True) for item in found}) == len(found)


def test_definitions_that_are_not_used_leave_the_identity_alone() -> None:
    plain = recipe({"benchmarks": ["addition"]})
    beside = recipe({"benchmarks": ["addition"]}, benchmarks={"mine": {"source": {"dataset": "me/rows"}}})
    name = "r1/evaluate/base/addition"
    assert make_plan(plain).node(name).identity == make_plan(beside).node(name).identity


def test_an_entry_like_another() -> None:
    entries = {
        "short": {"like": "aime_2025", "decoding": {"max_new_tokens": 100}},
        "shorter": {"like": "short", "decoding": {"max_new_tokens": 10}, "k": 2},
        "newest": {"like": "beyond_aime", "source": {"revision": None}},
        "window": {"like": "livecodebench_release_v6", "source": {"start": "2024-08-01", "end": "2024-09-01"}},
        "local": {"like": "gsm8k", "source": {"path": "./rows.csv"}},
    }
    own = recipe({"benchmarks": list(entries)}, benchmarks=entries).benchmarks
    found = {name: get_benchmark(name, own) for name in entries}
    aime = BENCHMARKS["aime_2025"]
    assert (found["shorter"].source, found["shorter"].share, found["shorter"].k) == (aime.source, "ids", 2)
    assert found["shorter"].decoding == aime.decoding.model_copy(update={"max_new_tokens": 10})
    assert found["short"].problems_sha256 == aime.problems_sha256
    assert found["newest"].problems_sha256 is None, "nothing is known of another source"
    assert found["newest"].reference is not None
    assert str(found["newest"].reference) == "ByteDance-Seed/BeyondAIME"
    assert len(found["window"].files) == 6
    assert (found["window"].grader, found["local"].source.type) == ("code", "file")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"m": {"source": {"dataset": "me/rows", "problem_colum": "q"}}},
            "m.source.problem_colum: unknown key; did you",
        ),
        ({"m": {"source": {"dataset": "rows"}}}, "expected a Hub dataset as namespace/name, got 'rows'"),
        ({"m": {"note": "x"}}, "m.source: missing"),
        ({"m": {"like": "aime2025"}}, "expected another benchmark, got 'aime2025'; did you mean 'aime_2025'"),
        ({"m": {"like": "m"}}, "m.like: expected another benchmark"),
        ({"m": {"like": "n"}, "n": {"like": "m"}}, "like: expected another benchmark"),
        ({"m": 3}, "m: expected a mapping of keys, got 3"),
        ({"aime_2025": {"like": "aime_2024"}}, "expected another name, aime_2025 is registered"),
        ({"a/b": {"like": "aime_2024"}}, "expected a benchmark name of letters"),
        ({"m": {"like": "aime_2024", "grader": "code"}}, "expected math with a source of type hub, got code"),
        ({"m": {"like": "livecodebench_v6", "source": {"start": "2025-02-01", "end": "2025-01-01"}}}, "up to end"),
        ({"m": {"source": {"dataset": "a/b"}, "problems_sha256": "123"}}, "problems_sha256"),
        ([1], "benchmarks: expected a mapping of names to entries"),
    ],
)
def test_mistakes_are_named(entries: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe({"benchmarks": ["m"]}, benchmarks=entries)
    assert message in str(error.value)


@pytest.mark.parametrize("stage", ["evaluate", "select", "gate", "prompts"])
def test_no_step_defines_a_registered_benchmark(stage: str) -> None:
    source = {"path": "easy.jsonl"}
    step: dict[str, Any] = {
        "evaluate": {"checkpoints": ["base"], "benchmarks": ["aime_2025"]},
        "select": {"candidates": ["base"], "benchmark": "aime_2025"},
        "gate": {"teacher": "base", "policy": "me/other", "benchmark": "aime_2025"},
        "prompts": {"type": "generator", "generator": "addition", "decontaminate": ["aime_2025"]},
    }[stage]
    steps = {"base": {"type": "tiny"}, stage: {**step, "definitions": {"aime_2025": {"source": source}}}}
    with pytest.raises(ConfigError, match="expected another name, aime_2025 is registered"):
        build_recipe({"run": "t", "steps": steps}, "test")


def test_a_registered_definition_that_says_the_same_is_taken() -> None:
    aime = BENCHMARKS["aime_2025"]
    entry = BenchmarkEntry(**{name: getattr(aime, name) for name in BenchmarkEntry.model_fields})
    config = EvaluateConfig(checkpoints=("policy",), benchmarks=("aime_2025",), definitions={"aime_2025": entry})
    assert get_benchmark("aime_2025", config.definitions) == aime


@pytest.mark.parametrize("name", ["foo-judged", "foo-to-128", "../foo"])
def test_a_name_is_no_folder_of_another(name: str) -> None:
    entry = {"source": {"dataset": "me/rows"}}
    with pytest.raises(ConfigError, match="expected a benchmark name"):
        recipe({"benchmarks": [name]}, benchmarks={name: entry})
    with pytest.raises(ConfigError, match=r"expected a (benchmark|registered) name"):
        recipe({"benchmarks": [name], "definitions": {name: entry}})


def test_mistakes_in_files_are_named(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "mine: {source: {dataset: me/rows}}\n")
    with pytest.raises(ConfigError, match=r"two.yaml: mine: expected another name, mine stands in one.yaml"):
        recipe({"benchmarks": ["mine"]}, benchmark_files=[str(one), str(write(tmp_path / "two.yaml", one.read_text()))])
    for text, message in (("- a\n", "expected a mapping of benchmark names"), ("a: {b\n", "not valid YAML")):
        with pytest.raises(ConfigError, match=message):
            recipe({"benchmarks": ["mine"]}, benchmark_files=[str(write(tmp_path / "bad.yaml", text))])
    with pytest.raises(ConfigError, match="cannot be read"):
        recipe({"benchmarks": ["mine"]}, benchmark_files=[str(tmp_path / "none.yaml")])
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        make_plan(recipe({"benchmarks": ["mime"]}, benchmarks={"mine": {"source": {"dataset": "me/rows"}}},
                         selection=["mime"]))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("me/rows:test:question:answer", {"config": None, "revision": None, "split": "test"}),
        ("me/rows@abc:test:question:answer", {"config": None, "revision": "abc", "split": "test"}),
        ("me/rows:main/test:question:answer", {"config": "main", "revision": None, "split": "test"}),
        ("me/rows:train:The Problem:Short Answer", {"problem_column": "The Problem", "answer_column": "Short Answer"}),
    ],
)
def test_a_dataset_by_its_columns(text: str, source: dict[str, Any]) -> None:
    name, entry = parse_ad_hoc(text)
    assert name.startswith("me--rows--")
    assert "/" not in name and ":" not in name
    assert entry.source.model_dump().items() >= {"dataset": "me/rows", **source}.items()
    config = EvaluateConfig(checkpoints=("policy",), benchmarks=f"{text},addition")
    assert config.benchmarks == (name, "addition")
    assert config.definitions == {name: entry}
    assert SelectConfig(candidates=("a", "b"), benchmark=text).benchmark == name
    again = EvaluateConfig.model_validate(config.model_dump(mode="json"))
    assert again == config
    assert "definitions" not in identity(config)


@pytest.mark.parametrize(
    "text", ["me/rows", "me/rows:test", "me/rows:test:q", "rows:test:q:a", "me/rows:test:q:a:b", "a/b::q:a"]
)
def test_a_dataset_without_its_columns_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="namespace/name"):
        recipe({"benchmarks": [text]})


def test_two_column_pairs_of_a_dataset_are_two_benchmarks() -> None:
    assert parse_ad_hoc("me/rows:test:q:a")[0] != parse_ad_hoc("me/rows:test:q:b")[0]


def test_a_worker_gets_the_definition(tmp_path: Path) -> None:
    made = recipe({"benchmarks": ["mine"]}, benchmarks={"mine": {"source": {"path": str(tmp_path / "rows.csv")}}})
    node = make_plan(made).node("r1/evaluate/base/mine")
    job = Job("x", node.config, tmp_path / "out", {}, StageContext(seed=0, work=tmp_path))
    assert Job.load(job.dump(tmp_path / "job.json")).config == node.config


def test_decontamination_searches_the_users_own() -> None:
    prompts = {"type": "generator", "generator": "addition", "decontaminate": ["mine"]}
    data = {"run": "t", "steps": {"prompts": prompts}, "benchmarks": {"mine": {"source": {"dataset": "me/rows"}}}}
    node = make_plan(build_recipe(data, "test")).node("r1/prompts")
    assert [edge.role for edge in node.inputs] == ["benchmark:mine"]
    everything = {**data, "steps": {"prompts": {**prompts, "decontaminate": "all"}}}
    searched = set(make_plan(build_recipe(everything, "test")).node("r1/prompts").identity["benchmark_entries"])
    assert {"mine", "gsm8k", "addition"} <= searched
    assert not any(name.startswith("livecodebench") for name in searched), "gigabytes of tests, and no answers"


def test_evaluating_on_a_dataset_by_its_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the embedded Hub: a dataset that nobody registered, and a file, whose path stays here."""
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "home"))
    hub = connect("local")
    hub.api.create_repo("me/sums", repo_type="dataset")
    rows = "".join(json.dumps({"q": f"{n}+{n}?", "a": f"${2 * n}$"}) + "\n" for n in range(3, 6))
    hub.api.upload_file(
        path_or_fileobj=write(tmp_path / "t.jsonl", rows),
        path_in_repo="t/test.jsonl",
        repo_id="me/sums",
        repo_type="dataset",
    )
    secret = write(tmp_path / "secret" / "rows.jsonl", rows).parent
    source = "{path: rows.jsonl, problem_column: q, answer_column: a}"
    file = write(secret / "my.yaml", f"from-file:\n  source: {source}\n  share: ids\n")
    steps = {
        "base": {"type": "import", "source": str(save_policy(tmp_path / "policy"))},
        "evaluate": {
            "checkpoints": ["base"],
            "benchmarks": ["me/sums:test:q:a", "from-file"],
            "k": 2,
            "decoding": {"max_new_tokens": 4},
        },
    }
    made = build_recipe({"run": "own", "threads": 1, "benchmark_files": [str(file)], "steps": steps}, "test")
    outcome = run_plan(make_plan(made))
    found = {row["benchmark"]: row for row in outcome.summary["checkpoints"]}
    assert set(found) == {parse_ad_hoc("me/sums:test:q:a")[0], "from-file"}
    assert all((row["n"], row["k"]) == (3, 2) for row in found.values())
    details = next(item for item in outcome.finished if item.node.name.endswith("from-file"))
    folder = hub.pull("dataset", details.record.repo_id, details.revision)
    for path in folder.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path
    assert {(row["gold"], row["prompt_ids"]) for row in read_rows(folder / details.record.folder)} == {(None, None)}
    assert all(item.reused for item in run_plan(make_plan(made)).finished)
    steps["evaluate"] |= {"k": 3, "benchmarks": ["from-file"]}
    more = run_plan(make_plan(build_recipe({"run": "own", "benchmark_files": [str(file)], "steps": steps}, "test")))
    raised = more.finished[-1].record
    assert raised.metrics["taken_over"] == 6
    folder = connect("local").pull("dataset", raised.repo_id, more.finished[-1].revision)
    assert {(row["gold"], row["prompt_ids"], is_concealed(row)) for row in read_rows(folder / raised.folder)} == {
        (None, None, True)
    }
    place = locate(hub, f"{raised.repo_id}/{raised.folder}")
    assert not any(finding.problems for finding in verify(hub, place)), "with what was taken over"


def test_only_the_files_of_a_benchmark_are_pulled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "home"))
    hub = connect("local")
    hub.api.create_repo("me/code", repo_type="dataset")
    for name in ("a.jsonl", "b.jsonl"):
        hub.api.upload_file(
            path_or_fileobj=write(tmp_path / name, name), path_in_repo=name, repo_id="me/code", repo_type="dataset"
        )
    edge = Edge("benchmark:code", ("dataset",), RepoRef("me/code"), files=("a.jsonl",))
    some = OutsideInputs(hub).resolve("x", edge)
    assert some is not None
    assert [path.name for path in some.fetch().rglob("*.jsonl")] == ["a.jsonl"]
    every = OutsideInputs(hub).resolve("x", replace(edge, files=()))
    assert every is not None
    assert len(list(every.fetch().rglob("*.jsonl"))) == 2
    assert some.record.digest != every.record.digest
    assert json.loads(some.record.model_dump_json())["files"] == ["a.jsonl"]
    assert "files" not in json.loads(every.record.model_dump_json())
    with pytest.raises(ArtifactError, match=r"expected a file c.jsonl, got none"):
        OutsideInputs(hub).resolve("x", replace(edge, files=("a.jsonl", "c.jsonl")))


def test_gates_and_selections_measure_on_the_users_own() -> None:
    steps = {
        "base": {"type": "tiny"},
        "other": {"stage": "base", "type": "tiny", "carry_error": 0.1},
        "gate": {"teacher": "other", "policy": "base", "benchmark": "me/rows:test:q:a"},
        "select": {"candidates": ["base", "other"], "benchmark": "mine"},
    }
    own = {"mine": {"source": {"dataset": "me/mine"}}}
    plan = make_plan(build_recipe({"run": "t", "steps": steps, "benchmarks": own}, "test"))
    named = {(node.config.stage, *node.identity.get("benchmark_entries", ())) for node in plan.nodes}
    ad_hoc = parse_ad_hoc("me/rows:test:q:a")[0]
    assert {("select", "mine"), ("evaluate", ad_hoc), ("gate",)} < named, "a gate compares evaluations"
    steps["select"]["benchmark"] = "livecodebench_v6"
    with pytest.raises(ConfigError, match="expected one that compares answers, got livecodebench_v6"):
        make_plan(build_recipe({"run": "t", "steps": steps}, "test"))
