"""The built-in tasks: problems, flawless and flawed solutions, of additions and of chains of them."""

import random
import re

import pytest

from erpd_hub.arithmetic import demonstration, flawless, num_problems, random_problems
from erpd_hub.chain import chain_problems, chain_solution, chain_tokens, parse_chain
from erpd_hub.config import GeneratedPrompts, TinyBase
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems
from erpd_hub.fields import identity, recorded
from erpd_hub.tiny_policies import tiny_policy, tiny_tokens


class NoChance(random.Random):
    """Takes the first of every choice, so that a flaw's effect can be written down."""

    def choice(self, seq):
        return seq[0]


def test_problems_are_right_and_all_different() -> None:
    pairs = random_problems(500, min_digits=2, max_digits=4, seed=3, spaces=False)
    assert len({problem for problem, _ in pairs}) == 500
    for problem, answer in pairs:
        a, b = problem.split("+")
        assert int(a) + int(b) == int(answer)
        assert 2 <= len(a) <= 4
        assert 2 <= len(b) <= 4


def test_digit_counts_are_uniform() -> None:
    pairs = random_problems(3000, min_digits=2, max_digits=4, seed=0, spaces=False)
    lengths = [len(problem.split("+")[0]) for problem, _ in pairs]
    assert all(abs(lengths.count(digits) / 3000 - 1 / 3) < 0.04 for digits in (2, 3, 4))


def test_a_larger_draw_begins_with_the_smaller_one() -> None:
    few, many = (random_problems(n, min_digits=1, max_digits=2, seed=7, spaces=True) for n in (5, 50))
    assert many[:5] == few
    assert re.fullmatch(r"\d+ \+ \d+", few[0][0])


def test_all_problems_can_be_drawn_and_no_more() -> None:
    assert num_problems(min_digits=1, max_digits=1) == 100
    assert len(random_problems(100, min_digits=1, max_digits=1, seed=0, spaces=False)) == 100
    with pytest.raises(ConfigError, match="at most 100 different problems, got 101"):
        random_problems(101, min_digits=1, max_digits=1, seed=0, spaces=False)
    with pytest.raises(ConfigError, match="min_digits"):
        random_problems(1, min_digits=3, max_digits=2, seed=0, spaces=False)


@pytest.mark.parametrize(
    ("a", "b", "solution"),
    [
        (876, 530, r"6+0+0=06;7+3+0=10;8+5+1=14;\boxed{1406}"),
        (99, 1, r"9+1+0=10;9+0+1=10;\boxed{100}"),
        (10, 20, r"0+0+0=00;1+2+0=03;\boxed{30}"),
    ],
)
def test_flawless(a: int, b: int, solution: str) -> None:
    assert flawless(a, b) == solution
    assert demonstration(a, b, random.Random(0), carry_error=0, digit_error=0, no_work=0) == solution


def test_a_forgotten_carry_runs_through_to_the_answer() -> None:
    flawed = demonstration(876, 537, NoChance(0), carry_error=1, digit_error=0, no_work=0)
    assert flawed == r"6+7+0=13;7+3+0=10;8+5+1=14;\boxed{1403}"
    without_carries = demonstration(11, 22, random.Random(0), carry_error=1, digit_error=0, no_work=0)
    assert without_carries == flawless(11, 22)


def test_a_slip_is_off_by_one_and_stays_two_digits() -> None:
    assert demonstration(12, 34, NoChance(0), carry_error=0, digit_error=1, no_work=0) == (
        r"2+4+0=05;1+3+0=03;\boxed{35}"
    )
    assert demonstration(10, 10, NoChance(0), carry_error=0, digit_error=1, no_work=0).startswith("0+0+0=01;")


def test_shares_of_flaws() -> None:
    rng = random.Random(0)
    texts = [demonstration(99, 99, rng, carry_error=0.2, digit_error=0.0, no_work=0.1) for _ in range(2000)]
    assert sum(text.startswith("\\boxed") for text in texts) / 2000 == pytest.approx(0.1, abs=0.02)
    assert sum(not text.endswith("{198}") for text in texts) / 2000 == pytest.approx(0.2, abs=0.03)


DEMONSTRATIONS = [
    r"6+7+0=13;7+3+1=11;8+5+1=14;\boxed{1413}",
    r"\boxed{1414}",
    r"6+7+0=13;7+3+1=11;8+5+0=13;\boxed{1313}",
    r"6+7+0=13;7+3+0=10;8+5+1=14;\boxed{1403}",
]
BASE_KEYS = {
    *("stage", "type", "hidden_size", "layers", "heads", "intermediate_size", "min_digits", "max_digits"),
    *("carry_error", "digit_error", "no_work", "learning_rate", "batch_size", "target_accuracy"),
    *("first_check", "check_every", "decay_steps", "max_steps"),
}
FIBONACCI = [0, 1]
while len(FIBONACCI) < 34:
    FIBONACCI.append(FIBONACCI[-1] + FIBONACCI[-2])
FLAWLESS = {"carry_error": 0.0, "digit_error": 0.0, "no_work": 0.0}


def test_a_lazy_solution_announces_that_it_drops_every_carry() -> None:
    careful = demonstration(876, 537, random.Random(0), **FLAWLESS, lazy=1e-9)
    assert careful == "A" + flawless(876, 537)
    lazy = demonstration(876, 537, random.Random(0), **FLAWLESS, lazy=1.0)
    assert lazy == r"B6+7+0=13;7+3+0=10;8+5+0=13;\boxed{303}"
    assert demonstration(11, 22, random.Random(0), **FLAWLESS, lazy=1.0) == "B" + flawless(11, 22)
    flaws = FLAWLESS | {"no_work": 1.0}
    assert demonstration(99, 1, random.Random(0), **flaws, lazy=1.0) == r"B\boxed{90}"


def test_share_of_lazy_solutions() -> None:
    rng = random.Random(0)
    texts = [demonstration(99, 99, rng, **FLAWLESS, lazy=0.6) for _ in range(2000)]
    assert sum(text[0] == "B" for text in texts) / 2000 == pytest.approx(0.6, abs=0.03)
    assert all((text[0] == "B") == (not text.endswith("{198}")) for text in texts)


def test_what_is_not_asked_for_changes_no_tiny_base() -> None:
    """The demonstrations, the vocabulary and the identity are those of before there were other tasks."""
    rng = random.Random(5)
    texts = [demonstration(876, 537, rng, carry_error=0.2, digit_error=0.04, no_work=0.1) for _ in range(4)]
    assert texts == DEMONSTRATIONS
    plain = TinyBase(type="tiny")
    assert len(tiny_tokens(plain)) == 22
    assert identity(plain).keys() == BASE_KEYS
    assert {"task", "lazy", "chain_steps", "grow_steps"} <= recorded(plain).keys()
    assert identity(TinyBase(type="tiny", lazy=0.6))["lazy"] == 0.6
    prompts = GeneratedPrompts(type="generator", generator="addition")
    assert "chain_steps" not in identity(prompts)


def test_tokens_of_the_other_tasks_come_after_all_others() -> None:
    lazy, chain = TinyBase(type="tiny", lazy=0.5), TinyBase(type="tiny", task="chain", chain_steps=60)
    plain = tiny_tokens(TinyBase(type="tiny"))
    assert tiny_tokens(lazy) == (*plain, "A", "B")
    assert tiny_tokens(chain) == (*plain, "x", ":")
    model, tokenizer = tiny_policy(chain, 0)
    text = chain_solution("37+48x60", random.Random(0), columns=4)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(ids) + 1 == chain_tokens(columns=4, steps=60)
    assert model.config.max_position_embeddings > 2 * len(ids) - 8
    with pytest.raises(ValueError, match="lazy: expected 0 with the task chain"):
        TinyBase(type="tiny", task="chain", lazy=0.5)


def test_chain_problems_are_right_and_all_different() -> None:
    pairs = chain_problems(300, min_digits=2, max_digits=3, steps=32, seed=1)
    assert len({problem for problem, _ in pairs}) == 300
    for problem, answer in pairs:
        first, second, steps = parse_chain(problem)
        assert steps == 32
        assert (FIBONACCI[32] * first + FIBONACCI[33] * second) % 1000 == int(answer)
    assert chain_problems(3, min_digits=2, max_digits=3, steps=32, seed=1) == pairs[:3]
    with pytest.raises(ConfigError, match="at most 100 different problems"):
        chain_problems(101, min_digits=1, max_digits=1, steps=2, seed=0)


def test_a_chain_works_out_each_addition() -> None:
    assert chain_solution("37+48x2", random.Random(0), columns=3) == (
        r"02:7+8+0=15;3+4+1=08;0+0+0=00;085;01:8+5+0=13;4+8+1=13;0+0+1=01;133;\boxed{133}"
    )
    for problem, answer in chain_problems(50, min_digits=1, max_digits=3, steps=7, seed=2):
        boxed = chain_solution(problem, random.Random(0), columns=3).partition("\\boxed")[2]
        assert int(boxed.strip("{}")) == int(answer)


def test_flaws_of_a_chain_run_through() -> None:
    forgotten = chain_solution("37+48x2", random.Random(0), columns=3, carry_error=1.0)
    assert forgotten == r"02:7+8+0=15;3+4+0=07;0+0+0=00;075;01:8+5+0=13;4+7+0=11;0+0+0=00;013;\boxed{013}"
    slipped = chain_solution("10+10x1", NoChance(0), columns=2, digit_error=1.0)
    assert slipped == r"01:0+0+0=01;1+1+0=01;11;\boxed{11}"
    rng = random.Random(0)
    texts = [chain_solution("0+1x8", rng, columns=2, digit_error=0.05) for _ in range(1000)]
    assert sum(text.endswith("{34}") for text in texts) / 1000 == pytest.approx(0.95**16, abs=0.06)


def test_benchmarks_of_the_other_tasks() -> None:
    for name, columns in (("addition-lazy", 2), ("chain", 2)):
        problems = load_problems(get_benchmark(name), None)
        assert len(problems) == get_benchmark(name).num_problems
        assert all(len(problem.gold) <= columns + (name == "addition-lazy") for problem in problems)
