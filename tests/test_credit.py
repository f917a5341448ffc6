"""Where a signal puts the blame: departures from right responses and the shares over them, by hand."""

import random

import numpy as np
import pytest

from erpd_hub.arithmetic import demonstration, flawless
from erpd_hub.credit import Credited, credit, departure


def _response(problem: str, label: float, tokens: list[int], signal: list[float], old: list[float]) -> Credited:
    return Credited(problem, label, np.array(tokens), np.array(signal), np.array(old))


def test_departure_is_the_first_token_that_no_other_has_there() -> None:
    others = [np.array([1, 2, 3, 4]), np.array([1, 5, 6])]
    places = {(1, 2, 3, 9): 3, (1, 5, 3): 2, (7, 2, 3): 0, (1, 2): 2, (1, 2, 3, 4, 8): 4}
    assert {ids: departure(np.array(ids), others) for ids in places} == places


def test_credit_by_hand() -> None:
    found = credit(
        [
            _response("a", 1, [1, 2, 3], [0, 0, -9], [0, -9, 0]),
            _response("a", 0, [1, 9, 3], [0, -2, -1], [-3, -1, 0]),  # departs at 1: the signal finds it, surprise not
            _response("a", 0, [1, 2], [-1, 0], [0, 0]),  # all of it is a right one's: departs nowhere
            _response("a", float("nan"), [4], [-1], [-1]),
            _response("b", 0, [1, 2], [0, -1], [0, -1]),  # no right one to depart from
            _response("c", 0, [5, 6, 7, 8, 9], [-1, -1, 0, 0, 0], [0, 0, -1, 0, 0]),  # at 0; of equal ones the first
            _response("c", 1, [6], [0], [0]),
        ]
    )
    assert found == {
        "credit_responses": 2,
        "credit_at_departure": 1,
        "credit_by_surprise": 0,
        "credit_by_chance": pytest.approx((1 / 3 + 1 / 5) / 2),
    }


def test_nothing_is_said_where_nothing_departs() -> None:
    assert credit([]) == {}
    assert credit([_response("a", 1, [1], [0], [0]), _response("b", 0, [2], [0], [0])]) == {}


def test_nothing_is_said_where_the_samples_of_a_prompt_are_scattered() -> None:
    right, wrong = _response("a", 1, [1, 2], [0, 0], [0, 0]), _response("a", 0, [1, 3], [0, -1], [0, -1])
    assert credit([right, wrong])["credit_responses"] == 1
    assert credit([right, wrong, _response("b", 1, [1], [0], [0]), right]) == {}


def test_departures_from_right_samples_are_the_flaws_of_the_tiny_task() -> None:
    """The flawless solution is known there: where a right sample is worked out, the two agree."""
    rng = random.Random(0)
    for a, b in ((876, 530), (58, 67), (999, 1)):
        right = flawless(a, b)
        for _ in range(50):
            text = demonstration(a, b, rng, carry_error=0.5, digit_error=0.1, no_work=0.0)
            if text != right:
                flaw = next(at for at, (one, other) in enumerate(zip(text, right, strict=False)) if one != other)
                assert departure(_ids(text), [_ids(right), _ids(right[right.index("\\boxed") :])]) == flaw


def _ids(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
