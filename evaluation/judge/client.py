"""Asking the judge: several questions in flight, back-off where the endpoint is busy or away, a stop at every cap.

A question is blamed for getting no reply only while the endpoint answers others; where it answers nothing for the time
of `patience`, the stage stops. Rulings are kept as they come, so the next run goes on where this one stopped.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Coroutine, Iterator, Sequence

from erpd_hub.config.judge import JudgeSettings
from erpd_hub.endpoints.client import Refused, ServerClient, key_in
from erpd_hub.endpoints.replies import Setback
from erpd_hub.errors import StageError
from erpd_hub.evaluation.judge.canaries import CONTROL, canaries, rewordings
from erpd_hub.evaluation.judge.journal import Journal, Ruling, question_key
from erpd_hub.evaluation.judge.ledger import CapReached, Charge, Ledger, charge_of, prompt_estimate
from erpd_hub.evaluation.judge.prompt import Question, Reply, make_messages, read_reply, read_verdict, request_body

KEPT_CHARACTERS = 2000
"""Of a reply, in the artifact."""
_BYTES_PER_TOKEN, _BYTES_PER_REPLY = 32, 2**17
"""Bound of a reply; one of thinking tokens has about 5 bytes a token."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
"""Seconds of the back-off: doubled at each failure of a question, and drawn between half and one and a half of it."""
_FOR_ALL = (401, 402, 403, 404, 405)
"""Refusals that no other question would escape; so are redirects."""
_SAY_EVERY = 15.0
_MEASURED_WITHIN = 86_400.0
"""Seconds [I]: what a judge says of canaries and rewordings is a measurement of it, and not much older than its use."""
_BLANKS = re.compile(r"\s{20,}")

logger = logging.getLogger(__name__)


class _NoReply(Exception):
    """A question that gets no reply from an endpoint which answers others."""


def ask_all(questions: Sequence[Question], settings: JudgeSettings, journal: Journal) -> None:
    """Bring the journal to have a ruling on every question; those it has, or may borrow, are not asked.

    Raises:
        ConfigError: the key cannot stand in a header.
        StageError: a cap is reached, the endpoint refuses us or stays silent; what is judged is in the journal.
    """
    measured, lately = {*canaries(), *rewordings()}, time.time() - _MEASURED_WITHIN
    by_key = {question_key(q, settings.model): q for q in questions}
    for key, question in by_key.items():
        journal.borrow(key, _shown(question, settings), since=lately if question in measured else 0.0)
    open_questions = {key: q for key, q in by_key.items() if key not in journal.rulings}
    if open_questions:
        asyncio.run(_Asker(settings, journal).run(open_questions))


def _shown(question: Question, settings: JudgeSettings) -> Question:
    """A question as the judge sees it."""
    return question if settings.send_problem else question._replace(problem=None)


class _Asker:
    """One call of `ask_all`, in one event loop."""

    def __init__(self, settings: JudgeSettings, journal: Journal) -> None:
        self.settings, self.journal = settings, journal
        self.ledger = Ledger(settings, spent=journal.spent)
        self.key = key_in(settings.key_env)
        self.client = ServerClient(settings.url, key=self.key, key_name=settings.key_env)
        self.answered = time.monotonic()
        """When the endpoint last replied; at first, when it was first asked."""
        self.paused_until = 0.0
        self.capped: str | None = None
        self.done = self.total = 0
        self.said = time.monotonic()
        self.proof = asyncio.Lock()
        self.settled = asyncio.Event()

    async def run(self, questions: dict[str, Question]) -> None:
        self.total = len(questions)
        pending = iter(questions.items())
        try:
            await self._stop_at_cap(self._reply(CONTROL, again=False, first=True))
            if self.capped is None:
                await _together([self._work(pending) for _ in range(min(self.settings.concurrency, self.total))])
        finally:
            await self.client.close()
        if self.capped is not None:
            left = self.total - self.done
            raise StageError(f"{self.capped}; {left} of {self.total} answers are not judged yet; what is judged is "
                             "kept: raise it and run again, or leave the judge out")  # fmt: skip

    async def _work(self, pending: Iterator[tuple[str, Question]]) -> None:
        for key, question in pending:
            if not await self._stop_at_cap(self._settle(key, question)):
                return

    async def _stop_at_cap(self, work: Coroutine[None, None, object]) -> bool:
        """Whether there is room for more; what others have in flight is paid for and may come in."""
        if self.capped is not None:
            work.close()
            return False
        try:
            await work
        except CapReached as reached:
            self.capped = str(reached)
            return False
        return True

    async def _settle(self, key: str, question: Question) -> None:
        self.journal.rule(key, _shown(question, self.settings), await self._rule(question))
        self.done += 1
        if time.monotonic() - self.said > _SAY_EVERY:
            self.said = time.monotonic()
            logger.info("judge: %d of %d answers, %d calls", self.done, self.total, self.ledger.spent.calls)

    async def _rule(self, question: Question) -> Ruling:
        """The ruling on one question: a reply that is no verdict is asked for once more."""
        replies: list[str] = []
        for again in (False, True):
            try:
                reply = await self._reply(question, again=again)
            except Refused as error:
                return Ruling("unjudged", f"HTTP {error.status}", tuple(replies))
            except _NoReply:
                return Ruling("unjudged", "no reply", tuple(replies))
            replies.append(self._kept(reply))
            if verdict := read_verdict(reply):
                return Ruling("accepted" if verdict == "A" else "rejected", None, tuple(replies))
        return Ruling("unjudged", "malformed" if reply.whole else "cut off", tuple(replies))

    def _kept(self, reply: Reply) -> str:
        """A reply for the artifact: cut, and without our key, should the endpoint have put it there."""
        content = reply.content.encode("utf-8", "replace").decode()  # a lone surrogate is in no file
        for secret in (self.key, self.settings.url):
            content = content.replace(secret, "***") if secret else content
        content = _BLANKS.sub(" ", content).strip()  # so that cutting cannot take the verdict away
        half = KEPT_CHARACTERS // 2  # the verdict is at the end, where there is thinking before it
        return content if len(content) <= KEPT_CHARACTERS else f"{content[: half - 3]} ... {content[-half + 2 :]}"

    # ---------------------------------------------------------------------------------------- requests

    async def _reply(self, question: Question, *, again: bool, first: bool = False) -> Reply:
        """A reply, whatever is in it, after as many attempts as that takes.

        Args:
            first: Whether this is the request that tells if the endpoint is there: it is never given up but with all.

        Raises:
            CapReached, _NoReply
            Refused: the endpoint will not answer this one.
            StageError: it answers none.
        """
        failures = 0
        while True:
            await self._wait_for_turn()
            began = time.monotonic()
            try:
                return await self._request(question, again=again)
            except Refused as error:
                if first or error.status < 400 or error.status in _FOR_ALL:
                    raise StageError(f"judge: {error}") from None
                raise
            except Setback as setback:
                failures += setback.retry_after is None  # busy is no fault of the question's
                silent = time.monotonic() - self.answered > self.settings.patience
                if silent and first:
                    raise StageError(
                        f"judge: expected replies from its endpoint, got none for {self.settings.patience:g} s "
                        f"({setback}); what is judged is kept, the next run goes on"
                    ) from None
                if not first and (silent or failures > self.settings.retries):
                    await self._prove(began)
                    raise _NoReply from None
                await self._back_off(setback, failures)

    async def _request(self, question: Question, *, again: bool) -> Reply:
        """One request, with what it cost put down."""
        settings = self.settings
        messages = make_messages(_shown(question, settings), again=again)
        while (reserved := self.ledger.reserve(messages)) is None:
            self.settled.clear()
            await self.settled.wait()
        actual = Charge(1, prompt_estimate(messages), 0)  # may well be billed, whatever becomes of the reply
        try:
            reply = read_reply(
                await self.client.post(
                    "chat/completions",
                    request_body(settings, messages),
                    seconds=min(settings.timeout, settings.patience),
                    limit=_BYTES_PER_REPLY + _BYTES_PER_TOKEN * settings.max_tokens,
                )
            )
            self.answered = time.monotonic()
            actual = charge_of(reply, actual)
            return reply
        except Refused:
            self.answered = time.monotonic()
            actual = Charge(1, 0, 0)
            raise
        except Setback as setback:
            if setback.retry_after is not None or setback.unreachable:
                actual = Charge(1, 0, 0)  # turned away
            raise
        finally:
            self.ledger.settle(reserved, actual)
            self.settled.set()
            self.journal.charge(actual)

    async def _wait_for_turn(self) -> None:
        """Everybody waits where the endpoint asked for it."""
        while (left := self.paused_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _back_off(self, setback: Setback, failures: int) -> None:
        jitter = random.uniform(0.5, 1.5)
        wait = min(_FIRST_WAIT * 2 ** max(failures - 1, 0), _LONGEST_WAIT) * jitter
        if setback.retry_after is not None:
            asked_for = min(setback.retry_after, self.settings.patience)
            self.paused_until = max(self.paused_until, time.monotonic() + asked_for)
        await asyncio.sleep(wait)

    async def _prove(self, began: float) -> None:
        """Come back if the endpoint has answered anything since the last attempt began, or answers the control now.

        Raises:
            CapReached, StageError
        """
        async with self.proof:
            if self.answered < began:
                await self._reply(CONTROL, again=False, first=True)


async def _together(work: Sequence[Coroutine[None, None, None]]) -> None:
    """All of it; the first failure ends the rest."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
