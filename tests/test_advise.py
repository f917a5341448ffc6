"""The page about a run: its numbers, and the rules that say what to try next."""

from typing import Any

import pytest

from erpd_hub.comparing.advice_sources import own_step, print_page
from erpd_hub.comparing.advise import Made, Page, checkpoint_in, compare_with_base, make_page, place_in
from erpd_hub.comparing.advise_rules import Advice, advise

SIGNAL = Made("r1/signal", "signal", {"strategy": 1, "numerator": "ce"}, {"std": 0.3, "signal_to_noise": 9.0})
CE = Made("r1/ce", "teacher", {"loss": {"type": "ce"}}, {})
STUDENT = Made("r1/student", "distill", {"signal": "signal", "advantage": "signal"}, {})
CONTROL = Made("r1/student-no-teacher", "distill", {"advantage": "outcome", "control_of": "student"}, {})


def row(ref: str, avg: float, *, role: str = "", **more: Any) -> dict[str, Any]:
    roles = {"base": "base", "ce": "teacher", "student-no-teacher": "control", "recovered": "teacher"}
    found = {
        "ref": ref,
        "role": role or roles.get(ref, "student"),
        "benchmark": "addition",
        "avg": avg,
        "k": 8,
        "n": 200,
    }
    found |= {"stderr": 0.03, "stderr_sampling": 0.005, "kl_to_base": 0.01, "entropy": 0.1, "mean_length": 100.0}
    return found | {"truncated": 0.0, "selection": False, "details": ref} | more


def said(rows: list[dict[str, Any]], *made: Made, kind: str = "next") -> list[Advice]:
    return [item for item in advise(make_page(rows, made)) if item.kind == kind]


def test_gains_are_against_the_base_without_what_was_selected_on() -> None:
    rows = [
        row("base", 0.5, kl_to_base=0.0),
        row("base", 0.1, benchmark="validation", selection=True),
        row("ce", 0.6, kl_to_base=0.02, entropy=0.05, mean_length=110.0, truncated=0.02),
        row("ce", 0.9, benchmark="validation", selection=True),
    ]
    (line,) = compare_with_base(rows)
    assert line.gain == pytest.approx(10.0)
    assert line.error == pytest.approx(100 * (2 * 0.005**2) ** 0.5)
    assert line.gain_per_kl == pytest.approx(5.0), "points for each 0.01 nats"
    assert (line.entropy_ratio, line.length_ratio, line.truncated_rise) == pytest.approx((0.5, 1.1, 0.02))


def test_two_benchmarks_are_averaged() -> None:
    rows = [row("base", 0.5), row("base", 0.2, benchmark="b"), row("ce", 0.6), row("ce", 0.4, benchmark="b")]
    (line,) = compare_with_base(rows)
    assert (line.avg, line.gain) == pytest.approx((0.5, 15.0))
    assert line.error == pytest.approx(100 * (4 * 0.005**2) ** 0.5 / 2)


def test_controls_stand_beside_their_student_at_the_same_step() -> None:
    rows = [
        row("base", 0.5),
        row("student", 0.6),
        row("student@step-8", 0.58),
        row("student-no-teacher", 0.59),
        row("student-no-teacher@step-8", 0.51, role="control"),
    ]
    page = make_page(rows, [STUDENT, CONTROL])
    assert [(item.student, item.control, item.better) for item in page.controls] == [
        ("student", "student-no-teacher", False),
        ("student@step-8", "student-no-teacher@step-8", True),
    ]
    assert all(item.is_outcome for item in page.controls)


def test_another_round_when_the_student_holds_its_teachers_gain() -> None:
    (advice,) = said([row("base", 0.5), row("ce", 0.6), row("student", 0.61)], CE, SIGNAL, STUDENT)
    assert advice.what.startswith("another round of strategy 1 on fresh prompts, starting from student")
    assert "+11.0" in advice.why


TWO_ROUNDS = (
    Made("r1/rollouts", "rollout", {}, {}, {"policy": "base"}),
    *(item._replace(config=item.config | {"rollouts": "rollouts"}) for item in (CE, SIGNAL, STUDENT)),
    Made("r2/rollouts", "rollout", {}, {}, {"policy": "r1/student"}),
    *(
        item._replace(step=item.step.replace("r1", "r2"), config=item.config | {"rollouts": "rollouts"})
        for item in (CE, SIGNAL, STUDENT)
    ),
)


@pytest.mark.parametrize(
    ("teacher", "student", "what", "why"),
    [
        (0.69, 0.702, "strategy 3 against", "r2/ce gains -1.0 ± 0.7 points over r1/student: no strong teacher"),
        (0.72, 0.708, "strategy 3 against", "r2/student gains +0.8 ± 0.7 points over r1/student: no more than chance"),
        (0.72, 0.69, "strategy 1 with more", "r2/student is 3.0 ± 0.7 points below r2/ce"),
        (0.8, 0.8, "another round of strategy 1", "r2/student gains +10.0 ± 0.7 points over r1/student"),
    ],
)
def test_a_later_round_is_judged_by_what_it_added(teacher: float, student: float, what: str, why: str) -> None:
    rows = [row(ref, avg, role=role, digest=ref) for ref, avg, role in [
        ("base", 0.5, "base"), ("r1/ce", 0.7, "teacher"), ("r1/student", 0.7, "student"),
        ("r2/ce", teacher, "teacher"), ("r2/student", student, "student")]]  # fmt: skip
    (advice,) = said(rows, *TWO_ROUNDS)
    assert advice.what.startswith(what) and advice.why == why


def test_a_saved_step_of_the_teacher_is_judged_by_itself() -> None:
    saved = SIGNAL._replace(config=SIGNAL.config | {"numerator": "ce@step-16"})
    later = Made("r2/prompts", "prompts", {}, {})
    rows = [row("base", 0.5), row("r1/ce", 0.4, role="teacher"), row("r1/student", 0.71)]
    for teacher in ("r1/ce@step-16", "ce@step-16"):
        given = [*rows, row(teacher, 0.7, role="teacher")]
        (advice,) = said(given, CE, saved, STUDENT, later)
        assert advice.what.startswith("another round of strategy 1")
        assert not said(given, CE, saved, STUDENT, later, kind="first"), "that step has lost nothing"
    (advice,) = said(rows, CE, saved, STUDENT, later)
    assert advice.why == "no student was evaluated together with its teacher", "the last step is another teacher"


RECOVERED = Made("r1/recovered", "teacher", {"loss": {"type": "ce"}, "init": "unlearned"}, {})
MSE = Made("r1/mse", "teacher", {"loss": {"type": "mse"}}, {})
UNLEARNED = Made("r1/unlearned", "unlearned", {}, {})


@pytest.mark.parametrize(
    ("denominator", "more", "what"),
    [
        ("mse@step-4", {}, "another round of strategy 2"),
        ("unlearned", {}, "another round of strategy 2"),
        ("earlier", {}, "another round of strategy 3"),
        ("recovered@step-8", {}, "another round of recovered against recovered@step-8"),
        ("none", {}, "another round of recovered against none"),
        ("policy", {}, "strategy 2"),
        ("r1/start", {"old": "the same scores", "denominator": "the same scores"}, "strategy 2"),
    ],
)
def test_a_signal_without_a_strategy_is_read_by_its_denominator(
    denominator: str, more: dict[str, str], what: str
) -> None:
    sides = {"strategy": None, "numerator": "recovered", "denominator": denominator}
    signal = Made("r1/signal", "signal", sides, {"std": 0.3}, more)
    earlier = Made("r1/earlier", "distill", {"advantage": "outcome"}, {})
    rows = [row("base", 0.5), row("recovered", 0.4), row("student", 0.68)]
    made = (MSE, UNLEARNED, RECOVERED, earlier, signal)
    (advice,) = said(rows, *made, STUDENT)
    assert advice.what.startswith(what)
    evolving = STUDENT._replace(config=STUDENT.config | {"denominator": "evolving"})
    (advice,) = said(rows, *made, evolving)
    assert advice.what == "strategy 2", "the student itself is the denominator"


def test_a_signal_of_neither_strategy_that_no_longer_gains() -> None:
    signal = Made("r1/signal", "signal", {"strategy": None, "numerator": "recovered", "denominator": "none"}, {})
    (advice,) = said([row("base", 0.5), row("recovered", 0.4), row("student", 0.505)], RECOVERED, signal, STUDENT)
    assert advice.what == "strategy 2" and "Table 7" in advice.evidence


def test_more_steps_when_the_student_is_far_below_a_strong_teacher() -> None:
    (advice,) = said([row("base", 0.5), row("ce", 0.7), row("student", 0.55)], CE, SIGNAL, STUDENT)
    assert "more distillation steps" in advice.what
    assert "Table 5" in advice.evidence
    earlier = [row("base", 0.5), row("ce", 0.7), row("student@step-8", 0.55), row("student", 0.54)]
    (advice,) = said(earlier, CE, SIGNAL, STUDENT)
    assert advice.what.startswith("another round"), "more of them were tried, and no better"


def test_the_weak_strategies_when_the_teacher_gains_nothing() -> None:
    rows = [row("base", 0.5), row("ce", 0.505), row("student", 0.51)]
    (advice,) = said(rows, CE, SIGNAL, STUDENT)
    assert advice.what == "strategy 2"
    (later,) = said(rows, CE, SIGNAL, STUDENT, Made("r2/prompts", "prompts", {}, {}))
    assert later.what.startswith("strategy 3 against an earlier student")


def test_the_gate_decides_before_the_gains() -> None:
    gate = Made("r1/gate", "gate", {}, {"teacher_better": False, "strategies": [2, 3], "reason": "p = 0.4"})
    (advice,) = said([row("base", 0.5), row("ce", 0.7), row("student", 0.7)], CE, SIGNAL, STUDENT, gate)
    assert (advice.what, advice.why) == ("strategy 2", "p = 0.4")


def test_only_the_last_gate_decides() -> None:
    gates = [
        Made(f"r{number}/gate", "gate", {}, {"teacher_better": better, "strategies": [], "reason": f"round {number}"})
        for number, better in ((1, False), (2, True))
    ]
    rows = [row("base", 0.5), row("ce", 0.6), row("student", 0.61)]
    assert said(rows, CE, SIGNAL, STUDENT, *gates)[0].what.startswith("another round of strategy 1")
    assert said(rows, CE, SIGNAL, STUDENT, *gates[::-1])[0].why == "round 1"


def test_the_control_decides_before_the_gains() -> None:
    rows = [row("base", 0.5), row("ce", 0.7), row("student", 0.7), row("student-no-teacher", 0.71)]
    (advice,) = said(rows, CE, SIGNAL, STUDENT, CONTROL)
    assert advice.what.startswith("the bare outcome (student-no-teacher)")


def test_beside_the_control_a_student_far_below_its_teacher_is_told_so() -> None:
    control = row("student-no-teacher@step-8", 0.659, role="control")
    rows = [row("base", 0.53), row("ce", 0.91), row("student@step-8", 0.666), control]
    (advice,) = said(rows, CE, SIGNAL, STUDENT, CONTROL)
    assert advice.what.startswith("the bare outcome (student-no-teacher@step-8), or strategy 1 with more distillation")
    assert advice.why == (
        "student@step-8 is +0.7 ± 0.7 points from its no-teacher control; student@step-8 is 24.4 ± 0.7 points below "
        "ce, and no later step of it was evaluated"
    )
    tried = [*rows, row("student", 0.6)]
    near = [row("base", 0.53), row("ce", 0.75), *rows[2:]]
    for given in (tried, near):
        (advice,) = said(given, CE, SIGNAL, STUDENT, CONTROL)
        assert advice.what.endswith("or another teacher: strategy 2")


def test_strategy_2_that_no_longer_gains_goes_online() -> None:
    signal = Made("r1/signal", "signal", {"strategy": 2, "numerator": "recovered"}, {"std": 0.3})
    rows = [row("base", 0.5), row("recovered", 0.4), row("student", 0.505)]
    (advice,) = said(rows, signal, STUDENT)
    assert "on-policy" in advice.what


def test_a_run_without_a_student_is_told_to_begin() -> None:
    (advice,) = said([row("base", 0.5), row("ce", 0.7)], CE)
    assert advice.what == "strategy 1 with a CE or SAPO teacher"


@pytest.mark.parametrize(
    ("made", "rows", "word"),
    [
        ([SIGNAL._replace(metrics={"std": 0.3, "noise_floor": 0.2, "signal_to_noise": 1.5})], [], "noise floor"),
        ([SIGNAL._replace(metrics={"std": 1e-6, "noise_floor": 0.0, "signal_to_noise": None})], [], "noise floor"),
        (
            [
                SIGNAL._replace(
                    config=SIGNAL.config | {"noise_ratio": 12.0},
                    metrics={"std": 0.3, "noise_floor": 0.03, "signal_to_noise": 10.0},
                )
            ],
            [],
            "less than 12 times above",
        ),
        ([], [row("student", 0.6, truncated=0.2)], "end by length"),
        (
            [
                Made("r1/mse", "teacher", {"loss": {"type": "mse"}}, {"explained_variance": 0.0}),
                Made("r1/s2", "signal", {"strategy": 2, "numerator": "mse"}, {"std": 1.0}),
            ],
            [],
            "explained variance below 0.9",
        ),
    ],
)
def test_what_comes_first(made: list[Made], rows: list[dict[str, Any]], word: str) -> None:
    (advice,) = said([row("base", 0.5), *rows], *made, kind="first")
    assert word in advice.why


def test_a_ce_teacher_clearly_below_its_start_is_told_a_larger_beta() -> None:
    ruined = [row("base", 0.5), row("ce", 0.3), row("student", 0.45)]
    (advice,) = said(ruined, CE, SIGNAL, STUDENT, kind="first")
    assert advice.what == "a larger beta for the teacher, ten times or more"
    assert advice.why.startswith("ce gains -20.0 ± 0.7 points over the base")
    assert not said([row("base", 0.5), row("ce", 0.49), row("student", 0.5)], CE, SIGNAL, STUDENT, kind="first")
    grpo = CE._replace(config={"loss": {"type": "grpo"}})
    assert not said(ruined, grpo, SIGNAL, STUDENT, kind="first"), "no beta"
    recovered = CE._replace(config=CE.config | {"init": "unlearned"})
    assert not said(ruined, recovered, SIGNAL, STUDENT, kind="first"), "a recovered teacher may be below the base"
    chosen = Made("r1/ce", "select", {"candidates": ["others"]}, {})
    assert not said(ruined, chosen, SIGNAL, STUDENT, kind="first"), "which loss the chosen one has is not in its record"


def test_an_unrecovered_mse_run_that_is_only_unlearned_from_is_no_fault() -> None:
    mse = Made("r1/mse", "teacher", {"loss": {"type": "mse"}}, {"explained_variance": 0.1})
    signal = Made("r1/s2", "signal", {"strategy": 2, "numerator": "recovered", "denominator": "mse"}, {"std": 1.0})
    assert not said([row("base", 0.5)], mse, signal, kind="first")


def test_an_unrecovered_numerator_counts_where_no_strategy_is_stated_too() -> None:
    mse = MSE._replace(metrics={"explained_variance": 0.1})
    sides = {"strategy": None, "numerator": "mse", "denominator": "mse@step-4"}
    (advice,) = said([row("base", 0.5)], mse, Made("r1/signal", "signal", sides, {"std": 1.0}), kind="first")
    assert "explained variance" in advice.why


def test_what_goes_beside() -> None:
    rows = [
        row("base", 0.5),
        row("ce", 0.7, kl_to_base=0.01),
        row("student", 0.7, kl_to_base=0.04, entropy=0.05, mean_length=150.0),
    ]
    beside = said(rows, CE, SIGNAL, STUDENT, kind="beside")
    assert [advice.what.split()[0] for advice in beside] == ["an", "compare", "fewer"]
    assert "entropy_weight" in beside[0].what


def test_references_mean_steps_of_their_round() -> None:
    assert place_in("ce@step-8", "r2/signal") == "r2/ce"
    assert checkpoint_in("ce@step-8", "r2/signal") == "r2/ce@step-8"
    assert checkpoint_in("base", "r2/signal") == "base"
    assert place_in("r1/student", "r2/signal") == "r1/student"
    assert place_in("policy", "r2/signal") == "policy"
    assert isinstance(make_page([row("base", 0.5)], []), Page)


def test_a_point_of_a_sweep_has_its_steps_by_their_own_names() -> None:
    steps = ("seed-3/r1/ce", "r2/r8", "seed-3/r2/evaluate/r1/student/addition")
    assert [own_step(step) for step in steps] == ["r1/ce", "r2/r8", "r2/evaluate/r1/student/addition"]


def test_a_noise_floor_of_0_is_said_as_measured(capsys) -> None:
    metrics = {"std": 1.0, "noise_floor": 0.0, "signal_to_noise": None}
    for found, words in ((metrics, "noise floor 0 (both scorings agree"), ({"std": 1.0}, "noise not measured")):
        print_page("run", make_page([row("base", 0.5)], [SIGNAL._replace(metrics=found)]))
        assert words in " ".join(capsys.readouterr().out.split())
