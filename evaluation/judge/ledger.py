"""What the judge may cost, and what it has cost: calls, tokens and money of one artifact over all its attempts."""

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from erpd_hub.config.judge import JudgeSettings
from erpd_hub.evaluation.judge.prompt import Reply

_BYTES_PER_TOKEN = 2
"""Of a prompt whose tokens nobody counted: fewer than tokenizers need on mathematics, so costs are not belittled."""


class Charge(NamedTuple):
    """Of one request, or of many."""

    calls: int
    prompt_tokens: int
    completion_tokens: int

    def __add__(self, other: "Charge") -> "Charge":  # type: ignore[override]
        return Charge(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: "Charge") -> "Charge":
        return Charge(*(a - b for a, b in zip(self, other, strict=True)))

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


NOTHING = Charge(0, 0, 0)


class CapReached(Exception):
    """The next request could go over a cap."""


@dataclass
class Ledger:
    """Spending against the caps. What is in flight counts at its worst, so that no cap is passed by several at once."""

    settings: JudgeSettings
    spent: Charge = NOTHING
    in_flight: Charge = field(default=NOTHING)

    def reserve(self, messages: list[dict[str, str]]) -> Charge | None:
        """The most that a request may come to, set aside; None while what is in flight may leave no room for it.

        Raises:
            CapReached: it could go over a cap.
        """
        worst = Charge(1, prompt_estimate(messages), self.settings.max_tokens)
        if passed := self._passed(self.spent + worst):
            name, cap = passed
            spent = self._amount(name, self.spent)
            raise CapReached(f"judge.{name}: expected at most {cap:g}, got {spent:g} and no room for another request")
        if self._passed(self.spent + self.in_flight + worst):
            return None
        self.in_flight += worst
        return worst

    def _passed(self, charge: Charge) -> tuple[str, float] | None:
        """A cap that a charge would pass."""
        for name in ("max_calls", "max_total_tokens", "max_cost"):
            cap = getattr(self.settings, name)
            if cap is not None and self._amount(name, charge) > cap:
                return name, cap
        return None

    def _amount(self, name: str, charge: Charge) -> float:
        """What of a charge a cap is about."""
        if name == "max_calls":
            return charge.calls
        return charge.tokens if name == "max_total_tokens" else self.cost(charge)

    def settle(self, reserved: Charge, actual: Charge) -> None:
        """A request is over."""
        self.in_flight -= reserved
        self.spent += actual

    def cost(self, charge: Charge) -> float:
        """In the currency of the prices."""
        settings = self.settings
        return (charge.prompt_tokens * settings.input_price + charge.completion_tokens * settings.output_price) / 1e6


def prompt_estimate(messages: list[dict[str, Any]]) -> int:
    """Tokens of a prompt, rather too many than too few."""
    return len(json.dumps(messages, ensure_ascii=False).encode(errors="replace")) // _BYTES_PER_TOKEN


def charge_of(reply: Reply, estimate: Charge) -> Charge:
    """By the endpoint's count; without one by length, rather too much."""
    prompt, completion = reply.prompt_tokens, reply.completion_tokens
    guessed = len(reply.content.encode(errors="replace")) // 2
    return Charge(
        1,
        estimate.prompt_tokens if prompt is None else prompt,
        guessed if completion is None else completion,
    )
