import json
from dataclasses import replace

import pytest
import torch
from conftest import cli
from tiny import FORMAT, context, folder_digest, make_policy, save_policy
from transformers import DynamicCache

from erpd_hub.benchmarks import cache
from erpd_hub.config import Decoding, RolloutConfig, TransformersEngine
from erpd_hub.errors import StageError
from erpd_hub.evaluation.grading import Grade
from erpd_hub.fields import identity
from erpd_hub.logprobs import response_logprobs
from erpd_hub.prompts import Problem, render
from erpd_hub.response_batch import make_batch
from erpd_hub.samples import read_rows, sample_seed, shard_paths
from erpd_hub.sampling import rows, shard_grades, transformers_engine
from erpd_hub.sampling.engine import Completion, Request, request_seed
from erpd_hub.sampling.plan import cut_batches
from erpd_hub.sampling.sampler import Sampling, sample_problems
from erpd_hub.sampling.stopping import StopRule, cut_at_stop, stop_token_ids
from erpd_hub.sampling.transformers_engine import LocalEngine, sampler_logprobs
from erpd_hub.stage_context import StageContext

PROBLEMS = [Problem(text, "addition", text, "7") for text in ("3+4", "12+5", "1+2", "20+31", "9+9")]


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(*make_policy())


def requests(engine: LocalEngine, count: int = 6) -> list[Request]:
    texts = ["3+4", "12+53", "1+2"]
    return [Request(tuple(render(texts[i % 3], FORMAT, engine.tokenizer)), 100 + i) for i in range(count)]


def generate(engine: LocalEngine, asked: list[Request], decoding: Decoding, stop: tuple[str, ...] = ()):
    """All completions, in the order of their requests."""
    found: dict[int, Completion] = dict(engine.generate(asked, decoding, stop))
    return [found[index] for index in range(len(asked))]


def test_first_token_is_drawn_from_the_softmax(engine: LocalEngine) -> None:
    prompt = requests(engine, 1)[0].prompt_ids
    draws = 4000
    completions = generate(engine, [Request(prompt, seed) for seed in range(draws)], Decoding(max_new_tokens=1))
    counts = torch.bincount(torch.tensor([c.response_ids[0] for c in completions]), minlength=22)
    expected = draws * torch.softmax(engine.model(torch.tensor([prompt])).logits[0, -1], -1)
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert chi_square < 46.8  # 0.1 % point of chi-square with 21 degrees of freedom


def test_a_sample_does_not_depend_on_its_company(engine: LocalEngine) -> None:
    decoding = Decoding(max_new_tokens=40)
    together = generate(engine, requests(engine), decoding)
    assert len({len(c.response_ids) for c in together}) > 1  # rows do leave the batch at different times
    for request, completion in zip(requests(engine), together, strict=True):
        (alone,) = generate(engine, [request], decoding)
        assert alone.response_ids == completion.response_ids
        assert alone.logprobs == pytest.approx(completion.logprobs, abs=1e-4)


def test_the_cache_grows_in_place_and_changes_no_bit(engine: LocalEngine, monkeypatch) -> None:
    """Prompts of unlike length, rows that end early and are dropped, and steps enough for the buffers to grow."""
    asked = [Request(tuple(range(1, 2 + index)), index, max_new_tokens=5 if index % 3 else None) for index in range(9)]
    decoding = Decoding(max_new_tokens=80)
    drawn = dict(engine.generate(asked, decoding, ()))
    layers = transformers_engine.growing_cache(engine.model.config).layers
    new = torch.ones(2, 3, 1, 4)
    assert {type(layer).__name__ for layer in layers} == {"_GrowingLayer"}
    for step in range(40):
        keys, _ = layers[0].update(step * new, new)
        assert keys.shape[-2] == step + 1
        assert keys[0, 0, :, 0].tolist() == list(range(step + 1))
    assert keys.data_ptr() == layers[0].update(new, new)[0].data_ptr(), "not copied"
    monkeypatch.setattr(transformers_engine, "growing_cache", lambda config: DynamicCache(config=config))
    assert dict(engine.generate(asked, decoding, ())) == drawn


def test_the_cache_benchmark_gives_its_ratio(tmp_path) -> None:
    asked = ("bench", "cache", "--rows", 4, "--tokens", 8, "--repeats", 1, "--json")
    report = json.loads(cli(*asked, home=tmp_path).stdout)
    assert report["ratio"] == pytest.approx(report["copied"][0]["seconds"] / report["grown"][0]["seconds"])
    assert "copied / grown" in cache.render(report)
    refused = cli("bench", "cache", "--shape", "tinny", home=tmp_path, expect=2)
    assert "shape: expected one of" in refused.stderr and "Traceback" not in refused.stderr


def test_longer_limits_continue_the_same_sample(engine: LocalEngine) -> None:
    short = generate(engine, requests(engine), Decoding(max_new_tokens=5))
    long = generate(engine, requests(engine), Decoding(max_new_tokens=40))
    assert all(b.response_ids[:5] == a.response_ids for a, b in zip(short, long, strict=True))


def test_sampler_logprobs_are_those_of_the_scoring_path(engine: LocalEngine) -> None:
    completions = generate(engine, requests(engine), Decoding(max_new_tokens=20))
    batch = make_batch([r.prompt_ids for r in requests(engine)], [c.response_ids for c in completions])
    scored = response_logprobs(engine.model, batch, temperature=1.0).logprobs
    for row, completion in enumerate(completions):
        assert scored[row, : len(completion.logprobs)].tolist() == pytest.approx(completion.logprobs, abs=1e-4)


def test_stop_token_is_kept_and_text_ends_before_it(engine: LocalEngine) -> None:
    end = engine.tokenizer.eos_token_id
    for completion in generate(engine, requests(engine, 30), Decoding(max_new_tokens=60)):
        assert (completion.finish_reason == "stop") == (completion.response_ids[-1] == end)
        assert end not in completion.response_ids[:-1]
        assert "<eos>" not in completion.text
        assert len(completion.response_ids) == 60 or completion.finish_reason == "stop"


def test_stop_string_ends_a_response_at_the_token_that_completes_it(engine: LocalEngine) -> None:
    free = generate(engine, requests(engine, 12), Decoding(max_new_tokens=30))
    text = next(c.text for c in free if len(c.text) > 12)
    stop = text[4:6]
    for completion in generate(engine, requests(engine, 12), Decoding(max_new_tokens=30), (stop,)):
        assert stop not in completion.text
        whole = engine.tokenizer.decode(completion.response_ids, skip_special_tokens=True)
        assert stop not in whole[:-1]
        if stop in whole:
            assert completion.finish_reason == "stop"
            assert whole.startswith(completion.text)
    assert cut_at_stop("one\ntwo;", (";", "\n")) == "one"


def test_greedy_takes_the_most_likely_token_whatever_the_seed(engine: LocalEngine) -> None:
    prompt = requests(engine, 1)[0].prompt_ids
    first, second = generate(
        engine, [Request(prompt, 1), Request(prompt, 2)], Decoding(temperature=0, max_new_tokens=8), ()
    )
    assert first == second
    assert first.response_ids[0] == engine.model(torch.tensor([prompt])).logits[0, -1].argmax()


@pytest.mark.parametrize("temperature", [0, 1])
def test_rows_that_were_continued_leave_the_batch_when_they_are_full(engine: LocalEngine, temperature: int) -> None:
    decoding = Decoding(temperature=temperature, max_new_tokens=12)
    far = engine.tokenizer("12345678")["input_ids"]
    asked = [replace(r, response_ids=tuple(far[:n])) for r, n in zip(requests(engine, 4), (0, 8, 6, 8), strict=True)]
    together = generate(engine, asked, decoding)
    assert [c.response_ids for c in together] == [generate(engine, [r], decoding)[0].response_ids for r in asked]
    assert [len(c.response_ids) - len(r.response_ids) for c, r in zip(together, asked, strict=True)][1::2] == [4, 4]


def test_top_k_and_top_p_cut_and_renormalise() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    top_k = sampler_logprobs(logits, Decoding(top_k=2)).exp()
    torch.testing.assert_close(top_k, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    top_p = sampler_logprobs(logits, Decoding(top_p=0.6)).exp()
    torch.testing.assert_close(top_p, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
    assert sampler_logprobs(logits, Decoding(top_p=0.1)).exp().tolist() == [[1, 0, 0, 0]]
    colder = sampler_logprobs(logits, Decoding(temperature=0.5)).exp()
    torch.testing.assert_close(colder, torch.softmax(2 * logits, -1))


@pytest.mark.parametrize("temperature", [0, 0.7])
def test_a_presence_penalty_is_taken_off_what_a_response_has_already(engine: LocalEngine, temperature) -> None:
    decoding = Decoding(temperature=temperature, presence_penalty=1.5, max_new_tokens=30)
    asked = requests(engine, 5)
    completions = generate(engine, asked, decoding)
    assert completions != generate(engine, asked, decoding.model_copy(update={"presence_penalty": 0.0}))
    for request, completion in zip(asked, completions, strict=True):
        ids, start = [*request.prompt_ids, *completion.response_ids], len(request.prompt_ids)
        logits = engine.model(torch.tensor([ids])).logits[0, start - 1 : -1].detach()
        for place in range(len(logits)):
            logits[place, list(set(ids[start : start + place]))] -= 1.5
        log_p = torch.log_softmax(logits / (temperature or 1), -1)
        expected = [step[token].item() for step, token in zip(log_p, completion.response_ids, strict=True)]
        assert completion.logprobs == pytest.approx(expected, abs=1e-4)
    first = generate(engine, asked, decoding.model_copy(update={"max_new_tokens": 7}))
    went_on = [
        replace(r, response_ids=tuple(c.response_ids)) for r, c in zip(asked, first, strict=True)
        if c.finish_reason == "length"
    ]  # fmt: skip
    whole = [c.response_ids for c, part in zip(completions, first, strict=True) if part.finish_reason == "length"]
    assert [c.response_ids for c in generate(engine, went_on, decoding)] == whole != []


def test_no_presence_penalty_is_written_nowhere_and_vllm_extends_none() -> None:
    assert "presence_penalty" not in Decoding().model_dump_json()
    fields = {"prompts": "p", "extend_to": 64, "decoding": {"presence_penalty": 1.5, "max_new_tokens": 8}}
    assert RolloutConfig(**fields).extend_to == 64, "our own sampler goes on as it began"
    with pytest.raises(ValueError, match="extend_to: expected none with a presence penalty"):
        RolloutConfig(**fields, engine={"type": "vllm"})
    penalised = identity(RolloutConfig(**(fields | {"extend_to": None})))
    assert penalised["decoding"]["presence_penalty"] == 1.5
    assert Decoding(temperature=0.6).changed(Decoding(presence_penalty=1.5)).model_dump() == {
        "temperature": 0.6, "top_p": 1.0, "top_k": 0, "max_new_tokens": 1024, "presence_penalty": 1.5
    }  # fmt: skip


def sample(tmp_path, name: str, *, k: int = 3, max_new_tokens: int = 12, replicas: int = 1, **changes):
    """Sampled into a folder, with what it says of how; by several replicas and then once more to finish."""
    shares = [context(tmp_path, seed=3)]
    if replicas > 1:
        shares = [StageContext(3, tmp_path / "work", replica, replicas) for replica in range(replicas)] + shares
    for share in shares:
        sampling = Sampling(
            benchmark="addition",
            k=k,
            checkpoint=save_policy(tmp_path / "policy"),
            decoding=Decoding(max_new_tokens=max_new_tokens),
            format=FORMAT,
            engine=TransformersEngine(dtype="float32", batch_tokens=4 * (9 + max_new_tokens)),
            **changes,
        )
        drawn = sample_problems(PROBLEMS, sampling, out=tmp_path / name, context=share).how
    return tmp_path / name, drawn


def test_rows_are_complete_and_seeded_by_what_they_are(tmp_path) -> None:
    found = list(read_rows(sample(tmp_path, "out")[0]))
    assert {(row["problem_id"], row["k"]) for row in found} == {(p.problem_id, k) for p in PROBLEMS for k in range(3)}
    for row in found:
        assert row["seed"] == sample_seed(3, "addition", row["problem_id"], row["k"])
        assert len(row["sampler_logprobs"]) == len(row["response_ids"])
        assert row["verdict"] in ("wrong", "no_answer", "truncated", "correct")


def test_a_killed_run_ends_in_the_same_bytes(tmp_path) -> None:
    whole, _ = sample(tmp_path, "whole")
    broken, _ = sample(tmp_path, "broken")
    shards = shard_paths(broken)
    assert len(shards) == 4
    shards[1].unlink()
    shards[3].rename(shards[3].with_suffix(".partial"))
    sample(tmp_path, "broken")
    assert {n: d for n, d in folder_digest(broken).items() if n.endswith("parquet")} == folder_digest(whole)


def test_a_run_that_goes_on_under_another_grader_has_all_verdicts_from_it(monkeypatch, tmp_path) -> None:
    whole, _ = sample(tmp_path, "whole")

    def older(responses, **keys):
        return [Grade("ungradable", None, None, None, "none") for _ in responses]

    with monkeypatch.context() as patch:
        patch.setattr(shard_grades, "math_grader", lambda: {"grader": "math v0"})
        patch.setattr(rows, "grade_many", older)
        begun, _ = sample(tmp_path, "begun")
    assert {row["verdict"] for row in read_rows(begun)} == {"ungradable"}
    shard_paths(begun)[1].unlink()
    assert folder_digest(sample(tmp_path, "begun")[0]) == folder_digest(whole)
    with monkeypatch.context() as patch:
        patch.setattr(rows, "grade_many", older)
        assert folder_digest(sample(tmp_path, "begun")[0]) == folder_digest(whole), "the same grader is not asked again"


def test_more_samples_of_a_problem_begin_with_the_same_ones(tmp_path) -> None:
    few = {(r["problem_id"], r["k"]): r["response_ids"] for r in read_rows(sample(tmp_path, "few", k=2)[0])}
    many = {(r["problem_id"], r["k"]): r["response_ids"] for r in read_rows(sample(tmp_path, "many", k=4)[0])}
    assert all(many[key] == ids for key, ids in few.items())


def test_prompts_too_long_for_the_context_are_refused_by_name(tmp_path) -> None:
    with pytest.raises(StageError, match=r"at most 5 tokens .* 5 prompts \(3\+4"):
        sample(tmp_path, "out", max_new_tokens=507)


def test_replicas_share_the_shards_and_leave_the_same_bytes(tmp_path) -> None:
    whole, _ = sample(tmp_path, "whole")
    assert folder_digest(sample(tmp_path, "shared", replicas=3)[0]) == folder_digest(whole)


def test_an_extension_is_the_longer_run(tmp_path) -> None:
    """It draws only what ended by length, keeps the rest as it is, and ends in the rows of a run with its limit."""
    short, _ = sample(tmp_path, "short", max_new_tokens=5)
    long, _ = sample(tmp_path, "long", max_new_tokens=14)
    extended, drawn = sample(tmp_path, "extended", max_new_tokens=5, extended=short, extend_to=14)
    before, expected, found = (
        {(row["problem_id"], row["k"]): row for row in read_rows(folder)} for folder in (short, long, extended)
    )
    assert found.keys() == expected.keys()
    cut = {key for key, row in before.items() if row["finish_reason"] == "length"}
    assert 0 < len(cut) < len(found)
    assert (drawn["continued"], drawn["extend_to"]) == (len(cut), 14)
    for key, row in found.items():
        assert row | {"sampler_logprobs": None} == expected[key] | {"sampler_logprobs": None}
        assert row["sampler_logprobs"] == pytest.approx(expected[key]["sampler_logprobs"], abs=1e-4)
        assert key in cut or row == before[key]
    again, _ = sample(tmp_path, "shared", max_new_tokens=5, extended=short, extend_to=14, replicas=2)
    assert folder_digest(again) == folder_digest(extended)


def test_what_was_drawn_from_other_prompts_is_not_extended(tmp_path) -> None:
    short, _ = sample(tmp_path, "short", k=1, max_new_tokens=5)
    with pytest.raises(StageError, match=r"extended: expected sample 3\+4#1, got none"):
        sample(tmp_path, "out", k=2, max_new_tokens=5, extended=short, extend_to=14)


def test_batches_keep_to_their_budget() -> None:
    assert [list(part) for part in cut_batches([3, 3, 3, 5, 9, 20], 10)] == [[0, 1, 2], [3], [4], [5]]
    assert cut_batches([], 10) == []


def test_a_stop_string_is_found_where_a_response_was_continued(engine: LocalEngine) -> None:
    ids = engine.tokenizer("12=3;4")["input_ids"]
    rule = StopRule(engine.tokenizer, ("=3",))
    assert rule.finish(ids, "length") == (ids[:4], "stop", "12")
    assert rule.finish(ids[:3], "length") == (ids[:3], "length", "12=")


def test_stop_tokens_are_known_without_the_weights(tmp_path, engine: LocalEngine) -> None:
    folder = save_policy(tmp_path / "policy")
    assert stop_token_ids(folder, engine.tokenizer) == engine.stop_ids
    (folder / "generation_config.json").unlink()
    assert stop_token_ids(folder, engine.tokenizer) == engine.stop_ids


def test_a_continued_sample_has_a_seed_of_its_own_where_noise_cannot_go_on() -> None:
    seeds = {request_seed(Request((1,), 7, (2,) * length)) for length in range(4)}
    assert len(seeds) == 4
    assert request_seed(Request((1,), 7)) == 7
