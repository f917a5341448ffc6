"""One server and the `server` engine: what is asked, what of the answers is believed, what is refused."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from completions_server import (
    DECODING,
    EOS,
    TOKENIZER,
    VOCABULARY,
    CompletionsServer,
    check,
    cut_off,
    requests,
    sample,
    serving,
)
from pydantic import ValidationError
from starlette.responses import JSONResponse, RedirectResponse, Response

from erpd_hub.config import Decoding, ServerEngine
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.sampling.engine import Request
from erpd_hub.sampling.server_reply import Wanted


def first_times(count, answer):
    """Answer the first `count` attempts at each sample in a special way."""
    seen = Counter()

    def respond(server, body):
        key = (tuple(body["prompt"]), body["seed"])
        seen[key] += 1
        return answer() if seen[key] <= count else None

    return respond


@pytest.mark.parametrize(
    "answer",
    [
        lambda: JSONResponse({"error": "engine"}, 500),
        lambda: Response(status_code=502),
        lambda: cut_off(),
        lambda: Response(b"<html>", media_type="application/json"),
        lambda: Response(b"[" * 200_000),
        lambda: Response(b'{"choices": [' + b" " * 3_000_000 + b"]}"),
    ],
    ids=["500", "502", "reset", "html", "nested", "endless"],
)
def test_single_failures_are_tried_again(answer):
    wanted = requests(prompts=3, k=2)
    with serving(CompletionsServer(first_times(1, answer))) as (server,):
        check(wanted, sample(wanted, server, retries=1))
    assert len(server.bodies) == 12


def too_many(choice):
    choice["token_ids"] = [5] * 9


def beyond_vocabulary(choice):
    choice["token_ids"] = [VOCABULARY]


def not_ids(choice):
    choice["token_ids"] = [True, 5.0]


def bad_logprobs(choice):
    choice["logprobs"]["token_logprobs"] = [float("nan")] * len(choice["token_ids"])


def aborted(choice):
    choice["finish_reason"] = "abort"


@pytest.mark.parametrize("spoil", [too_many, beyond_vocabulary, not_ids, bad_logprobs, aborted])
def test_replies_that_cannot_be_are_no_samples(spoil):
    seen = set()

    def change(reply, body):
        if body["max_tokens"] == 8 and body["seed"] not in seen:
            seen.add(body["seed"])
            spoil(reply["choices"][0])
        return reply

    class Plain(JSONResponse):
        def render(self, content):
            return json.dumps(content).encode()  # NaN included

    wanted = requests(prompts=2, k=2)
    server = CompletionsServer(change=None)
    server.answer = lambda server, body: Plain(change(server.reply(body), body))
    with serving(server):
        check(wanted, sample(wanted, server))
    assert len(server.bodies) == 8


def test_what_a_server_refuses_stops_the_stage_in_its_words_made_harmless(monkeypatch):
    monkeypatch.setenv("ERPD_SERVER_KEY", "sk-secret")

    def refuse(server, body):
        return JSONResponse({"error": {"message": "no \x1b[31m sk-secret " + "x" * 5000}}, 400)

    with serving(CompletionsServer(refuse)) as (server,), pytest.raises(StageError) as raised:
        sample(requests(1, 1), server)
    message = str(raised.value)
    assert "HTTP 400: no  [31m *** xxx" in message and "sk-secret" not in message and len(message) < 500
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-secret"}


def test_redirects_are_not_followed(monkeypatch):
    monkeypatch.setenv("ERPD_SERVER_KEY", "sk-secret")
    with serving(CompletionsServer(), CompletionsServer()) as (server, other):
        server.answer = lambda server, body: RedirectResponse(f"{other.url}/completions")
        with pytest.raises(StageError, match="expected an answer, got HTTP 307"):
            sample(requests(1, 1), server)
    assert not other.headers


@pytest.mark.parametrize(
    ("models", "model", "expected"),
    [
        (("a", "b"), None, "expected one model, got 'a', 'b'; name one of its own in engine.model"),
        ((), None, "expected one model, got none"),
        (("a", "b"), "c", "expected the model 'c', got 'a', 'b'"),
    ],
)
def test_the_model_must_be_plain(models, model, expected):
    with serving(CompletionsServer(models=models)) as (server,), pytest.raises(ConfigError, match=expected):
        sample(requests(1, 1), server, model=model)


def test_the_named_model_is_asked():
    with serving(CompletionsServer(models=("a", "b"))) as (server,):
        sample(requests(1, 1), server, model="b")
    assert server.bodies[0]["model"] == "b"


@pytest.mark.parametrize("needs_ids", [True, False])
def test_a_presence_penalty_is_asked_for_and_raw_log_probs_are_then_none_of_what_was_drawn(needs_ids):
    decoding = DECODING.model_copy(update={"presence_penalty": -0.5})
    with serving(CompletionsServer(owner="vllm" if needs_ids else "someone")) as (server,):
        sample(requests(1, 1), server, decoding=decoding, needs_ids=needs_ids)
    assert server.bodies[0]["presence_penalty"] == -0.5
    wanted = Wanted(decoding.model_copy(update={"temperature": 1.0}), (), frozenset(), None, None, needs_ids)
    assert wanted.keeps_logprobs(processed=True) and not wanted.keeps_logprobs(processed=False)
    assert replace(wanted, decoding=Decoding()).keeps_logprobs(processed=False)


def text_alone(reply, body):
    choice = reply["choices"][0]
    choice.pop("token_ids", None), choice.pop("logprobs", None), choice.pop("prompt_token_ids", None)
    choice["text"] = "12;34"
    return reply


def test_text_alone_serves_evaluation_and_is_refused_for_rollouts():
    with serving(CompletionsServer(change=text_alone, owner="someone")) as (server,):
        with pytest.raises(ConfigError, match="expected token ids with each response, got text alone; rollouts need"):
            sample(requests(1, 2), server)
        assert not server.bodies
        completions = sample(requests(1, 2), server, needs_ids=False, stop=(";",))
    assert {(c.response_ids, c.logprobs, c.text) for c in completions} == {(None, None, "12")}
    assert not {"return_token_ids", "logprobs", "min_p", "stop_token_ids"} & set(server.bodies[0])


def other_prompt(reply, body):
    reply["choices"][0]["prompt_token_ids"] = [0, *body["prompt"]]
    return reply


def added_token(reply, body):
    reply["usage"]["prompt_tokens"] += 1
    return reply


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"change": other_prompt}, "expected the prompt's token ids back, got others"),
        ({"change": added_token}, "expected it to read 3 prompt tokens, got 4"),
        ({"context": 10}, "expected a context of 11 tokens .* got 10; start it with --max-model-len 11"),
    ],
)
def test_a_server_that_cannot_serve_the_call_is_refused_before_anything_is_drawn(settings, expected):
    with serving(CompletionsServer(), CompletionsServer(**settings)) as servers:
        with pytest.raises(ConfigError, match=expected):
            sample(requests(1, 1), *servers)
        assert not servers[0].bodies + servers[1].bodies


def without_stop_token(reply, body):
    choice = reply["choices"][0]
    if choice["finish_reason"] == "stop":
        choice["token_ids"].pop()
        choice["logprobs"]["token_logprobs"].pop()
    return reply


def test_a_stop_token_that_is_kept_back_is_put_in_its_place():
    wanted = requests(prompts=3, k=4)
    with serving(CompletionsServer(change=without_stop_token)) as (server,):
        completions = sample(wanted, server)
        check(wanted, completions)
        assert {c.logprobs is None for c in completions if c.finish_reason == "stop"} == {True}
        with pytest.raises(StageError, match=r"one of \[1, 2\], among its token ids"):
            sample(wanted, server, stop_ids=(EOS, 2))


def test_a_sample_cut_off_by_the_server_is_none():
    def shortened(reply, body):
        if body["max_tokens"] == 8:
            reply["choices"][0] |= {"finish_reason": "length", "token_ids": [5, 6], "logprobs": None}
        return reply

    expected = "expected up to 8 tokens, got a sample cut off after 2; raise"
    with serving(CompletionsServer(change=shortened)) as (server,), pytest.raises(StageError, match=expected):
        sample(requests(1, 1), server)


def test_a_response_ends_with_the_token_that_completes_a_stop_string():
    a, b = TOKENIZER.convert_tokens_to_ids(["3", "4"])

    def long(reply, body):
        if body["max_tokens"] == 8:
            ids = [a, a, b, a, b, EOS]
            logprobs = {"token_logprobs": [-1.0] * 6}
            reply["choices"][0] |= {"finish_reason": "stop", "token_ids": ids, "logprobs": logprobs}
        return reply

    with serving(CompletionsServer(change=long)) as (server,):
        (completion,) = sample(requests(1, 1), server, stop=("34",))
    assert server.bodies[0]["stop"] == ["34"]
    assert (completion.response_ids, completion.finish_reason, completion.text) == ([a, a, b], "stop", "3")
    assert completion.logprobs == [-1.0] * 3


def test_a_continued_sample_goes_on_from_its_tokens_with_a_seed_of_its_own():
    first = Request((2, 5), seed=7)
    again = Request((2, 5), seed=7, response_ids=(6, 7, 8))
    with serving(CompletionsServer()) as (server,):
        sample([first, again], server)
        (completion,) = sample([again], server)
    body = server.bodies[-1]
    assert body["prompt"] == [2, 5, 6, 7, 8] and body["max_tokens"] == 5
    assert body["seed"] != 7 and 0 <= body["seed"] < 2**63
    assert completion.response_ids[:3] == [6, 7, 8] and len(completion.response_ids) <= 8
    assert len(completion.logprobs) == len(completion.response_ids) - 3


def test_log_probs_of_the_model_are_not_passed_off_as_the_samplers(caplog):
    def raw(reply, body):
        if "allowed_token_ids" in body and body["max_tokens"] == 1:
            reply["choices"][0]["logprobs"]["token_logprobs"] = [-9.0]
        return reply

    with serving(CompletionsServer(change=raw)) as (server,):
        (warm,) = sample(requests(1, 1), server, decoding=Decoding(max_new_tokens=8, temperature=0.6))
        (plain,) = sample(requests(1, 1), server)
    assert warm.logprobs is None and plain.logprobs is not None
    assert "--logprobs-mode processed_logprobs" in caplog.text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://user:pw@h/v1", "expected no user name or password"),
        ("ftp://h/v1", "expected base URLs"),
        ("/v1", "expected base URLs"),
        ("http://h/v1?key=1", "expected base URLs"),
        ("http://h /v1", "expected base URLs"),
        ("http://h:99999/v1", "Port out of range"),
    ],
)
def test_urls_are_plain(url, expected):
    with pytest.raises(ValidationError, match=expected):
        ServerEngine(type="server", urls=(url,))


def test_a_server_is_named_once():
    with pytest.raises(ValidationError, match="each server once"):
        ServerEngine(type="server", urls=("http://h/v1", "http://h/v1/"))
