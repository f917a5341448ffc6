"""Several servers as one engine: every sample once, caps held, work moved from who is gone or slow."""

import threading
import time
from collections import Counter

import pytest
from completions_server import DECODING, EOS, CompletionsServer, check, engine, requests, sample, serving
from starlette.responses import JSONResponse, Response

from erpd_hub.errors import StageError


def test_every_sample_once_from_two_servers_with_prompts_kept_together():
    wanted = requests(prompts=12, k=8)
    with serving(CompletionsServer(delay=0.05), CompletionsServer(delay=0.05)) as servers:
        completions = sample(wanted, *servers)
    check(wanted, completions)
    assert all(c.logprobs == [-token / 8 for token in c.response_ids] for c in completions)
    assert min(len(server.bodies) for server in servers) > 30
    visited = {(tuple(body["prompt"]), server.url) for server in servers for body in server.bodies}
    assert len(visited) <= 12 + 3  # only the last prompts were shared out
    body = servers[0].bodies[0]
    assert (body["n"], body["max_tokens"], body["logprobs"], body["return_token_ids"]) == (1, 8, 0, True)
    assert (body["stop_token_ids"], body["top_k"], body["repetition_penalty"], body["min_p"]) == ([EOS], 0, 1.0, 0.0)


def test_caps_hold_with_hundreds_in_flight_from_one_thread():
    wanted = requests(prompts=30, k=10)
    threads = threading.active_count()
    with serving(CompletionsServer(), CompletionsServer()) as servers:
        servers[0].hold = servers[1].hold = lambda: min(server.peak for server in servers) < 100
        seen = []
        results = engine(*servers, concurrency=100).generate(wanted, DECODING, ())
        for index, _ in results:
            seen.append(index)
            assert threading.active_count() <= threads + 3  # two servers and the engine
    assert sorted(seen) == list(range(300))
    assert [server.peak for server in servers] == [100, 100]


def test_an_idle_server_takes_over_from_a_slow_one():
    wanted = requests(prompts=1, k=24)
    with serving(CompletionsServer(), CompletionsServer()) as (slow, fast):
        slow.hold = lambda: len(fast.bodies) < 20
        check(wanted, sample(wanted, slow, fast, concurrency=4))
    assert len(slow.bodies) == 4 and len(fast.bodies) == 20


def test_a_busy_server_is_left_alone_for_as_long_as_it_says():
    refusals = iter(range(6))

    def busy(server, body):
        if next(refusals, None) is not None:
            return JSONResponse({"error": {"message": "later"}}, 429, {"Retry-After": "1"})
        return None

    wanted = requests(prompts=2, k=10)
    with serving(CompletionsServer(busy)) as (server,):
        check(wanted, sample(wanted, server, retries=0))
    pauses = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert max(pauses) > 0.9


def test_a_sample_that_always_fails_ends_as_an_error_and_harms_no_other():
    wanted = requests(prompts=3, k=2)

    def poisoned(server, body):
        return Response(status_code=500) if body["seed"] == wanted[3].seed else None

    with serving(CompletionsServer(poisoned), CompletionsServer(poisoned)) as servers:
        completions = sample(wanted, *servers, retries=2)
    failed = completions.pop(3)
    assert (failed.finish_reason, failed.response_ids, failed.text) == ("error", None, "3 attempts failed")
    check(wanted[:3] + wanted[4:], completions)
    attempts = [sum(body["seed"] == wanted[3].seed for body in server.bodies) for server in servers]
    assert sorted(attempts) == [1, 2]  # each failure sends it to the other


def test_a_dead_server_loses_nothing_and_is_used_again_when_it_is_back(caplog):
    wanted = requests(prompts=15, k=10)

    def come_back():
        while "server 2 of 2 is away" not in caplog.text:
            time.sleep(0.02)
        dying.start()

    with serving(CompletionsServer(delay=0.05), CompletionsServer(delay=0.05)) as (lasting, dying):
        seen, back = [], threading.Thread(target=come_back)
        for index, completion in engine(lasting, dying).generate(wanted, DECODING, ()):
            seen.append((index, completion))
            if len(seen) == 40:
                dying.die()
                before = len(dying.bodies)
                lasting.hold = lambda: dying.joins < 2
                back.start()
        back.join()
    assert Counter(index for index, _ in seen) == Counter(range(150))
    check(wanted, [completion for _, completion in sorted(seen, key=lambda result: result[0])])
    assert dying.joins == 2 and len(dying.bodies) > before
    assert len(lasting.finished) + len(dying.finished) <= 150 + 8  # drawn twice at most what was in flight
    assert "server 2 of 2 is here" in caplog.text and "127.0.0.1" not in caplog.text


def test_a_server_that_is_not_well_is_left_with_what_it_has_in_flight():
    def unwell(server, body):
        server.healthy = len(server.bodies) < 10
        return None if server.healthy else Response(status_code=500)

    wanted = requests(prompts=10, k=4)
    with serving(CompletionsServer(delay=0.02), CompletionsServer(unwell, delay=0.02)) as (well, sick):
        check(wanted, sample(wanted, well, sick, retries=0))
    assert len(sick.finished) < 10


def test_all_dead_stops_the_stage_with_what_was_finished_before():
    wanted = requests(prompts=10, k=4)
    with serving(CompletionsServer(delay=0.05)) as (server,):
        results, seen = engine(server, patience=1.0).generate(wanted, DECODING, ()), []
        with pytest.raises(StageError, match="expected one that takes samples within 1 s, got none"):
            for index, _ in results:
                seen.append(index)
                if len(seen) == 8:
                    server.die()
    assert 8 <= len(seen) == len(set(seen)) < 40


def test_nobody_there_at_the_start_is_waited_for():
    server = CompletionsServer()
    threading.Timer(0.7, server.start).start()
    wanted = requests(prompts=2, k=2)
    check(wanted, sample(wanted, server, patience=10.0))
    server.stop()


def test_requests_are_given_up_when_the_engine_closes():
    with serving(CompletionsServer(delay=5.0)) as (server,):
        fleet = engine(server)
        failure = []

        def work():
            with pytest.raises(StageError, match="got closed") as raised:
                list(fleet.generate(requests(), DECODING, ()))
            failure.append(raised)

        worker = threading.Thread(target=work)
        worker.start()
        while server.running < 8:
            time.sleep(0.01)
        fleet.close()
        worker.join()
        while server.given_up < 8:
            time.sleep(0.01)
    assert failure


def test_a_sample_has_a_time_limit():
    with serving(CompletionsServer(delay=5.0)) as (server,):
        (completion,) = sample(requests(1, 1), server, timeout=1.0, retries=1)
    assert completion.finish_reason == "error" and len(server.bodies) == 2


def test_no_request_asks_nobody():
    server = CompletionsServer()
    assert list(engine(server).generate([], DECODING, ())) == []
