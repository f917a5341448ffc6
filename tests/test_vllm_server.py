"""The `server` engine against two real `vllm serve` processes; `make test-vllm` runs it in vLLM's own environment."""

import time
from collections import Counter

import pytest
import torch
from vllm_env import smollm2, vllm_servers

from erpd_hub.config import Decoding, ServerEngine
from erpd_hub.errors import ConfigError
from erpd_hub.models import load_model, load_tokenizer, stop_ids
from erpd_hub.sampling.engine import Request, request_seed
from erpd_hub.sampling.server_engine import FleetEngine
from erpd_hub.sampling.transformers_engine import LocalEngine

pytest.importorskip("vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

QUESTIONS = ["What is 2+3?", "Name a colour.", "Say hello.", "Is water wet? Answer yes or no.", "Count to five."]
_SAME = 1e-3
"""Difference of the two largest logits below which two correct implementations may choose differently."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return smollm2(tmp_path_factory.mktemp("smollm2") / "checkpoint")


@pytest.fixture(scope="module")
def policy(checkpoint):
    torch.set_num_threads(1)
    return load_model(checkpoint), load_tokenizer(checkpoint)


@pytest.fixture(scope="module")
def servers(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("servers")
    with vllm_servers(checkpoint, folder, 2, "--logprobs-mode", "processed_logprobs") as started:
        yield started


def engine(servers, policy, **settings):
    model, tokenizer = policy
    config = ServerEngine(type="server", urls=tuple(server.url for server in servers), **settings)
    return FleetEngine(config, tokenizer, stop_ids(model, tokenizer), vocabulary=model.config.vocab_size)


def prompts(tokenizer):
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tuple(tokenizer.apply_chat_template(c, add_generation_prompt=True, return_dict=False)) for c in chats]


def in_order(results):
    results = list(results)
    assert Counter(index for index, _ in results) == Counter(range(len(results)))
    return [completion for _, completion in sorted(results, key=lambda result: result[0])]


@torch.inference_mode()
def margins(model, prompt, response):
    """Difference of the two largest logits before each response token: (T,)."""
    ids = torch.tensor([[*prompt, *response]])
    top = model(ids).logits[0, len(prompt) - 1 : -1].float().topk(2, dim=-1).values
    return (top[:, 0] - top[:, 1]).tolist()


def assert_agree(model, request, ours, theirs):
    """The same tokens up to the first position where rounding may decide; all of them without such a position."""
    close = [
        place for place, margin in enumerate(margins(model, request.prompt_ids, ours.response_ids)) if margin < _SAME
    ]
    if close:
        assert theirs.response_ids[: close[0]] == ours.response_ids[: close[0]]
        return False
    assert (theirs.response_ids, theirs.finish_reason) == (ours.response_ids, ours.finish_reason)
    assert theirs.text == ours.text
    torch.testing.assert_close(torch.tensor(theirs.logprobs), torch.tensor(ours.logprobs), atol=1e-3, rtol=0)
    return True


@pytest.mark.parametrize("stop", [(), ("is",), (".", "\n")])
def test_greedy_tokens_and_their_ends_are_those_of_the_transformers_engine(servers, policy, stop):
    model, tokenizer = policy
    wanted = [Request(prompt, seed=7) for prompt in prompts(tokenizer)]
    decoding = Decoding(temperature=0.0, max_new_tokens=48)
    theirs = in_order(engine(servers, policy).generate(wanted, decoding, stop))
    ours = in_order(LocalEngine(model, tokenizer).generate(wanted, decoding, stop))
    whole = [assert_agree(model, *each) for each in zip(wanted, ours, theirs, strict=True)]
    assert sum(whole) >= 3
    assert {completion.finish_reason for completion in ours} >= {"stop"}


def test_log_probs_are_those_of_what_is_drawn_from(servers, policy):
    model, tokenizer = policy
    request = Request(prompts(tokenizer)[0], seed=3)
    decoding = Decoding(temperature=0.6, top_p=0.9, top_k=20, max_new_tokens=24)
    (drawn,) = in_order(engine(servers, policy).generate([request], decoding, ()))
    from erpd_hub.sampling.transformers_engine import sampler_logprobs

    with torch.inference_mode():
        ids = torch.tensor([[*request.prompt_ids, *drawn.response_ids]])
        logits = model(ids).logits[0, len(request.prompt_ids) - 1 : -1].float()
    chosen = torch.tensor(drawn.response_ids)[:, None]
    expected = sampler_logprobs(logits, decoding).gather(-1, chosen)[:, 0]
    torch.testing.assert_close(torch.tensor(drawn.logprobs), expected, atol=2e-3, rtol=0)


def test_a_continued_sample_is_greedily_the_longer_one(servers, policy):
    model, tokenizer = policy
    prompt = prompts(tokenizer)[1]
    fleet = engine(servers, policy)
    (short,) = in_order(fleet.generate([Request(prompt, 1)], Decoding(temperature=0.0, max_new_tokens=4), ()))
    (long,) = in_order(fleet.generate([Request(prompt, 1)], Decoding(temperature=0.0, max_new_tokens=20), ()))
    again = Request(prompt, 1, tuple(short.response_ids))
    (continued,) = in_order(fleet.generate([again], Decoding(temperature=0.0, max_new_tokens=20), ()))
    assert short.finish_reason == "length" and request_seed(again) != 1
    reference = LocalEngine(model, tokenizer).generate(
        [Request(prompt, 1)], Decoding(temperature=0.0, max_new_tokens=20), ()
    )
    if min(margins(model, prompt, in_order(reference)[0].response_ids)) >= _SAME:
        assert continued.response_ids == long.response_ids
    assert continued.response_ids[:4] == short.response_ids


def test_a_context_that_is_too_short_is_said_before_anything_is_drawn(servers, policy):
    wanted = [Request(prompts(policy[1])[0], seed=1)]
    with pytest.raises(ConfigError, match="got 512; start it with --max-model-len"):
        list(engine(servers, policy).generate(wanted, Decoding(max_new_tokens=600), ()))


def test_closing_makes_the_servers_give_up(servers, policy):
    wanted = [Request(prompts(policy[1])[4], seed=seed) for seed in range(16)]
    fleet = engine(servers, policy)
    results = fleet.generate(wanted, Decoding(max_new_tokens=400, temperature=1.5), ())
    next(results)
    results.close()
    until = time.monotonic() + 60
    while any(server.counter("vllm:num_requests_running") for server in servers):
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_killed_server_loses_no_sample(servers, policy):
    """Last: one of the two does not come back."""
    wanted = [
        Request(prompt, seed=1000 * place + k) for place, prompt in enumerate(prompts(policy[1])) for k in range(12)
    ]
    decoding = Decoding(max_new_tokens=40)
    results = []
    for result in engine(servers, policy, concurrency=12).generate(wanted, decoding, ()):
        results.append(result)
        if len(results) == 15:
            assert servers[1].counter("vllm:num_requests_running") > 0
            servers[1].kill()
    completions = in_order(results)
    assert len(completions) == len(wanted)
    end = stop_ids(*policy)
    for completion in completions:
        assert completion.finish_reason == ("stop" if completion.response_ids[-1] in end else "length")
        assert len(completion.logprobs) == len(completion.response_ids) <= 40
        assert len(completion.response_ids) == 40 or completion.finish_reason == "stop"
    assert len({tuple(completion.response_ids) for completion in completions}) > 50  # each sample its own seed
