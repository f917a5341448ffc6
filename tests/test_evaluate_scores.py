"""What an evaluation says of its samples beside the score, endpoints as references, and the command's words."""

import json
import logging
import tracemalloc

import pytest
from completions_server import CompletionsServer, serving, solved
from conftest import cli
from evaluations import PROBLEMS, at, by_sample, evaluate
from starlette.responses import JSONResponse, Response
from tiny import save_policy

from erpd_hub.artifacts import LINEAGE
from erpd_hub.cli.evaluate import split_words
from erpd_hub.config import EvaluateConfig
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.evaluation.benchmarks import get_benchmark
from erpd_hub.evaluation.caveats import sampling_notes
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.fields import identity
from erpd_hub.model_cards import render
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.references import EndpointRef, parse_reference
from erpd_hub.samples import SAMPLE_SCHEMA, read_rows, shard_path, write_rows
from erpd_hub.sampling.distinct import count_repeats
from erpd_hub.sampling.progress import Progress
from erpd_hub.sampling.sampler import Drawn
from erpd_hub.score_table import score_notes
from erpd_hub.stages import evaluate as evaluate_stage
from erpd_hub.stages import judge as judge_stage


def test_a_server_that_ignores_seeds_is_found_out(caplog):
    with serving(CompletionsServer(owner="someone")) as (server,):
        server.talk = lambda body: solved({**body, "seed": 0})
        row, _, record = evaluate("endpoint:m", 3, engine=at(server))
        assert (row["duplicates"], row["seeds_ignored"]) == (2 * PROBLEMS, True)
        assert record.metrics["seeds_ignored"] is True
        assert "6 of 9 samples repeat another of their problem: whatever draws them ignores seeds" in caplog.text
        assert any("ignores seeds" in note for note in score_notes([row]))
        caplog.clear()
        greedy = {"temperature": 0, "max_new_tokens": 32}
        row, _, _ = evaluate("endpoint:m", 3, engine=at(server), decoding=greedy)
    assert (row["duplicates"], row["seeds_ignored"]) == (2 * PROBLEMS, False)
    assert "ignores seeds" not in caplog.text
    assert any("as temperature 0 makes them" in note for note in score_notes([row]))


def test_that_no_seed_was_sent_is_recorded():
    def answer(server, body):
        return JSONResponse({"error": {"message": "seed: extra", "param": "seed"}}, 400) if "seed" in body else None

    with serving(CompletionsServer(answer, owner="someone")) as (server,):
        *_, record = evaluate("endpoint:m", 2, engine=at(server))
        assert evaluate("endpoint:m", 1, engine=at(server))[2].metrics["seeds_sent"] is False, "of a part of them too"
    assert record.metrics["seeds_sent"] is False
    assert "drawn without their seeds" in render(record.model_dump(mode="json", by_alias=True))
    assert "m was drawn without seeds, which its server does not take" in list(sampling_notes("m", record.metrics))
    with serving(CompletionsServer(owner="someone")) as (server,):
        *_, record = evaluate("endpoint:m", 1, engine=at(server), name="seeded")
    assert "seeds_sent" not in record.metrics


def sample_of(problem, text, reason="stop"):
    return {"problem_id": problem, "text": text, "finish_reason": reason}


def test_equal_texts_are_counted_within_a_problem():
    rows = [sample_of("a", "x"), sample_of("a", "x"), sample_of("a", "y"), sample_of("b", "x"), sample_of("b", "z")]
    found = count_repeats([*rows, sample_of("b", "", "error"), sample_of("b", "", "error")])
    assert found == (5, 1, 0, False)
    assert not found.suspicious(1.0)
    long = count_repeats([*rows, sample_of("c", "x" * 1000), sample_of("c", "x" * 1000)])
    assert long.suspicious(0.6) and not long.suspicious(0)
    assert not count_repeats([sample_of("a", "x"), sample_of("b", "x")]).all_alike


def test_answers_that_a_server_cuts_by_a_limit_of_its_own_are_said_so():
    def talk(body):
        return {"message": {"content": "I think"}, "finish_reason": "length", "tokens": 9}

    with serving(CompletionsServer(owner="someone")) as (server,):
        server.talk = talk
        row, rows, _ = evaluate("endpoint:m", 1, engine=at(server))
    assert (row["truncated"], row["cut_short"], row["mean_length"]) == (1.0, PROBLEMS, 9.0)
    assert {r["num_tokens"] for r in rows} == {9} and {r["response_ids"] for r in rows} == {None}
    assert any("ended 3 samples by a limit of its own" in note for note in score_notes([row]))


def test_figures_are_made_without_holding_the_tokens(tmp_path):
    """Days of sampling are gigabytes as Python objects."""
    tokens, rows = 20_000, 32
    row = {
        "benchmark": "addition-1digit", "prompt_ids": [5] * 100, "response_ids": [7] * tokens, "finish_reason": "stop",
        "sampler_logprobs": [-0.5] * tokens, "gold": "3", "extracted": "3", "verdict": "correct", "label": 1,
        "judge": None,
    }  # fmt: skip
    found = [{**row, "problem_id": str(i % 4), "k": i // 4, "seed": i, "text": f"{i}" * 5_000} for i in range(rows)]
    write_rows(shard_path(tmp_path, 0), found, SAMPLE_SCHEMA)
    config = EvaluateConfig(checkpoints=("base",), benchmarks=("addition-1digit",))
    drawn = Drawn({}, dict.fromkeys("0123", tokens))
    whole = evaluate_stage._figures(tmp_path, [], get_benchmark("addition-1digit"), config, drawn)
    judged = judge_stage._metrics(tmp_path, tmp_path, [], {})
    tracemalloc.start()
    evaluate_stage._figures(tmp_path, [], get_benchmark("addition-1digit"), config, drawn)
    judge_stage._metrics(tmp_path, tmp_path, [], {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summarise(read_rows(tmp_path)).items() <= whole.items()
    assert (judged["avg_judged"], judged["mean_length"]) == (whole["avg"], tokens)
    assert peak < rows * tokens * 8, "less than the ids alone as Python numbers"


def test_a_limit_of_the_whole_sequence_leaves_long_prompts_less(tmp_path):
    policy = save_policy(tmp_path / "policy")
    keys = {"engine": {"dtype": "float32"}, "decoding": {"max_new_tokens": 12}}
    _, plain, _ = evaluate(policy, 2, **keys)
    longest = max(len(row["prompt_ids"]) for row in plain)
    _, rows, record = evaluate(policy, 2, name="short", max_sequence_tokens=longest + 4, **keys)
    lengths = {len(row["prompt_ids"]) + len(row["response_ids"]) for row in rows if row["finish_reason"] == "length"}
    assert lengths == {longest + 4}
    before = by_sample(plain)
    assert all(before[key]["response_ids"][: len(r["response_ids"])] == r["response_ids"]
               for key, r in by_sample(rows).items())  # fmt: skip
    assert record.metrics["max_sequence_tokens"] == longest + 4
    with pytest.raises(StageError, match=f"expected less than max_sequence_tokens {longest - 1} tokens"):
        evaluate(policy, 2, name="full", max_sequence_tokens=longest - 1, **keys)


def test_what_came_later_is_no_part_of_an_older_identity():
    plain = EvaluateConfig(checkpoints=("base",), benchmarks=("addition",))
    assert not {"max_sequence_tokens", "on_error"} & identity(plain).keys()
    assert identity(plain.model_copy(update={"max_sequence_tokens": 9}))["max_sequence_tokens"] == 9


# ---------------------------------------------------------------------------- words and references


def test_an_endpoint_is_a_reference_that_can_only_be_evaluated():
    reference = parse_reference("endpoint:deepseek-ai/DeepSeek-R1:free")
    assert reference == EndpointRef("deepseek-ai/DeepSeek-R1:free")
    assert (str(reference), reference.folder) == (
        "endpoint:deepseek-ai/DeepSeek-R1:free", "endpoint--deepseek-ai--DeepSeek-R1--free"
    )  # fmt: skip
    for text in ("endpoint:", "endpoint: x", "endpoint:a b", "endpoint:../x\n"):
        with pytest.raises(ConfigError, match="expected a reference"):
            parse_reference(text)
    steps = {"probe": {"checkpoints": ["endpoint:m"], "prompts": "me/p"}}
    with pytest.raises(ConfigError, match="an endpoint can only be evaluated"):
        build_recipe({"run": "t", "steps": steps}, "test")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "expected type server with urls for endpoint:m, got transformers"),
        ({"engine": {"type": "server", "urls": ["http://h/v1"], "model": "n"}}, "engine.model: expected none"),
        ({"engine": {"type": "server", "urls": ["http://h/v1"]}, "extend_to": 99999}, "extend_to: expected none"),
        ({"engine": {"type": "server", "urls": ["http://h/v1"]}, "max_sequence_tokens": 9}, "gives no token ids"),
    ],
)
def test_an_endpoint_needs_a_server_and_its_own_name(keys, expected):
    step = {"checkpoints": "endpoint:m", "benchmarks": "addition", **keys}
    with pytest.raises(ConfigError, match=expected):
        build_recipe({"run": "t", "steps": {"evaluate": step}}, "test")


def test_a_plain_completion_benchmark_is_nothing_for_an_endpoint():
    step = {"checkpoints": "endpoint:m", "benchmarks": "addition-2digit",
            "engine": {"type": "server", "urls": ["http://127.0.0.1:9/v1"]}}  # fmt: skip
    plan = make_plan(build_recipe({"run": "t", "steps": {"evaluate": step}}, "test"))
    with pytest.raises(StageError, match="expected a chat format"):
        run_plan(plan)


def test_an_engine_may_be_said_in_a_word():
    step = {"checkpoints": "me/m", "benchmarks": "addition", "engine": "vllm"}
    recipe = build_recipe({"run": "t", "steps": {"evaluate": step}}, "test")
    assert recipe.rounds[0].steps["evaluate"].engine.type == "vllm"


def test_words_of_the_command_are_checkpoints_keys_or_options():
    words = ["me/model@main", "limit=3", "--seed", "4", "./out/x=1", "--decoding.temperature=0.6", "endpoint:a/b:c"]
    assert split_words(words) == (
        ["me/model@main", "./out/x=1", "endpoint:a/b:c"], ["limit=3", "--seed=4", "--decoding.temperature=0.6"]
    )  # fmt: skip


def test_the_command_takes_both_forms_and_says_how_far_it_is(tmp_path):
    with serving(CompletionsServer(owner="someone")) as (server,):
        first = cli("evaluate", "endpoint:m", "--url", server.url, "-b", "addition-1digit", "-k", "2", "--limit", "3",
                    "--progress", tmp_path / "p.json", home=tmp_path / "home")  # fmt: skip
        second = cli("evaluate", "checkpoints=endpoint:m", "benchmarks=addition-1digit", "k=2", "limit=3",
                     "engine.type=server", f"engine.urls=[{server.url}]", home=tmp_path / "home")  # fmt: skip
    assert "addition-1digit: 6/6 samples" in first.stderr and "tokens/s, 0:00 to go" in first.stderr
    state = json.loads((tmp_path / "p.json").read_text())
    assert (state["schema"], state["samples"], state["of"], state["graded"]) == ("erpd-hub/progress/v1", 6, 6, 6)
    assert "endpoint:m (unpinned)" in first.stdout and "95 % interval" in first.stdout
    assert "reused" in second.stderr
    assert server.url not in (first.stdout + first.stderr)
    for path in (tmp_path / "home" / "cache").rglob(LINEAGE):
        assert "127.0.0.1" not in path.read_text()


def test_progress_counts_what_was_there_before(caplog, tmp_path, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("ERPD_PROGRESS", str(tmp_path / "p"))
    progress = Progress(10, before=30, label="aime_2025", replica=1)
    progress.log(now=True)
    assert "aime_2025: 30/40 samples (30 from before), - right so far, 0 tokens/s, - to go" in caplog.text
    progress.drawn(500)
    assert progress.state()["seconds_left"] is not None
    assert json.loads((tmp_path / "p.1").read_text())["samples"] == 30


def test_a_card_says_what_makes_its_scores_less_than_they_seem():
    with serving(CompletionsServer(owner="someone")) as (server,):
        server.talk = lambda body: solved({**body, "seed": 0})
        server.answer = lambda server, body: Response(status_code=500) if len(server.finished) > 5 else None
        *_, record = evaluate("endpoint:m", 3, engine=at(server, concurrency=1), on_error="record")
    card = render(record.model_dump(mode="json", by_alias=True))
    assert "is unpinned: it was drawn from an endpoint" in card
    assert "55.6 % of the samples are graded (4 failed)" in card
    assert "ignores seeds" in card
    assert "an endpoint, which nothing pins" in card


def test_what_an_evaluation_does_not_say_of_its_decoding_is_the_benchmarks():
    step = {"checkpoints": "me/m", "benchmarks": "aime_2025", "decoding": {"max_new_tokens": 8192}}
    plan = make_plan(build_recipe({"run": "t", "steps": {"evaluate": step}}, "test"))
    (node,) = plan.nodes
    decoding = get_benchmark("aime_2025").decoding
    assert (decoding.temperature, decoding.top_p) == (0.6, 0.95)
    assert node.config.decoding == decoding.model_copy(update={"max_new_tokens": 8192})
    assert decoding.changed(None) == decoding
