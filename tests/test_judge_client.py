"""Asking a judge over HTTP: good, bad, slow, hostile and silent endpoints, caps, and a journal that forgets nothing."""

import asyncio
import gzip
import json
import socket
import time
from contextlib import closing

import pytest
from completions_server import cut_off
from judge_server import A, B, JudgeServer, completion
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from erpd_hub.errors import ConfigError, StageError
from erpd_hub.evaluation.judge import client
from erpd_hub.evaluation.judge.canaries import canaries
from erpd_hub.evaluation.judge.client import KEPT_CHARACTERS, ask_all
from erpd_hub.evaluation.judge.journal import Journal, question_key
from erpd_hub.evaluation.judge.prompt import Question, Reply, read_verdict


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(client, "_FIRST_WAIT", 0.02)
    monkeypatch.delenv("ERPD_JUDGE_KEY", raising=False)


def question(index=1, gold="5"):
    return Question(f"b/{index}", "2+3?", gold, f"5.{index}")


def journal(tmp_path, name="own"):
    return Journal(tmp_path / name / "judge.jsonl", tmp_path / "shared" / "judge.jsonl")


def ask(server, tmp_path, questions=(question(),), **changes):
    """Rulings on the questions, in order."""
    settings, kept = server.settings(**changes), journal(tmp_path)
    ask_all(questions, settings, kept)
    return [kept.rulings[question_key(q, settings.model)] for q in questions]


def only(payload):
    """An answer for real questions; the control, which opens every call, gets a good one."""
    return lambda server, body: None if len(server.bodies) == 1 else payload(server) if callable(payload) else payload


def test_a_good_judge_accepts_and_rejects(tmp_path):
    questions = [Question("b/1", None, "1/2", "0.5"), Question("b/1", None, "1/2", "0.25")]
    with JudgeServer(same=[("1/2", "0.5")]) as server:
        rulings = ask(server, tmp_path, questions)
    assert [(ruling.status, ruling.replies) for ruling in rulings] == [("accepted", (A,)), ("rejected", (B,))]
    body = server.bodies[1]
    assert (body["temperature"], body["model"], body["n"], body["stream"]) == (0.0, "judge-m", 1, False)


@pytest.mark.parametrize(
    "reply",
    [
        A + B,
        f"{A}\n{A}",
        f"The answers agree. {A}",
        f"```json\n{A}\n```",
        "",
        "A",
        '{"verdict": "A", "verdict": "B"}',
        '{"verdict": "A", "confidence": 1}',
        '{"verdict": "a"}',
        '{"verdict": ["A"]}',
        '[["verdict", "A"]]',
        '{"Verdict": "A"}',
        f"<think>so {A}",
        "[" * 100_000,
        '{"verdict": ' + "9" * 10_000 + "}",
    ],
)
def test_what_is_not_one_object_is_asked_once_more_and_then_unjudged(tmp_path, reply):
    with JudgeServer(only(reply)) as server:
        (ruling,) = ask(server, tmp_path)
    assert (ruling.status, ruling.reason) == ("unjudged", "malformed")
    assert [len(kept) <= KEPT_CHARACTERS for kept in ruling.replies] == [True, True]
    assert len(server.bodies) == 3, "the control, the question, and the question again"
    assert "no other character" in server.bodies[2]["messages"][1]["content"]


@pytest.mark.parametrize(
    "reply",
    [
        Response(b"<html>gateway</html>"),
        Response(b"[" * 100_000, media_type="application/json"),
        Response(b"9" * 100_000, media_type="application/json"),
        JSONResponse([]),
        JSONResponse({"choices": []}),
        JSONResponse({"choices": "A"}),
        JSONResponse({"choices": [{"message": {"content": [{"type": "text", "text": A}]}}]}),
        JSONResponse({"choices": [{"message": {"content": {"verdict": "A"}}, "finish_reason": "stop"}]}),
        JSONResponse({"choices": [{"message": {"content": A}, "finish_reason": "stop"}] * 2}),
        completion(A, finish="length"),
        completion(A, finish="content_filter"),
        completion(A, finish={"stop": 1}),
    ],
)
def test_a_reply_of_another_form_is_malformed(tmp_path, reply):
    with JudgeServer(only(lambda server: reply)) as server:
        (ruling,) = ask(server, tmp_path)
    assert (ruling.status, ruling.reason) == (
        "unjudged",
        "cut off" if b'"finish_reason":' in reply.body and b':"stop"' not in reply.body else "malformed",
    )


def test_the_second_reply_counts(tmp_path):
    with JudgeServer(lambda server, body: "well..." if len(server.bodies) == 2 else A) as server:
        (ruling,) = ask(server, tmp_path)
    assert (ruling.status, ruling.replies) == ("accepted", ("well...", A))


@pytest.mark.parametrize("length", [1, 2000])
def test_a_think_block_is_not_looked_at(tmp_path, length):
    with JudgeServer(only(f"<think>They say {A}.{'...' * length}</think>\n\n{B}")) as server:
        (ruling,) = ask(server, tmp_path)
    assert ruling.status == "rejected"
    assert len(ruling.replies[0]) <= KEPT_CHARACTERS
    assert read_verdict(Reply(ruling.replies[0], True, None, None)) == "B", "what is kept says the same"


@pytest.mark.parametrize(
    "setback",
    [
        lambda server: Response(status_code=500),
        lambda server: Response(status_code=503),
        lambda server: Response(status_code=429, headers={"Retry-After": "0"}),
        lambda server: Response(status_code=429),
        lambda server: cut_off(),
        lambda server: Response(gzip.compress(b"0" * 10**7, 9), headers={"Content-Encoding": "gzip"}),
        lambda server: Response(b" " * 10**6),
    ],
    ids=["500", "503", "429", "429-bare", "reset", "bomb", "huge"],
)
def test_a_setback_is_tried_again(tmp_path, setback):
    with JudgeServer(lambda server, body: setback(server) if len(server.bodies) in (1, 3) else None) as server:
        (ruling,) = ask(server, tmp_path)
    assert ruling.status == "rejected"
    assert len(server.bodies) == 4


def test_retry_after_is_honoured_by_everybody(tmp_path):
    busy = Response(status_code=429, headers={"Retry-After": "1"})
    with JudgeServer(lambda server, body: busy if len(server.bodies) == 2 else None) as server:
        ask(server, tmp_path, [question(i) for i in range(4)], concurrency=1)
    assert server.times[2] - server.times[1] >= 1


def test_a_question_without_reply_is_unjudged_while_others_are_answered(tmp_path):
    def answer(server, body):
        return Response(status_code=500) if "5.7" in body["messages"][1]["content"] else None

    with JudgeServer(answer) as server:
        rulings = ask(server, tmp_path, [question(i) for i in range(6, 10)], retries=2)
    assert [ruling.reason for ruling in rulings] == [None, "no reply", None, None]


def test_a_question_that_hangs_is_unjudged_while_others_are_answered(tmp_path):
    """Also where the endpoint has nothing else left to answer, and patience is shorter than all the attempts."""

    async def silence():
        await asyncio.sleep(1.5)
        yield b""

    def answer(server, body):
        return StreamingResponse(silence()) if "5.7" in body["messages"][1]["content"] else None

    with JudgeServer(answer) as server:
        rulings = ask(server, tmp_path, [question(i) for i in (7, 8)], timeout=0.5, patience=0.4, retries=9)
    assert [ruling.reason for ruling in rulings] == ["no reply", None]


def test_a_question_that_is_refused_is_unjudged(tmp_path):
    refused = JSONResponse({"error": {"message": "content policy"}}, status_code=400)
    with JudgeServer(only(lambda server: refused)) as server:
        (ruling,) = ask(server, tmp_path)
    assert (ruling.status, ruling.reason, ruling.replies) == ("unjudged", "HTTP 400", ())


@pytest.mark.parametrize(
    ("status", "message"), [(400, "HTTP 400"), (401, "set ERPD_JUDGE_KEY"), (404, "base URLs end in /v1")]
)
def test_an_endpoint_that_refuses_everything_ends_the_stage_at_once(tmp_path, status, message):
    with (
        JudgeServer(lambda server, body: Response(status_code=status)) as server,
        pytest.raises(StageError, match=message),
    ):
        ask(server, tmp_path, [question(i) for i in range(20)])
    assert len(server.bodies) == 1


def test_redirects_are_not_followed(tmp_path):
    with (
        JudgeServer() as other,
        JudgeServer(lambda server, body: RedirectResponse(f"{other.url}/chat/completions")) as server,
        pytest.raises(StageError, match="leads elsewhere"),
    ):
        ask(server, tmp_path)
    assert other.bodies == []


def test_an_endpoint_that_is_not_there_ends_after_its_patience(tmp_path):
    with JudgeServer() as server:
        pass
    started = time.monotonic()
    with pytest.raises(StageError, match=r"expected replies from its endpoint, got none for 0\.5 s"):
        ask(server, tmp_path, patience=0.5)
    assert time.monotonic() - started < 5


def test_an_endpoint_that_never_answers_ends_after_its_patience(tmp_path):
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = JudgeServer()
        server.url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(StageError, match="no reply within"):
            ask(server, tmp_path, patience=0.5)


def test_an_endpoint_that_is_always_busy_ends_after_its_patience(tmp_path):
    busy = Response(status_code=429, headers={"Retry-After": "3600"})
    with JudgeServer(lambda server, body: busy) as server, pytest.raises(StageError, match="what is judged is kept"):
        ask(server, tmp_path, patience=0.5)


def test_slow_replies_run_side_by_side(tmp_path):
    with JudgeServer(delay=0.2) as server:
        ask(server, tmp_path, [question(i) for i in range(12)], concurrency=6)
    assert server.peak == 6


def test_a_dead_endpoint_keeps_what_is_judged_and_the_next_run_goes_on(tmp_path):
    questions = [question(i) for i in range(6)]
    dying = JudgeServer(lambda server, body: Response(status_code=500) if len(server.bodies) > 4 else None)
    with dying as server, pytest.raises(StageError, match="what is judged is kept"):
        ask(server, tmp_path, questions, concurrency=1, patience=0.4)
    with JudgeServer() as well:
        rulings = ask(well, tmp_path, questions)
    assert {ruling.status for ruling in rulings} == {"rejected"}
    assert len(well.bodies) == 1 + 3, "the control, and what was not judged"


@pytest.mark.parametrize(
    ("caps", "calls"),
    [
        ({"max_calls": 5}, range(5, 6)),
        ({"max_total_tokens": 3000, "max_tokens": 20}, range(20, 26)),
        ({"max_cost": 0.01, "input_price": 1.0, "output_price": 100.0, "max_tokens": 20}, range(6, 9)),
    ],
)
def test_a_cap_stops_clearly_and_keeps_what_is_done(tmp_path, caps, calls):
    questions = [question(i) for i in range(40)]
    with JudgeServer() as server:
        with pytest.raises(StageError, match=rf"judge\.{next(iter(caps))}: .* of 40 answers are not judged yet"):
            ask(server, tmp_path, questions, **caps)
        spent = len(server.bodies)
        assert spent in calls
        kept = journal(tmp_path)
        assert len(kept.rulings) == spent - 1
        assert kept.spent.calls == spent
        with pytest.raises(StageError, match="are not judged yet"):
            ask(server, tmp_path, questions, **caps)
        assert len(server.bodies) == spent, "what was spent before counts"
        ask(server, tmp_path, questions, **dict.fromkeys(("max_calls", "max_total_tokens", "max_cost")))
    assert len(server.bodies) == spent + 1 + 40 - len(kept.rulings)


def test_costs_are_counted_by_the_endpoint_or_else_by_length(tmp_path):
    usage = iter([{"prompt_tokens": 7, "completion_tokens": 3}, {"prompt_tokens": -5, "completion_tokens": True}, None])
    with JudgeServer(lambda server, body: completion(B, usage=next(usage))) as server:
        ask(server, tmp_path, [question(1), question(2)], concurrency=1)
        first, *_, guessed, without = [
            json.loads(line)["charge"] for line in (tmp_path / "own/judge.jsonl").open() if "charge" in line
        ]
    assert first == [1, 7, 3]
    assert guessed == without
    assert guessed[1] > 200


def test_nothing_is_asked_twice(tmp_path):
    with JudgeServer(same=[("5", "5.2")]) as server:
        first = ask(server, tmp_path, [question(1), question(1), question(2)])
        assert len(server.bodies) == 3
        assert ask(server, tmp_path, [question(2), question(1)]) == [first[2], first[0]]
        other = journal(tmp_path, "another artifact")
        ask_all([question(1), question(2)], server.settings(), other)
        assert len(server.bodies) == 3
        assert len(other.reused) == 2
        assert other.spent.calls == 0


def test_an_edited_problem_is_another_question(tmp_path):
    with JudgeServer() as server:
        ask(server, tmp_path)
        for name, send, calls in (("edited", True, 2), ("unseen", False, 2), ("unseen too", False, 0)):
            before, other = len(server.bodies), journal(tmp_path, name)
            edited = question()._replace(problem=f"2+3? {name}")
            ask_all([edited], server.settings(send_problem=send), other)
            assert len(server.bodies) - before == calls, name


def test_what_a_judge_said_of_canaries_long_ago_is_measured_again(tmp_path):
    with JudgeServer() as server:
        measured = [*canaries()[:3], question()]
        ask(server, tmp_path, measured)
        path, before = tmp_path / "shared" / "judge.jsonl", len(server.bodies)
        ask_all(measured, server.settings(), journal(tmp_path, "soon after"))
        assert len(server.bodies) == before
        old = [json.loads(line) | {"at": 0} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in old))
        ask_all(measured, server.settings(), other := journal(tmp_path, "later"))
        assert (len(server.bodies) - before, len(other.reused)) == (1 + 3, 1)


@pytest.mark.parametrize("reply", [A + " " * 4000, f"<think>{'so ' * 900}</think>{chr(10) * 3000}{A}"])
def test_blanks_do_not_push_a_verdict_out_of_what_is_kept(reply, tmp_path):
    with JudgeServer(only(reply)) as server:
        (ruling,) = ask(server, tmp_path)
    assert ruling.status == "accepted"
    assert read_verdict(Reply(ruling.replies[-1], True, None, None)) == "A"


def test_what_another_endpoint_said_before_a_kill_is_not_mixed_in(tmp_path):
    """It was paid for all the same."""
    with JudgeServer() as server:
        ask(server, tmp_path)
        moved = Journal(tmp_path / "own" / "judge.jsonl", tmp_path / "shared" / "another.jsonl")
        assert (len(moved.rulings), moved.spent.calls) == (0, 2)
        ask_all([question()], server.settings(), moved)
        assert (len(moved.rulings), len(server.bodies)) == (1, 4)


def test_half_a_line_is_no_ruling(tmp_path):
    with JudgeServer() as server:
        ask(server, tmp_path)
        path = tmp_path / "own" / "judge.jsonl"
        path.write_bytes(path.read_bytes()[:-20])
        (tmp_path / "shared" / "judge.jsonl").unlink()
        ask(server, tmp_path)
        assert len(server.bodies) == 4
        assert len(journal(tmp_path).rulings) == 1
        ask(server, tmp_path)
    assert len(server.bodies) == 4


def test_the_key_goes_into_a_header_and_nowhere_else(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OTHER_API_KEY", "sk-very-secret")
    with JudgeServer(only(lambda server: f"your key is sk-very-secret, you are at {server.url}")) as server:
        (ruling,) = ask(server, tmp_path, key_env="OTHER_API_KEY")
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert ruling.replies[0] == "your key is ***, you are at ***"
    kept = (tmp_path / "own/judge.jsonl").read_text() + caplog.text
    assert "sk-very-secret" not in kept
    assert str(server.port) not in kept


@pytest.mark.parametrize("key", ["sk-very-secret", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", ""])
def test_a_key_in_the_place_of_its_name_is_refused_and_not_repeated(key):
    with pytest.raises(ValueError, match="expected the name of an environment variable") as refusal:
        JudgeServer().settings(key_env=key)
    assert not key or key not in str(refusal.value.errors(include_input=False, include_context=False))


def test_a_key_that_cannot_be_sent_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ERPD_JUDGE_KEY", "sk-\u2026")
    with JudgeServer() as server, pytest.raises(ConfigError, match="ERPD_JUDGE_KEY: expected printable ASCII"):
        ask(server, tmp_path)
