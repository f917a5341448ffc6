"""A judge over loopback HTTP that answers well or, where a test says so, badly; it counts what it is asked."""

import asyncio
import re
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from erpd_hub.config import JudgeSettings
from erpd_hub.evaluation.judge.canaries import SUBJECTS
from erpd_hub.evaluation.judge.prompt import MAX_ANSWER_CHARACTERS, clean

SAME = {(clean(s.gold, MAX_ANSWER_CHARACTERS), clean(s.reworded, MAX_ANSWER_CHARACTERS)) for s in SUBJECTS}
A, B = '{"verdict": "A"}', '{"verdict": "B"}'


def told(body):
    """(reference, candidate) as the judge reads them."""
    text = body["messages"][1]["content"]
    code = re.search(r"The code is ([0-9a-f]{16})", text)[1]
    return tuple(
        re.search(f"<<<{name} {code}>>>\n(.*)\n<<<END {name} {code}>>>", text)[1] for name in ("REFERENCE", "CANDIDATE")
    )


def completion(content, finish="stop", **changes):
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    return JSONResponse({"choices": [choice], "usage": usage} | changes)


class JudgeServer:
    """`answer(server, body) -> None | str | Response` of a test comes before the good answer.

    Args:
        same: (gold, answer) pairs that it takes for the same, besides equal ones.
    """

    def __init__(self, answer=None, *, same=(), delay=0.0):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.answer, self.same, self.delay = answer, {*same, *SAME}, delay
        self.bodies, self.headers, self.times = [], [], []
        self.running = self.peak = 0

    def settings(self, **changes):
        quick = {"timeout": 5.0, "patience": 5.0, "retries": 1, "audit": 5}
        return JudgeSettings(model="judge-m", url=self.url, **quick | changes)

    @property
    def asked(self):
        """(reference, candidate) of every request."""
        return [told(body) for body in self.bodies]

    async def _chat(self, request):
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.times.append(time.monotonic())
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            special = self.answer(self, body) if self.answer else None
            if self.delay:
                await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        if special is None:
            gold, answer = told(body)
            special = A if gold == answer or (gold, answer) in self.same else B
        return completion(special) if isinstance(special, str) else special

    def __enter__(self):
        app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])
        config = uvicorn.Config(app, host="127.0.0.1", port=self.port, log_level="critical", ws="none", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        """Stop listening and reset every connection, as a killed process does."""
        if not self._thread.is_alive():
            return
        server, loop = self._server, self._server.servers[0].get_loop()

        def abort():
            for listening in server.servers:
                listening.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            server.should_exit = server.force_exit = True

        loop.call_soon_threadsafe(abort)
        self._thread.join()
