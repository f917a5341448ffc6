"""Regrading without another harness, worker processes under attack, imports, and the custom-tasks folder."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backend_samples import CASES, write_details

from erpd_hub import provenance
from erpd_hub.artifacts import InputRecord, LineageRecord, check_payload, read_lineage
from erpd_hub.benchmark_files import all_benchmarks
from erpd_hub.config.benchmarks import FileSource
from erpd_hub.errors import ArtifactError, ConfigError, ErpdError
from erpd_hub.evaluation.backends import environments
from erpd_hub.evaluation.backends.foreign import guard
from erpd_hub.evaluation.backends.imports import import_details
from erpd_hub.evaluation.backends.live import Server, _forget_address, run_evalscope
from erpd_hub.evaluation.backends.regrade import regrade
from erpd_hub.evaluation.backends.second import second_opinions
from erpd_hub.evaluation.backends.sources import _benchmark, open_details
from erpd_hub.evaluation.backends.tasks import write_problems, write_tasks
from erpd_hub.evaluation.backends.workers import Lost, Workers
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems, problems_hash
from erpd_hub.samples import read_rows

GRADER = """
import ctypes, os, socket, subprocess, sys, time
sys.path.insert(0, {folder!r})
import guard

def load():
    def grade(job):
        eval(job["text"]) if job["text"].startswith("(") else None
        return {{"label": int(job["text"] == job["gold"]), "extracted": job["text"], "reason": None}}
    return grade

guard.serve(load)
"""


@pytest.fixture
def workers(tmp_path: Path):
    script = tmp_path / "grader.py"
    script.write_text(GRADER.format(folder=str(Path(guard.__file__).parent)))
    opened = Workers([sys.executable, "-s", str(script)], size=2, seconds=5.0)
    yield opened
    opened.close()


def job(text: str) -> dict[str, str]:
    return {"gold": "1", "text": text}


def test_workers_answer_in_order(workers: Workers) -> None:
    for count in (5, 200):  # by one process, by two
        replies = workers.ask_all([job(str(number % 2)) for number in range(count)])
        assert [reply["label"] for reply in replies] == [number % 2 for number in range(count)]  # type: ignore[index]


@pytest.mark.parametrize(
    "attack",
    [
        "(open('{target}', 'w'))",
        "(os.system('touch {target}'))",
        "(subprocess.run(['touch', '{target}']))",
        "(os.remove('{victim}'))",
        "(socket.create_connection(('127.0.0.1', 1)))",
        "(ctypes.CDLL(None).system(b'touch {target}'))",
        "(os.open('{target}', os.O_CREAT | os.O_WRONLY))",
    ],
)
def test_a_text_that_runs_reaches_nothing(workers: Workers, tmp_path: Path, attack: str) -> None:
    target, victim = tmp_path / "target", tmp_path / "victim"
    victim.write_text("kept")
    text = attack.format(target=target, victim=victim)
    assert workers.ask_all([job(text), job("1")])[0] == Lost("refused")
    assert not target.exists() and victim.read_text() == "kept"


def test_a_text_that_ends_or_stalls_its_worker_costs_only_itself(workers: Workers) -> None:
    jobs = [job("1"), job("(os._exit(0))"), job("(time.sleep(60))"), job("1"), job("(bytes(1 << 40))"), job("1")]
    started = time.monotonic()
    replies = workers.ask_all(jobs)
    assert time.monotonic() - started < 40
    assert [replies[index]["label"] for index in (0, 3, 5)] == [1, 1, 1]  # type: ignore[index]
    assert replies[1] == Lost("crash") and replies[2] == Lost("timeout")
    assert isinstance(replies[4], dict) and replies[4]["label"] is None and "MemoryError" in replies[4]["reason"]


def test_a_grader_that_does_not_start_says_why(tmp_path: Path) -> None:
    opened = Workers([sys.executable, "-c", "raise SystemExit('no such harness')"], size=1, seconds=5.0)
    try:
        with pytest.raises(ErpdError, match=r"does not start: .*no such harness"):
            opened.ask_all([job("1")])
    finally:
        opened.close()


def test_regrading_lists_each_difference_with_its_cause(tmp_path: Path) -> None:
    write_details(tmp_path, "hmmt_feb_2025")
    stored = open_details("local", f"{tmp_path}")
    result = regrade(stored.rows(), ["ours", "math-verify", "exact"], extract=stored.extract)
    report = result.report()
    by_name = {item["grader"]: item for item in report["graders"]}
    assert (report["n"], report["k"], report["samples"]) == (len(CASES), 4, 4 * len(CASES))
    assert by_name["ours"]["avg"] == by_name["stored"]["avg"] and by_name["ours"]["differs"] == 0
    assert by_name["exact"]["avg"] < by_name["stored"]["avg"]
    assert by_name["exact"]["causes"] == {"equivalence": by_name["exact"]["differs"]}
    shown = {(item["problem_id"], item["k"]): item for item in report["disagreements"]}
    half = next(d for d in shown["half", 0]["differences"] if d["grader"] == "exact")
    assert (half["label"], half["answer"], half["cause"]) == (0, "0.5", "equivalence")
    assert all(item["correct"] + item["wrong"] + item["no_verdict"] == report["samples"] for item in report["graders"])
    json.dumps(report)


def test_regrade_prints_and_leaves_the_artifact_alone(tmp_path: Path) -> None:
    from conftest import cli

    write_details(tmp_path / "details", "hmmt_feb_2025")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    done = cli("regrade", str(tmp_path / "details"), "--grader", "exact", "--json", home=tmp_path / "home")
    report = json.loads(done.stdout)
    assert report["benchmark"] == "hmmt_feb_2025" and [g["grader"] for g in report["graders"]] == ["stored", "exact"]
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    refused = cli("regrade", str(tmp_path / "details"), "--grader", "lighteval", home=tmp_path / "home", expect=1)
    assert "erpd-hub backends build lighteval" in refused.stderr


def test_the_table_names_problem_sample_gold_both_answers_and_both_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from erpd_hub.cli.regrade import print_report

    write_details(tmp_path, "hmmt_feb_2025")
    report = second_opinions(open_details("local", str(tmp_path)), ["exact", "math-verify"], [], harnesses={})
    print_report(report)
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith(" problem"))
    assert header.split("  ") and all(
        name in header
        for name in ("sample", "gold", "our answer", "our verdict", "grader", "its answer", "its verdict")
    )
    half = next(line.split() for line in lines if line.split()[:2] == ["half", "0"])
    assert half == ["half", "0", r"'\frac{1}{2}'", "'0.5'", "correct", "exact", "'0.5'", "wrong", "equivalence"]
    assert any(line.startswith("equivalence: it compared") for line in lines)
    print_report(report, show=1)
    assert "more differences; --show N or --json has them" in capsys.readouterr().out


def test_details_without_golds_of_a_users_file_say_what_they_need(tmp_path: Path) -> None:
    """The file's path is recorded nowhere, so the one who has it says where it is; another state of it is refused."""
    from erpd_hub.evaluation.benchmarks import load_problems
    from erpd_hub.evaluation.details import conceal_folder

    data = tmp_path / "rows.jsonl"
    rows = [{"id": name, "problem": f"What is {name}?", "answer": gold} for name, (gold, _) in CASES.items()]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = tmp_path / "mine.yaml"
    mine.write_text("mine: {source: {path: rows.jsonl, id_column: id}, share: ids}\n")
    benchmark = all_benchmarks([mine])["mine"]
    write_details(tmp_path / "details", "mine")
    conceal_folder(tmp_path / "details", benchmark, load_problems(benchmark, data))
    entry = {"source": {"type": "file", "id_column": "id"}, "share": "ids"}
    record = LineageRecord(
        stage="evaluate", stage_version=1, kind="details", run="t", round=1, step="evaluate", repo_type="dataset",
        repo_id="local/t-details", inputs=(InputRecord(role="benchmark:mine", kind="file", digest="d"),),
        config={"definitions": {"mine": entry}}, identity={}, seed=0, fingerprint="f", digest="d",
        code=provenance.code(), environment={}, metrics={}, files={},
    )  # fmt: skip
    (tmp_path / "details" / "lineage.json").write_text(record.to_json())
    where = str(tmp_path / "details")
    with pytest.raises(ArtifactError, match="say where with --benchmark-file"):
        open_details("local", where)
    stored = open_details("local", where, benchmark_files=[mine])
    tallies = regrade(stored.rows(), ["exact"], extract=stored.extract).tallies
    assert tallies["stored"].labels["integer"] == [1, 0, 0, 1] == tallies["exact"].labels["integer"]

    data.write_text(data.read_text().replace("What is half?", "What is a half?"))
    with pytest.raises(ArtifactError, match="expected problem half of mine as it was sampled"):
        list(open_details("local", where, benchmark_files=[mine]).rows())


def test_a_run_that_fails_leaves_the_endpoints_address_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here evalscope is a package that ends by naming the address, as its connection errors do."""
    package = tmp_path / "packages" / "evalscope"
    package.mkdir(parents=True)
    told = "import json, sys; raise SystemExit('no answer from ' + json.load(open(sys.argv[1]))['url'])"
    (package / "__init__.py").write_text(told)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("ERPD_ENVIRONMENTS", str(tmp_path / "environments"))
    environment = environments.environment_folder("evalscope")
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    (environment / "ready").touch()
    server = Server("m", "http://models.example:8000/v1", 1)
    with pytest.raises(ErpdError, match="its run failed: no answer from the endpoint"):
        run_evalscope(server, "addition-1digit", tmp_path / "out", endpoint="local", k=1, limit=1)
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left and not [path for path in left if b"models.example" in path.read_bytes()]


@pytest.mark.parametrize("host", ["models.example", "vllm"])
def test_what_a_run_keeps_does_not_quote_the_address(host: str, tmp_path: Path) -> None:
    """evalscope keeps the errors of requests in its predictions; a sample stays as it is."""
    url, folder = f"http://{host}:8000/v1", tmp_path / "run" / "predictions" / "m"
    folder.mkdir(parents=True)
    errors = [f"Cannot connect to host {host}:8000 ssl:default", f"HTTPConnectionPool(host='{host}', port=8000)",
              f"POST {url}/chat/completions"]  # fmt: skip
    rows = [{"text": "of vllm, 1/2 at \\ud800"}, *({"error": error} for error in errors)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _forget_address(tmp_path, url)
    left = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    assert left[0] == rows[0]
    assert [row["error"].count("the endpoint") for row in left[1:]] == [1, 1, 1]
    assert not any(host in row["error"] for row in left[1:])


def test_a_definition_that_this_version_cannot_read_is_said_so() -> None:
    record = LineageRecord.model_construct(config={"definitions": {"theirs": {"grader": "of the future"}}})
    with pytest.raises(ArtifactError, match=r"theirs: expected a definition as this version reads it, got \w+"):
        _benchmark("theirs", record)
    assert _benchmark("nobody", record) is None
    aime = _benchmark("aime_2025", record)
    assert aime is not None and aime.name == "aime_2025", "what others it brings is nothing to this one"


def test_pins_hold_no_cuda_and_what_breaks_lighteval() -> None:
    for harness in environments.HARNESSES:
        pins = environments._pins(harness)
        assert "torch==2.13.0+cpu" in pins and "nvidia" not in pins and "triton" not in pins
    assert "xxhash==3." in environments._pins("lighteval") and "diskcache==" in environments._pins("lighteval")


def test_lighteval_details_become_ours(tmp_path: Path) -> None:
    row = {
        "doc": {"choices": ["$204$"], "gold_index": 0, "id": "7", "specific": {"problem_id": "p"}},
        "metric": {"avg@n:n=2": 0.5},
        "model_response": {"text": ["\\boxed{204}", "\\boxed{5}"], "output_tokens": []},
    }
    source = tmp_path / "theirs" / "details" / "m" / "2026" / "details_x.parquet"
    source.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row]), source)
    out = tmp_path / "ours"
    assert import_details("lighteval", tmp_path / "theirs", out, benchmark="aime_2025", tool_version="0.13.0") == 2
    rows = list(read_rows(out))
    assert [(r["problem_id"], r["k"], r["gold"], r["label"], r["verdict"]) for r in rows] == [
        ("p", 0, "204", None, "ungradable"),
        ("p", 1, "204", None, "ungradable"),
    ]
    record = read_lineage(out / "lineage.json")
    assert not check_payload(out, record)
    assert record.config["imported"] and record.config["tool_version"] == "0.13.0"
    assert str(tmp_path) not in record.to_json()
    assert {row["seed"] for row in rows} == {None}, "nobody knows"
    result = regrade(open_details("local", str(out)).rows(), ["ours"], extract="boxed")
    assert result.tallies["ours"].summary()["avg"] == 0.5


def test_imported_thinking_that_is_never_closed_has_no_answer(tmp_path: Path) -> None:
    from conftest import cli

    texts = ["so \\boxed{204}", "\\boxed{5}</think> \\boxed{204}"]
    row = {
        "doc": {"choices": ["$204$"], "gold_index": 0, "id": "7"},
        "metric": {"avg@n:n=2": 0.5},
        "model_response": {"text": texts, "output_tokens": []},
    }
    source = tmp_path / "details_x.parquet"
    pq.write_table(pa.Table.from_pylist([row]), source)
    fingerprints = set()
    for flags, expected in (([], [1, 1]), (["--thinking"], [0, 1])):
        out = tmp_path / f"ours{len(flags)}"
        cli("backends", "import", "lighteval", str(source), str(out), "--benchmark", "aime_2025", *flags,
            home=tmp_path / "home")  # fmt: skip
        stored = open_details("local", str(out))
        assert regrade(stored.rows(), ["ours"], extract="boxed").tallies["ours"].labels["7"] == expected
        fingerprints.add(stored.fingerprint)
    assert len(fingerprints) == 2


def test_what_a_harness_was_handed_is_checked_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"problem": "What is half?", "answer": "1/2"}\n{"problem": "What is 1?", "answer": "1"}\n')
    source = FileSource(type="file", path=str(rows), problem_column="problem", answer_column="answer")
    mine = replace(get_benchmark("hmmt_feb_2025"), name="mine", source=source)
    handed = write_problems(mine, "local", tmp_path / "problems.jsonl", limit=1)
    assert handed.about["problems_state"] == "other" and handed.about["limit"] == 1
    assert "mine: expected the problems that its entry was checked with, got others" in caplog.text
    assert handed.dataset is not None and handed.dataset.digest and str(tmp_path) not in str(handed)
    lines = [{"problem_id": "p", "index": 0, "target": ["1/2"]}]
    score = {"value": {"accuracy": 1.0}, "status": "success", "prediction": "\\boxed{0.5}"}
    review = {**lines[0], "sample_score": {"score": score, "group_id": 0, "generation_index": 0}}
    (tmp_path / "theirs" / "reviews" / "m").mkdir(parents=True)
    (tmp_path / "theirs" / "reviews" / "m" / "mine.jsonl").write_text(json.dumps(review) + "\n")
    (tmp_path / "theirs" / "predictions").mkdir()
    keys = {"benchmark": "mine", "tool_version": "1"}
    import_details("evalscope", tmp_path / "theirs", tmp_path / "ours", handed=handed, **keys)
    record = read_lineage(tmp_path / "ours" / "lineage.json")
    assert record.metrics.items() >= handed.about.items() and handed.dataset in record.inputs


def test_evalscope_reviews_become_ours(tmp_path: Path) -> None:
    def review(index: int, text: str, status: str) -> dict:
        score = {"value": {"accuracy": 1.0}, "status": status, "prediction": text}
        known = {"problem_id": "p"}
        sample = {"score": score, "group_id": 0, "generation_index": index, "sample_metadata": known}
        return {"index": index, "target": ["204"], "sample_score": sample}

    def prediction(index: int, stop: str) -> dict:
        return {"index": index, "model_output": {"choices": [{"stop_reason": stop}]}}

    for folder, rows in {
        "reviews": [review(0, "\\boxed{204}", "success"), review(1, "\\boxed{204", "excluded")],
        "predictions": [prediction(0, "stop"), prediction(1, "max_tokens")],
    }.items():
        (tmp_path / "theirs" / folder / "m").mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "theirs" / folder / "m" / "aime_default.jsonl").write_text(text)
    out = tmp_path / "ours"
    assert import_details("evalscope", tmp_path / "theirs", out, benchmark="aime_2025", tool_version="1.14.1") == 2
    assert [(r["k"], r["finish_reason"], r["gold"]) for r in read_rows(out)] == [
        (0, "stop", "204"),
        (1, "length", "204"),
    ]
    scores = [json.loads(line)["score"] for line in (out / "theirs.jsonl").read_text().splitlines()]
    assert scores == [1.0, None]


@pytest.mark.parametrize("harness", environments.HARNESSES)
def test_import_refuses_what_is_not_the_tools(tmp_path: Path, harness: environments.Harness) -> None:
    (tmp_path / "reviews" / "m").mkdir(parents=True)
    (tmp_path / "reviews" / "m" / "x.jsonl").write_text('{"index": 0}\n' if harness == "evalscope" else "")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "details_x.parquet")
    with pytest.raises(ArtifactError, match=f"{harness}: expected"):
        import_details(harness, tmp_path, tmp_path / "out", benchmark="b", tool_version="1")


def test_tasks_folder_holds_prompts_and_golds(tmp_path: Path) -> None:
    out = tmp_path / "tasks"
    assert write_tasks("local", ["addition-1digit"], out) == ["erpd_addition-1digit"]
    rows = [json.loads(line) for line in (out / "addition-1digit" / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and rows[0]["problem"].endswith("?") and rows[0]["gold"].isdigit()
    (entry,) = json.loads((out / "tasks.json").read_text())
    assert entry["k"] == 8
    assert entry["problems_sha256"] == problems_hash(load_problems(get_benchmark("addition-1digit"), None))
    source = (out / "lighteval_tasks.py").read_text()
    assert "import erpd_hub" not in source and "from erpd_hub" not in source
    with pytest.raises(ConfigError, match="empty"):
        write_tasks("local", ["addition-1digit"], out)
