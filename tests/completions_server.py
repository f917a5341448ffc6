"""A small OpenAI-compatible server over loopback that answers well or, where a test says so, badly.

Its samples are a function of prompt and seed, so a test knows them beforehand; it counts what it is asked.
"""

import asyncio
import random
import socket
import threading
import time
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tiny import TINY

from erpd_hub.config import Decoding, ServerEngine
from erpd_hub.sampling.engine import Request
from erpd_hub.sampling.server_engine import FleetEngine
from erpd_hub.tiny_policies import tiny_policy

VOCABULARY, EOS = 22, 1
TOKENIZER = tiny_policy(TINY, 0)[1]
DECODING = Decoding(max_new_tokens=8)


def drawn(prompt, seed, max_tokens):
    """The tokens that prompt and seed give: (ids with the stop token, finish_reason)."""
    rng = random.Random(f"{list(prompt)}/{seed}")
    ids = [rng.randrange(5, 15) for _ in range(rng.randrange(1, 12))]
    return ([*ids, EOS], "stop") if len(ids) < max_tokens else (ids[:max_tokens], "length")


def solved(body):
    """A chat choice: the sum in the last message, right or wrong by the seed."""
    question = body["messages"][-1]["content"]
    a, b = (int("".join(c for c in part if c.isdigit())) for part in question.split("+"))
    rng = random.Random(f"{question}/{body.get('seed')}")
    answer = a + b + (rng.random() < 0.5)
    content = f"Let me see {rng.random()} \\boxed{{{answer}}}"
    return {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}


def probe(body):
    return body["max_tokens"] == 1 and body["temperature"] == 0.5


class CompletionsServer:
    """`answer(server, body) -> None | Response` of a test comes before the good answer; probes are not shown to it.

    `hold() -> bool` keeps samples waiting for as long as it is true.
    """

    def __init__(self, answer=None, *, delay=0.0, models=("m",), owner="vllm", context=512, change=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.answer, self.delay, self.change, self.healthy, self.hold = answer, delay, change, True, None
        self.listed = {"data": [{"id": name, "owned_by": owner, "max_model_len": context} for name in models]}
        self.bodies, self.headers, self.times, self.finished = [], [], [], []
        self.talk = solved
        self.running = self.peak = self.given_up = self.joins = 0

    async def _models(self, request):
        self.headers.append(request.headers)
        return JSONResponse(self.listed)

    async def _health(self, request):
        return Response(status_code=200 if self.healthy else 503)

    async def _chat(self, request):
        """`answer` comes first, also for the greeting; `talk(body) -> dict` is the choice that is sent."""
        body = await request.json()
        self.headers.append(request.headers)
        self.bodies.append(body)
        special = self.answer(self, body) if self.answer else None
        if special is not None:
            return special
        self.finished.append(body)
        choice = self.talk(body)
        tokens = choice.pop("tokens", len(str(choice["message"]["content"]).split()))
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": tokens}})

    async def _completions(self, request):
        body = await request.json()
        self.headers.append(request.headers)
        if probe(body):
            self.joins += 1
        else:
            self.bodies.append(body)
            self.times.append(time.monotonic())
            self.running += 1
            self.peak = max(self.peak, self.running)
            try:
                special = self.answer(self, body) if self.answer else None
                while self.hold and self.hold():
                    await asyncio.sleep(0.02)
                until = time.monotonic() + self.delay
                while time.monotonic() < until:
                    await asyncio.sleep(min(self.delay, 0.25))
                    if await request.is_disconnected():
                        self.given_up += 1
                        return Response()
            finally:
                self.running -= 1
            if special is not None:
                return special
            self.finished.append(body)
        reply = self.reply(body)
        return JSONResponse(self.change(reply, body) if self.change else reply)

    def reply(self, body):
        ids, finish = drawn(body["prompt"], body.get("seed"), body["max_tokens"])
        if "allowed_token_ids" in body:
            ids, finish = body["allowed_token_ids"], "length"
        choice = {"index": 0, "text": "x" * len(ids), "finish_reason": finish, "stop_reason": None}
        if body.get("return_token_ids"):
            choice |= {"token_ids": ids, "prompt_token_ids": body["prompt"]}
            choice["logprobs"] = {"token_logprobs": [0.0 if probe(body) else -token / 8 for token in ids]}
        return {"choices": [choice], "usage": {"prompt_tokens": len(body["prompt"])}}

    def start(self):
        app = Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/v1/completions", self._completions, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def is_left(self):
        """Whether nobody is connected any more, and all that was sent has been answered."""
        state = self._server.server_state
        return not state.connections and not state.tasks

    def die(self):
        """Stop listening and reset every connection, as a killed process does."""
        server, loop = self._server, self._server.servers[0].get_loop()

        def abort():
            for listening in server.servers:
                listening.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            server.should_exit = server.force_exit = True

        loop.call_soon_threadsafe(abort)
        self._thread.join()

    def stop(self):
        if self._thread.is_alive():
            self.die()


@contextmanager
def serving(*servers):
    for server in servers:
        server.start()
    try:
        yield servers
    finally:
        for server in servers:
            server.stop()


def cut_off(payload=b'{"choices": [{"te'):
    """A reply whose connection closes in the middle."""

    async def parts():
        yield payload
        raise ConnectionResetError

    return StreamingResponse(parts(), media_type="application/json")


def requests(prompts=10, k=4):
    return [Request((2, 5 + p % 10, 5 + p // 10), seed=1000 * p + s) for p in range(prompts) for s in range(k)]


def engine(*servers, needs_ids=True, stop_ids=(EOS,), **settings):
    settings = {"concurrency": 8, "patience": 2.0, "timeout": 20.0} | settings
    config = ServerEngine(type="server", urls=tuple(server.url for server in servers), **settings)
    return FleetEngine(config, TOKENIZER, stop_ids, needs_ids=needs_ids, vocabulary=VOCABULARY)


def sample(wanted, *servers, decoding=DECODING, stop=(), **settings):
    """All completions in the requests' order; each must have come exactly once."""
    results = list(engine(*servers, **settings).generate(wanted, decoding, stop))
    assert sorted(index for index, _ in results) == list(range(len(wanted)))
    return [completion for _, completion in sorted(results, key=lambda result: result[0])]


def check(wanted, completions, max_tokens=8):
    for request, completion in zip(wanted, completions, strict=True):
        ids, finish = drawn(request.prompt_ids, request.seed, max_tokens)
        assert (completion.response_ids, completion.finish_reason) == (ids, finish)
        assert completion.text == TOKENIZER.decode(ids, skip_special_tokens=True)
