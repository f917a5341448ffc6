"""The stage `judge`: which rows are asked about, what becomes of them, and both scores side by side."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import cli
from judge_server import A, B, JudgeServer, told
from tiny import context, folder_digest

from erpd_hub.config import EvaluateConfig, JudgeConfig, JudgeSettings
from erpd_hub.config.benchmarks import BenchmarkEntry
from erpd_hub.display import judge_notes
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems
from erpd_hub.evaluation.details import conceal_folder, reveal
from erpd_hub.evaluation.judge import judged_label
from erpd_hub.evaluation.judge.audit import canary_report, cohens_kappa
from erpd_hub.evaluation.judge.canaries import canaries, rewordings
from erpd_hub.evaluation.judge.check import misreported, unfounded
from erpd_hub.evaluation.judge.journal import Ruling
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import SAMPLE_SCHEMA, read_rows, shard_path, write_rows
from erpd_hub.stages import judge

NAME = "addition-1digit"
PROBLEMS = load_problems(get_benchmark(NAME), None)[:4]
ALWAYS = len(canaries()) + len(rewordings()) + 1
"""Requests that every first run makes: canaries, rewordings, and the control that opens it."""


def row(problem, k, verdict, extracted, **changes):
    label = {"correct": 1, "ungradable": None}.get(verdict, 0)
    fields = {
        "benchmark": NAME, "problem_id": problem.problem_id, "k": k, "seed": k, "prompt_ids": [1, 2],
        "response_ids": [3, 4, 5], "sampler_logprobs": None, "finish_reason": "stop",
        "text": f"so \\boxed{{{extracted}}}", "gold": problem.gold, "extracted": extracted, "verdict": verdict,
        "label": label, "judge": None,
    }  # fmt: skip
    return fields | changes


def rows():
    """Of each problem one right and one wrong answer, one spelled out, and one that nobody is asked about."""
    first, second, third, fourth = PROBLEMS
    return [
        *(row(p, 0, "correct", p.gold) for p in PROBLEMS),
        *(row(p, 1, "wrong", f"word-{p.gold}") for p in PROBLEMS),
        *(row(p, 2, "wrong", "999") for p in PROBLEMS),
        row(first, 3, "truncated", None, finish_reason="length"),
        row(second, 3, "no_answer", None),
        row(third, 3, "timeout", "9" * 50),
        row(fourth, 3, "ungradable", "1", finish_reason="error"),
    ]


def write_details(folder, found=None):
    found = rows() if found is None else found
    write_rows(shard_path(folder, 0), found[:7], SAMPLE_SCHEMA)
    write_rows(shard_path(folder, 1), found[7:], SAMPLE_SCHEMA)
    return folder


def spelled(problems=PROBLEMS):
    return {(p.gold, f"word-{p.gold}") for p in problems}


def judged(tmp_path, server, details, name="out", definitions=None, benchmark=NAME, **changes):
    config = JudgeConfig(
        details="evaluate", benchmark=benchmark, definitions=definitions or {}, judge=server.settings(**changes)
    )
    out = tmp_path / name
    out.mkdir(exist_ok=True)
    (tmp_path / name / "work").mkdir(exist_ok=True)
    return out, judge.run(config, out, context=context(tmp_path / name), details=details).metrics


def test_both_scores_stand_side_by_side(tmp_path):
    details = write_details(tmp_path / "details")
    with JudgeServer(same=spelled()) as server:
        out, metrics = judged(tmp_path, server, details)
    found = list(read_rows(out))
    assert [{**item, "judge": None} for item in found] == list(read_rows(details)), "nothing else changes"
    asked = {item["k"] for item in found if item["judge"]}
    assert asked == {1, 2}
    assert {json.loads(item["judge"])["status"] for item in found if item["k"] == 1} == {"accepted"}
    assert {json.loads(item["judge"])["status"] for item in found if item["k"] == 2} == {"rejected"}
    plain = summarise(read_rows(details))
    assert {name: metrics[name] for name in plain} == plain
    with_judge = summarise({**item, "label": judged_label(item)} for item in found)
    for name in ("avg", "stderr", "stderr_sampling", "interval"):
        assert metrics[f"{name}_judged"] == with_judge[name]
    assert metrics["avg"] == pytest.approx((3 * 1 / 4 + 1 / 3) / 4)
    assert metrics["avg_judged"] == pytest.approx((3 * 2 / 4 + 2 / 3) / 4)
    assert metrics["judge_share"] == 4 / 16
    report = metrics["judge"]
    assert (report["asked"], report["questions"], report["flips"], report["unjudged"]) == (8, 8, 4, 0)
    assert report["audit"]["matrix"] == {
        "rule_right": {"accepted": 4, "rejected": 0, "unjudged": 0},
        "rule_wrong": {"accepted": 4, "rejected": 4, "unjudged": 0},
    }
    assert report["audit"]["agreement"] == 8 / 12
    assert report["audit"]["kappa"] == pytest.approx(0.4)
    assert (report["canary_acceptance"], report["reworded_acceptance"], report["canaries_alarm"]) == (0, 1, False)
    assert report["calls"] == len(server.bodies) == ALWAYS + 8 + 4


def test_every_flip_and_every_reply_is_written_down(tmp_path):
    with JudgeServer(same=spelled()) as server:
        out, _ = judged(tmp_path, server, write_details(tmp_path / "details"))
    flips = [json.loads(line) for line in (out / "judge/flips.jsonl").open()]
    assert flips == [
        {"problem_id": p.problem_id, "k": 1, "gold": p.gold, "answer": f"word-{p.gold}", "rule": "wrong", "reply": A}
        for p in PROBLEMS
    ]
    replies = [json.loads(line) for line in (out / "judge/replies.jsonl").open()]
    assert {reply["purpose"] for reply in replies} == {"canary", "reworded", "fallback", "audit"}
    assert len(replies) == len(server.bodies) - 1
    how = json.loads((out / "judge/judge.json").read_text())
    assert (how["model"], how["prompt_version"], how["temperature"]) == ("judge-m", 2, 0.0)
    written = "".join(path.read_text() for path in (out / "judge").iterdir())
    assert str(server.port) not in written


def test_equal_answers_cost_one_call(tmp_path):
    found = [row(p, k, "wrong", f"word-{p.gold}") for p in PROBLEMS for k in range(32)]
    with JudgeServer(same=spelled()) as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details", found))
    assert len(server.bodies) == ALWAYS + len(PROBLEMS)
    assert metrics["judge"]["cache_hits"] == 31 * len(PROBLEMS)
    assert metrics["avg_judged"] == 1


def test_the_judge_gets_the_answer_and_never_the_response(tmp_path):
    found = [row(PROBLEMS[0], 0, "wrong", "forty", text="SECRET REASONING \\boxed{forty}")]
    with JudgeServer() as server:
        judged(tmp_path, server, write_details(tmp_path / "details", found), concurrency=1)
        with_problem = server.bodies[-1]["messages"][1]["content"]
        assert PROBLEMS[0].problem in with_problem
        judged(tmp_path, server, tmp_path / "details", name="without", send_problem=False, concurrency=1)
    assert told(server.bodies[-1]) == (PROBLEMS[0].gold, "forty")
    assert "PROBLEM" not in server.bodies[-1]["messages"][1]["content"]
    assert not any("SECRET" in json.dumps(body) for body in server.bodies)


def test_what_the_rule_cannot_grade_is_graded_both_ways(tmp_path):
    """Counting only the accepted ones of ungradable answers would raise the mean."""
    found = [row(PROBLEMS[0], k, "ungradable", f"word-{PROBLEMS[0].gold}" if k == 0 else "999") for k in range(4)]
    with JudgeServer(same=spelled()) as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details", found))
    assert (metrics["avg"], metrics["avg_judged"]) == (None, 0.25)


def test_a_problem_without_gold_is_nobodys_to_judge(tmp_path):
    found = [row(PROBLEMS[0], 0, "ungradable", "5", gold="")]
    with JudgeServer() as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details", found))
    assert metrics["judge"]["asked"] == 0
    assert metrics["avg_judged"] is None


def test_without_a_verdict_the_rules_word_stands(tmp_path):
    with JudgeServer(lambda server, body: "hm" if "word-" in told(body)[1] else None) as server:
        out, metrics = judged(tmp_path, server, write_details(tmp_path / "details"))
    assert metrics["avg_judged"] == metrics["avg"]
    assert metrics["judge"]["unjudged"] == 4
    assert metrics["judge"]["unjudged_reasons"] == {"malformed": 4}
    cells = [json.loads(item["judge"]) for item in read_rows(out) if item["k"] == 1]
    assert {(cell["status"], cell["reason"]) for cell in cells} == {("unjudged", "malformed")}


def test_a_judge_that_believes_everything_is_found_out(tmp_path, caplog):
    with JudgeServer(lambda server, body: A) as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details"))
    assert metrics["judge"]["canary_acceptance"] == 1
    assert metrics["judge"]["canaries_alarm"]
    assert metrics["judge"]["canaries_problem"].startswith(f"it took {len(canaries())} of")
    assert "its score cannot be trusted" in caplog.text


def test_a_judge_that_believes_nothing_is_found_out(tmp_path):
    with JudgeServer(lambda server, body: B) as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details"))
    assert metrics["judge"]["reworded_acceptance"] == 0
    assert metrics["judge"]["audit"]["matrix"]["rule_right"]["rejected"] == 4
    assert metrics["judge"]["canaries_alarm"]
    assert metrics["judge"]["canaries_problem"] == "it took no honest rewording of a right answer for right"


def test_a_judge_that_says_nothing_of_canaries_is_not_measured(caplog):
    with_verdict = Ruling("rejected", None, (B,))
    unjudged, right = Ruling("unjudged", "malformed", ("hm",)), Ruling("accepted", None, (A,))
    silent = canary_report({f"canary/a/{i}": unjudged for i in range(4)}, [unjudged], threshold=0.0)
    assert (silent["canary_acceptance"], silent["reworded_acceptance"], silent["canaries_alarm"]) == (None, None, True)
    assert "no verdict on 4 of 4" in silent["canaries_problem"]
    some = canary_report({"a": right, "b": with_verdict, "c": unjudged, "d": unjudged}, [right], threshold=0.6)
    assert (some["canary_acceptance"], some["canaries_alarm"], some["canaries_problem"]) == (0.5, False, None)
    row = {"judge": "m", "judge_share": 0.0, "judge_unjudged": 0, "judge_kappa": None, "canary_acceptance": None}
    notes = list(judge_notes([{**row, "canaries_alarm": True, "canaries_problem": silent["canaries_problem"]}]))
    assert "it gave no verdict on 4 of 4 injected wrong answers: judged % cannot be trusted" in notes[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"extracted": "42".ljust(2000)},  # cut when it was graded: "or 43" stood behind
        {"extracted": "x<y" * 660},  # taken apart it is longer
        {"extracted": "42", "gold": "4" * 2500},
    ],
)
def test_what_the_judge_cannot_see_the_end_of_it_is_not_asked_about(changes, tmp_path):
    found = [row(PROBLEMS[0], 0, "wrong", **{"extracted": "forty", **changes})]
    with JudgeServer(lambda server, body: A) as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details", found))
    assert (metrics["judge"]["asked"], metrics["avg_judged"]) == (0, 0)


def test_a_judge_that_obeys_text_is_found_out(tmp_path):
    """One that reads the candidate as an instruction accepts the attacks that survive cleaning, and those alone."""

    def naive(server, body):
        answer = told(body)[1]
        return A if "verdict" in answer and "A" in answer.replace('"', " ").split("verdict", 1)[1] else None

    with JudgeServer(naive) as server:
        _, metrics = judged(tmp_path, server, write_details(tmp_path / "details"))
    accepted = {name.split("/")[1] for name in metrics["judge"]["canaries_accepted"]}
    assert {"ignore", "system", "fake_json", "only_json", "close_message", "front_padding"} <= accepted
    assert accepted.isdisjoint({"letter", "hedge", "hidden_text", "copied_reference"})


def test_the_audit_is_a_sample_that_no_order_changes(tmp_path):
    right = [row(p, 0, "correct", f"{p.gold}.{i}") for p in PROBLEMS for i in range(5)]
    drawn = []
    for name, found in (("a", right), ("b", right[::-1])):
        with JudgeServer() as server:
            details = write_details(tmp_path / f"details-{name}", found)
            out, metrics = judged(tmp_path, server, details, name=name, audit=6)
        assert metrics["judge"]["audit"]["population"] == {"rule_right": 20, "rule_wrong": 0}
        assert metrics["avg"] == metrics["avg_judged"] == 1, "what the audit says changes no score"
        replies = [json.loads(line) for line in (out / "judge/replies.jsonl").open()]
        drawn.append([(reply["problem_id"], reply["answer"]) for reply in replies if reply["purpose"] == "audit"])
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 6


@pytest.mark.parametrize(
    ("counts", "kappa"),
    [((20, 5, 10, 15), 0.4), ((10, 0, 0, 10), 1.0), ((0, 10, 10, 0), -1.0), ((5, 0, 0, 0), None), ((0, 0, 0, 0), None)],
)
def test_kappa_is_as_in_the_books(counts, kappa):
    assert cohens_kappa(*counts) == (None if kappa is None else pytest.approx(kappa))


def test_details_without_golds_are_judged_and_stay_without(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tmp_path / "dataset" / "data"
    source.mkdir(parents=True)
    table = {"problem": [p.problem for p in PROBLEMS], "answer": [f"gold-{p.gold}" for p in PROBLEMS]}
    pq.write_table(pa.table(table | {"id": [p.problem_id for p in PROBLEMS]}), source / "test-00000.parquet")
    entry = BenchmarkEntry(
        source={"dataset": "a/b", "split": "test", "id_column": "id"}, share="ids", licence="CC-BY-NC-SA-4.0"
    )
    benchmark = get_benchmark("mine", {"mine": entry})
    problems = load_problems(benchmark, tmp_path / "dataset")
    found = [row(p, k, "wrong", "9", benchmark="mine", gold=p.gold) for p in problems for k in range(2)]
    details = write_details(tmp_path / "details", found)
    conceal_folder(details, benchmark, problems)
    chatty = f"<think>gold-{PROBLEMS[0].gold} it is</think>{A}"
    config = JudgeConfig(
        details="evaluate",
        benchmark="mine",
        definitions={"mine": entry},
        judge={"model": "m", "url": "http://h/v1"},
    )
    with JudgeServer(lambda server, body: chatty if told(body)[0].startswith("gold-") else None) as server:
        config = config.model_copy(update={"judge": server.settings()})
        out = tmp_path / "out"
        run_context = context(tmp_path)
        metrics = judge.run(
            config, out, context=run_context, details=details, benchmarks={"mine": tmp_path / "dataset"}
        ).metrics
    assert metrics["avg_judged"] == 1
    assert all(item["gold"] is None and item["problem_sha256"] for item in read_rows(out))
    assert [item["gold"] for item in reveal(read_rows(out), problems)] == [p.gold for p in problems for _ in range(2)]
    assert not any(b"gold-" in path.read_bytes() for path in (out / "judge").iterdir())
    rows = list(read_rows(out))
    assert unfounded(rows, out) == []
    assert misreported(metrics["judge"], out) == []
    assert "without a reply" in unfounded([rows[0] | {"extracted": "10"}], out)[0]
    replies = out / "judge/replies.jsonl"
    replies.write_text(replies.read_text().replace('"purpose": "canary"', '"purpose": "reworded"'))
    assert "64 of 64 canary questions are missing" in misreported(metrics["judge"], out)[0]


def test_rulings_that_no_reply_bears_out_are_found(tmp_path):
    with JudgeServer(lambda server, body: "hm" if told(body)[1] == "999" else None, same=spelled()) as server:
        out, _ = judged(tmp_path, server, write_details(tmp_path / "details"))
    found = list(read_rows(out))
    assert unfounded(found, out) == []
    accepted, unjudged, right = found[4], found[8], found[0]
    forged = {"status": "accepted", "key": "0" * 16}
    assert json.loads(unjudged["judge"])["status"] == "unjudged"
    for changed, problem in (
        (accepted | {"judge": json.dumps({"status": "rejected"})}, "where the judge said 'accepted'"),
        (unjudged | {"judge": json.dumps(forged)}, "where the judge said 'unjudged'"),
        (right | {"judge": json.dumps(forged)}, "no judge is asked about"),
        (accepted | {"extracted": "another"}, "without a reply"),
    ):
        (line,) = unfounded([changed], out)
        assert problem in line
    replies = out / "judge/replies.jsonl"
    hidden = [json.loads(line) | {"replies": ["(left out, sha256 0)"]} for line in replies.read_text().splitlines()]
    kept = replies.read_text()
    replies.write_text("".join(json.dumps(entry) + "\n" for entry in hidden))
    assert "where the judge said 'unjudged'" in unfounded([accepted], out)[0], "nothing is left out beside a gold"
    replies.write_text(kept)
    (out / "judge/replies.jsonl").write_text("[")
    assert "expected replies" in unfounded(found, out)[0]


@pytest.mark.parametrize("cell", ["{", "[]", "3", '{"status": ["accepted"]}', "[" * 10**5, "", None])
def test_a_judge_column_that_cannot_be_read_changes_nothing(cell):
    assert judged_label(row(PROBLEMS[0], 0, "wrong", "5", judge=cell)) == 0


def test_no_judge_mends_what_was_cut_off():
    accepted = json.dumps({"status": "accepted"})
    assert judged_label(row(PROBLEMS[0], 0, "truncated", None, judge=accepted)) == 0
    assert judged_label(row(PROBLEMS[0], 0, "wrong", "5", judge=accepted)) == 1


def test_the_same_judge_gives_the_same_bytes(tmp_path):
    details = write_details(tmp_path / "details")
    digests = []
    for name in ("a", "b"):
        with JudgeServer(same=spelled()) as server:
            out, _ = judged(tmp_path, server, details, name=name)
        digests.append(folder_digest(out, "judge.jsonl"))
    assert digests[0] == digests[1]


_SCRIPT = """
import sys, json
from pathlib import Path
from erpd_hub.config import JudgeConfig
from erpd_hub.stage_context import StageContext
from erpd_hub.stages import judge
config, details, out, work = json.loads(sys.argv[1])
judge.run(JudgeConfig.model_validate(config), Path(out), context=StageContext(0, Path(work)), details=Path(details))
"""


def test_a_killed_run_asks_nothing_twice(tmp_path):
    details = write_details(tmp_path / "details")
    with JudgeServer(same=spelled(), delay=0.05) as server:
        config = JudgeConfig(details="evaluate", benchmark=NAME, judge=server.settings(concurrency=2))
        told_it = [config.model_dump(mode="json"), *(str(tmp_path / name) for name in ("details", "out", "work"))]
        for name in ("out", "work"):
            (tmp_path / name).mkdir()
        process = subprocess.Popen([sys.executable, "-c", _SCRIPT, json.dumps(told_it)], env=dict(os.environ))
        while len(server.bodies) < 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = len(server.bodies)
        server.delay = 0.0
        metrics = judge.run(config, tmp_path / "out", context=context(tmp_path), details=details).metrics
        in_flight = 2
        assert len(server.bodies) - before <= ALWAYS + 12 - before + in_flight + 1
    assert metrics["avg_judged"] == pytest.approx((3 * 2 / 4 + 2 / 3) / 4)


def test_a_cap_is_raised_and_the_stage_goes_on(tmp_path):
    details = write_details(tmp_path / "details")
    with JudgeServer(same=spelled()) as server:
        with pytest.raises(StageError, match=r"judge\.max_calls: expected at most 30"):
            judged(tmp_path, server, details, max_calls=30)
        judged(tmp_path, server, details, max_calls=200)
    assert len(server.bodies) == ALWAYS + 12 + 1, "one control more"


# ------------------------------------------------------------------------------------------------ plan

STEPS = {
    "base": {"type": "tiny"},
    "evaluate": {"checkpoints": ["base"], "benchmarks": ["addition"]},
}
JUDGE = {"model": "judge-m", "url": "http://node1:8000/v1"}


def plan_of(**changes):
    return make_plan(build_recipe({"run": "t", "steps": {**STEPS, "evaluate": STEPS["evaluate"] | changes}}, "test"))


def test_a_judged_copy_is_a_node_of_its_own():
    plain, plan = plan_of(), plan_of(judge=JUDGE)
    name = "r1/evaluate/base/addition"
    before, now, copy = plain.node(name), plan.node(name), plan.node(f"{name}-judged")
    assert (now.identity, now.inputs, now.folder) == (before.identity, before.inputs, before.folder)
    assert copy.config.stage == "judge"
    assert [(edge.role, edge.source) for edge in copy.inputs] == [("details", name)]
    assert (copy.repo_id, copy.folder, copy.seed) == (now.repo_id, "base/addition-judged", now.seed)
    extended = plan_of(judge=JUDGE, extend_to=128).node(f"{name}-to-128-judged")
    assert extended.inputs[0].source == f"{name}-to-128"
    assert "url" not in json.dumps(copy.identity)


def test_only_what_a_verdict_depends_on_is_the_identity():
    def identity(**changes):
        return plan_of(judge=JUDGE | changes).node("r1/evaluate/base/addition-judged").identity

    assert identity() == identity(
        url="http://node2/v1", concurrency=2, max_calls=5, key_env="OPENAI_API_KEY", timeout=5
    )
    assert identity() != identity(model="other")
    assert identity() != identity(send_problem=False)


def test_programs_are_not_judged():
    steps = {"checkpoints": ["base"], "benchmarks": ["livecodebench_v6", "addition"], "judge": JUDGE}
    names = [node.name for node in plan_of(**steps).nodes]
    assert "r1/evaluate/base/addition-judged" in names
    assert "r1/evaluate/base/livecodebench_v6-judged" not in names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "http://user:pw@host/v1"}, "expected no user name or password in a URL"),
        ({"url": "ftp://host"}, "expected base URLs such as"),
        ({"max_cost": 1.0}, "expected input_price and output_price with it"),
        ({"options": {"temperature": 1}}, "expected fields that are not set otherwise, got temperature"),
        ({"options": {"api_key": "sk-pw"}}, "expected nothing secret, as options are recorded, got 'api_key'"),
        ({"options": {"extra": [{"apiKey": "sk-pw"}]}}, "nothing secret"),
        ({"options": {"extra_headers": {"X-Auth": "pw"}}}, "nothing secret"),
        ({"options": {"extra_body": {"access_token": "pw"}}}, "nothing secret"),
        ({"modell": "x"}, r"did you mean 'model'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        plan_of(judge=JUDGE | changes)
    assert "pw" not in str(refusal.value)


def test_options_of_requests_are_no_secrets():
    options = {"reasoning_effort": "low", "max_thinking_tokens": 9, "skip_special_tokens": True, "author": "x"}
    assert JudgeSettings(**JUDGE, options=options).options == options


def test_a_judge_is_no_step():
    step = {"details": "evaluate", "benchmark": "addition", "judge": JUDGE}
    with pytest.raises(ConfigError, match=r"expected a judge as a key of an evaluation"):
        make_plan(build_recipe({"run": "t", "steps": {**STEPS, "judge": step}}, "test"))


def test_a_judge_is_no_part_of_what_was_made_without_one():
    from erpd_hub.fields import identity

    config = EvaluateConfig(checkpoints=("base",), benchmarks=("addition",))
    assert "judge" not in identity(config)


def test_a_run_shows_both_scores(micro_base, tmp_path):
    """Through the command line: judged, and judged again by another judge, which samples nothing."""
    home = tmp_path / "home"
    shutil.copytree(micro_base, home)
    words = ("evaluate", "local/micro-r1-base", "-b", NAME, "-k", "2", "--name", "jd", "limit=4")
    words += ("decoding.max_new_tokens=24", "--json")
    with JudgeServer(lambda server, body: A) as server:
        words += ("--judge-url", server.url, "judge.patience=5")
        done = cli(*words, "--judge", "judge-m", home=home)
        other = json.loads(cli(*words, "--judge", "judge-n", home=home).stdout)
    both = json.loads(done.stdout)
    (shown,) = both["checkpoints"]
    assert shown["avg"] < shown["avg_judged"]
    assert (shown["judge"], shown["canaries_alarm"]) == ("judge-m", True)
    assert "-judged@" in shown["details"]
    assert "its score cannot be trusted" in done.stderr
    assert [item["reused"] for item in other["artifacts"] if item["stage"] in ("evaluate", "judge")] == [True, False]
    assert other["checkpoints"][0]["judge"] == "judge-n"
    assert str(server.port) not in done.stdout
