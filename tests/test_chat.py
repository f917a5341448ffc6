"""`endpoint:MODEL`: messages out, text back, and what of a foreign server's answers is believed."""

import json
import logging

import pytest
from completions_server import CompletionsServer, serving, solved
from starlette.responses import JSONResponse, Response

from erpd_hub.config import Decoding, ServerEngine
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.evaluation.grading import grade
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.journal import Journal
from erpd_hub.sampling.server_chat import ChatSettings
from erpd_hub.sampling.server_engine import FleetEngine

DECODING = Decoding(temperature=0.6, top_p=0.95, max_new_tokens=64)


def asked(count=4, question="2+3?"):
    return [Request((), seed, messages=(("system", "Add."), ("user", question))) for seed in range(count)]


def talk(requests, *servers, decoding=DECODING, stop=(), template=None, tolerant=False, **settings):
    settings = {"concurrency": 8, "patience": 2.0, "timeout": 20.0, "retries": 1} | settings
    config = ServerEngine(type="server", urls=tuple(server.url for server in servers), model="m", **settings)
    engine = FleetEngine(config, None, (), needs_ids=False, chat=ChatSettings(template or {}), tolerant=tolerant)
    results = dict(engine.generate(requests, decoding, stop))
    assert sorted(results) == list(range(len(requests)))
    return [results[index] for index in range(len(requests))]


def samples_of(server, tokens=64):
    """The bodies that asked for samples, not those that greeted."""
    return [body for body in server.bodies if tokens in (body.get("max_tokens"), body.get("max_completion_tokens"))]


def test_messages_go_out_with_a_seed_each_and_text_and_counts_come_back():
    with serving(CompletionsServer(owner="someone")) as (server,):
        completions = talk(asked(), server, stop=("###",))
    bodies = samples_of(server)
    assert sorted(body["seed"] for body in bodies) == [0, 1, 2, 3]
    expected = [{"role": "system", "content": "Add."}, {"role": "user", "content": "2+3?"}]
    assert bodies[0].items() >= {"model": "m", "messages": expected, "temperature": 0.6, "top_p": 0.95}.items()
    assert bodies[0]["stop"] == ["###"]
    assert not {"top_k", "min_p", "prompt", "logprobs", "chat_template_kwargs"} & set(bodies[0])
    for body, completion in zip(sorted(bodies, key=lambda b: b["seed"]), completions, strict=True):
        assert completion.text == solved(body)["message"]["content"]
        assert (completion.response_ids, completion.logprobs, completion.finish_reason) == (None, None, "stop")
        assert completion.counted == completion.num_tokens == 5


def test_vllm_is_told_all_that_its_generation_config_would_decide_otherwise():
    with serving(CompletionsServer()) as (server,):
        talk(asked(1), server, template={"enable_thinking": False})
    body = samples_of(server)[0]
    neutral = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "top_k": 0}
    assert body.items() >= (neutral | {"chat_template_kwargs": {"enable_thinking": False}}).items()


@pytest.mark.parametrize("owner", ["vllm", "someone"])
def test_a_presence_penalty_goes_to_any_server(owner):
    decoding = DECODING.model_copy(update={"presence_penalty": 1.5})
    with serving(CompletionsServer(owner=owner)) as (server,):
        talk(asked(1), server, decoding=decoding)
    assert samples_of(server)[0]["presence_penalty"] == 1.5


@pytest.mark.parametrize(
    ("message", "finish", "text", "verdict"),
    [
        ({"content": "\\boxed{5}", "reasoning_content": "2+3 is \\boxed{6}?"}, "stop", None, "correct"),
        ({"content": None, "reasoning": "so \\boxed{5}"}, "stop", "<think>so \\boxed{5}</think>", "no_answer"),
        ({"content": None, "reasoning_content": "hm"}, "length", "<think>hm</think>", "truncated"),
        ({"content": None}, "stop", "", "no_answer"),
        ({"content": "half \ud800 \\boxed{5}"}, "stop", "half ? \\boxed{5}", "correct"),
    ],
)
def test_reasoning_that_a_server_keeps_apart_is_no_answer(message, finish, text, verdict):
    class Plain(JSONResponse):
        def render(self, content):
            return json.dumps(content).encode()  # lone surrogates included

    server = CompletionsServer()
    choice = {"message": message, "finish_reason": finish}
    server.answer = lambda server, body: Plain({"choices": [choice]})
    with serving(server):
        (completion,) = talk(asked(1), server)
    assert text is None or completion.text == text
    assert completion.counted is None
    graded = grade("5", completion.text, finish_reason=completion.finish_reason, extract="boxed", thinking=False)
    assert graded.verdict == verdict
    completion.text.encode()


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": []},
        {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]},
        {"choices": [{"message": "text", "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "a"}, "finish_reason": None}]},
        {"choices": [{"message": {"content": "a"}, "finish_reason": "content_filter"}]},
        {"choices": [{"message": {"content": "x" * 3_000_000}, "finish_reason": "stop"}]},
    ],
    ids=["none", "number", "no message", "no reason", "filtered", "endless"],
)
def test_replies_that_are_none_fail_after_the_retries(reply):
    server = CompletionsServer()
    server.answer = lambda server, body: JSONResponse(reply) if body["max_tokens"] == 64 else None
    with serving(server):
        (completion,) = talk(asked(1), server)
    assert (completion.finish_reason, completion.text) == ("error", "2 attempts failed")
    assert len(samples_of(server)) == 2


def refusing(*words):
    """A server that says 400 with these words to a request that has one of them as a key."""

    def answer(server, body):
        word = next((word for word in words if word in body), None)
        other = "; use max_completion_tokens" if word == "max_tokens" else ""
        return JSONResponse({"error": {"message": f"{word} is not supported{other}"}}, 400) if word else None

    return answer


def test_names_that_a_server_does_not_know_are_learnt_at_its_greeting(caplog):
    with serving(CompletionsServer(refusing("max_tokens", "seed"))) as (server,):
        completions = talk(asked(3), server)
    assert [c.finish_reason for c in completions] == ["stop"] * 3
    bodies = samples_of(server)
    assert len(bodies) == 3 and not any("seed" in body or "max_tokens" in body for body in bodies)
    assert "server 1 of 1 takes no seed: whether its samples differ is up to it" in caplog.text


@pytest.mark.parametrize(
    ("error", "about_the_seed"),
    [
        ({"message": "Unrecognized request argument supplied: seed"}, True),
        ({"message": "'seed' is not supported with this model.", "param": None}, True),
        ({"message": "body.seed: Extra inputs are not permitted"}, True),
        ({"message": "not supported by bytedance-seed-2.0", "param": "seed"}, True),
        ({"message": "temperature is not supported by bytedance-seed-2.0"}, False),
        ({"message": "no such model: org/seed at seed.example"}, False),
        ({"message": "expected a temperature of 1 where a seed is sent", "param": "temperature"}, False),
    ],
)
def test_seeds_are_given_up_only_where_it_is_they_that_are_refused(error, about_the_seed):
    def answer(server, body):
        return JSONResponse({"error": error}, 400) if "seed" in body else None

    with serving(server := CompletionsServer(answer)):
        if about_the_seed:
            talk(asked(1), server)
        else:
            with pytest.raises(ConfigError, match="HTTP 400"):
                talk(asked(1), server)
    assert bool(samples_of(server)) is about_the_seed


def test_what_it_will_not_take_at_all_is_refused_before_anything_is_drawn():
    with serving(CompletionsServer(refusing("temperature"))) as (server,), pytest.raises(ConfigError, match="HTTP 400"):
        talk(asked(3), server)
    assert not samples_of(server)


def unwell(body):
    return body["messages"][-1]["content"] == "6+6?" and body["max_tokens"] == 64


def test_a_refused_sample_fails_alone_where_that_is_wanted_and_ends_the_call_elsewhere(caplog):
    caplog.set_level(logging.INFO)
    requests = asked(3) + asked(2, "6+6?")

    def answer(server, body):
        return Response(status_code=400) if unwell(body) else None

    with serving(CompletionsServer(answer)) as (server,):
        completions = talk(requests, server, tolerant=True)
        assert [c.finish_reason for c in completions] == ["stop"] * 3 + ["error"] * 2
        assert completions[-1].text == "refused with HTTP 400"
        with pytest.raises(StageError, match="HTTP 400"):
            talk(requests, server)
    with (
        serving(CompletionsServer(lambda s, b: Response(status_code=400) if b["max_tokens"] == 64 else None)) as (
            all_bad,
        ),
        pytest.raises(StageError, match="HTTP 400"),
    ):
        talk(asked(40), all_bad, tolerant=True)


def test_counts_of_a_server_survive_in_the_journal(tmp_path):
    samples = {1: Completion(None, None, "stop", "a", 0), 2: Completion(None, None, "length", "b", 81920)}
    journal = Journal(tmp_path)
    assert not journal.counted
    for key, completion in samples.items():
        journal.append(key, completion)
    assert journal.counted
    journal.close()
    again = Journal(tmp_path)
    assert again.counted and {key: again.read(key) for key in samples} == samples
    assert [again.num_tokens(key) for key in samples] == [0, 81920]
