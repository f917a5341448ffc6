"""Controls: steps made from the step that they are controls of, and measured wherever it is."""

import pytest
from conftest import MICRO

from erpd_hub.artifacts import LineageRecord
from erpd_hub.config import TeacherConfig, TrainingConfig
from erpd_hub.errors import ConfigError
from erpd_hub.fields import identity
from erpd_hub.plan import make_plan
from erpd_hub.planning.preview import preview
from erpd_hub.recipe import build_recipe, load_recipe
from erpd_hub.summary import role_of

SAME = (
    "init",
    "learning_rate",
    "steps",
    "prompts_per_step",
    "save_steps",
    "weight_decay",
    "adam_beta2",
    "dtype",
    "seed",
)
"""What a control must have in common with its student."""
STEPS = {
    "base": {"type": "tiny"},
    "prompts": {"type": "generator", "generator": "addition", "decontaminate": []},
    "rollouts": {"stage": "rollout", "prompts": "prompts"},
    "teacher": {"rollouts": "rollouts", "loss": {"type": "ce", "beta": 0.3}, "learning_rate": 4e-4, "steps": 10},
    "signal": {"rollouts": "rollouts", "strategy": 1, "numerator": "teacher"},
    "student": {
        "stage": "distill", "rollouts": "rollouts", "signal": "signal", "learning_rate": 1e-4, "steps": 6, "seed": 5,
        "prompts_per_step": 8, "save_steps": [3], "keep_on_right": "negative", "clip_high": 0.5,
    },
    "evaluate": {"checkpoints": ["base", "student@step-3", "student"], "benchmarks": ["addition"]},
    "probe": {"checkpoints": ["student"], "prompts": "prompts"},
}  # fmt: skip


def recipe_of(**changes):
    steps = {name: {**STEPS.get(name, {}), **changes.get(name, {})} for name in (*STEPS, *changes)}
    return build_recipe({"run": "t", "steps": steps}, "test")


def steps_of(*controls, **changes):
    student = {"controls": list(controls), **changes.pop("student", {})}
    return recipe_of(student=student, **changes).rounds[0].steps


def test_without_a_teacher_everything_else_is_the_students():
    steps = steps_of("no-teacher")
    student, control = steps["student"], steps["student-no-teacher"]
    assert (control.advantage, control.signal, control.control_of) == ("outcome", None, "student")
    assert control.keep_on_right == "all", "a mask by the signal's sign would drop all right responses"
    assert control.clip_high == student.clip_high
    assert all(getattr(control, name) == getattr(student, name) for name in SAME)


def test_clip_and_kl_of_a_student_and_its_control_are_relative_to_one_policy():
    """Of an ensemble's second step that is the first one's student, where its signal says so."""
    second = {**STEPS["student"], "init": "student", "signal": "signal2", "controls": ["no-teacher"]}
    exact = {"kl_weight": 0.1, "kl_estimator": "exact"}
    plan = make_plan(recipe_of(signal2={**STEPS["signal"], "stage": "signal", "old": "student"}, second=second | exact))

    def source(step: str, role: str) -> str:
        return next(str(edge.source) for edge in plan.node(f"r1/{step}").inputs if edge.role == role)

    assert source("second", "anchor") == "r1/student"
    assert source("second-no-teacher", "anchor") == "r1/student"
    assert source("second-no-teacher", "old") == "r1/score-student"


def test_a_single_stage_is_the_teachers_loss_at_the_students_settings():
    steps = steps_of("single-stage")
    student, control, teacher = steps["student"], steps["student-single-stage"], steps["teacher"]
    assert (control.stage, control.loss, control.reference) == ("teacher", teacher.loss, "policy")
    assert all(getattr(control, name) == getattr(student, name) for name in SAME)


def test_a_single_stage_has_what_only_teacher_and_student_have_from_the_teacher():
    """Among them what becomes of truncated responses: a control that blames them where neither side did is unfair."""
    cut = {"teacher": {"truncated": "masked"}, "student": {"truncated": "dropped", "control_learning_rates": [1e-4]}}
    steps = steps_of("single-stage", "tuned", **cut)
    teacher, controls = steps["teacher"], [config for name, config in steps.items() if name.startswith("student-")]
    own = TeacherConfig.model_fields.keys() - TrainingConfig.model_fields.keys() - {"stage"}
    assert len(controls) == 2 and "truncated" in own
    for control in controls:
        assert {name: getattr(control, name) for name in own} == {name: getattr(teacher, name) for name in own}
    assert "truncated" not in identity(steps_of("single-stage")["student-single-stage"])


def test_tuned_has_the_prompts_of_teacher_and_student_at_several_rates():
    steps = steps_of("tuned")
    rates = {name: (config.steps, config.learning_rate) for name, config in steps.items() if "tuned" in name}
    assert rates == {
        "student-tuned-1e-4": (46, 1e-4), "student-tuned-2e-4": (46, 2e-4), "student-tuned-4e-4": (46, 4e-4)
    }  # fmt: skip
    assert "student-tuned-5e-5" in steps_of("tuned", student={"control_learning_rates": [5e-5]})
    shared = steps_of("tuned", student={"learning_rate": 4e-4})
    assert {config.learning_rate for name, config in shared.items() if "tuned" in name} == {1.3e-4, 4e-4, 1.2e-3}


def test_tuned_reckons_with_the_dearest_candidate_of_a_race():
    race = {"stage": "select", "candidates": ["teacher@step-2", "teacher"], "benchmark": "addition"}
    steps = steps_of(
        "tuned", teacher={"save_steps": [2]}, best=race, signal={"numerator": "best"},
        student={"control_learning_rates": [1e-4]},
    )  # fmt: skip
    assert steps["student-tuned-1e-4"].steps == 6 + 10 * 32 // 8


def test_the_controls_of_a_recovered_teacher_start_from_the_policy():
    recipe = load_recipe(str(MICRO), ["student-weak.controls=[single-stage,tuned]"])
    steps = recipe.rounds[0].steps
    assert (steps["student-weak-single-stage"].init, steps["student-weak-single-stage"].reference) == ("policy",) * 2
    assert steps["student-weak-tuned-1e-3"].steps == 2 + 2 + 2, "unlearned, recovered, distilled"


def test_a_restart_is_the_first_signal_twice():
    second = {
        **STEPS["student"],
        "init": "student",
        "signal": "other",
        "keep_on_right": "all",
        "steps": 4,
        "save_steps": [],
    }
    other = {"stage": "signal", "rollouts": "rollouts", "numerator": "teacher", "denominator": "none"}
    steps = recipe_of(other=other, second={**second, "controls": ["restart"]}).rounds[0].steps
    control = steps["second-restart"]
    assert (control.init, control.signal, control.keep_on_right, control.steps) == ("student", "signal", "negative", 4)
    with pytest.raises(ConfigError, match=r"student\.controls: restart: expected an init that is a distillation"):
        steps_of("restart")


def test_controls_are_measured_wherever_their_student_is():
    steps = steps_of("no-teacher", "tuned", student={"control_learning_rates": [1e-4]})
    assert steps["evaluate"].checkpoints == (
        "base", "student@step-3", "student-no-teacher@step-3", "student-tuned-1e-4@step-3",
        "student", "student-no-teacher", "student-tuned-1e-4",
    )  # fmt: skip
    assert steps["probe"].checkpoints == ("student", "student-no-teacher", "student-tuned-1e-4")
    later = {"evaluate": {"checkpoints": ["r1/student", "student"], "benchmarks": ["addition"]}}
    first = {name: step for name, step in STEPS.items() if name not in ("evaluate", "probe")}
    first["student"] = {**first["student"], "controls": ["no-teacher"]}
    second = {name: STEPS[name] for name in ("prompts", "rollouts", "teacher", "signal", "student")} | later
    rounds = build_recipe({"run": "t", "rounds": [{"steps": first}, {"steps": second}]}, "test").rounds
    assert rounds[1].steps["evaluate"].checkpoints == ("r1/student", "r1/student-no-teacher", "student")


def test_controls_change_nothing_about_their_student_and_no_round_starts_from_one():
    plain, asked = recipe_of().rounds[0].steps["student"], steps_of("no-teacher", "single-stage")["student"]
    assert identity(plain) == identity(asked)
    first = {name: step for name, step in STEPS.items() if name not in ("evaluate", "probe")}
    first["student"] = {**first["student"], "controls": ["no-teacher", "single-stage"]}
    second = {"prompts": STEPS["prompts"], "rollouts": STEPS["rollouts"]}
    plan = make_plan(build_recipe({"run": "t", "rounds": [{"steps": first}, {"steps": second}]}, "test"))
    assert "r1/student" in {edge.source for edge in plan.node("r2/rollouts").inputs}


def test_a_dry_run_shows_them():
    recipe = load_recipe(str(MICRO), ["student.controls=no-teacher,single-stage"])
    found = {node["step"]: node["inputs"] for node in preview(make_plan(recipe))["nodes"]}
    assert {"r1/evaluate/student-no-teacher/addition-1digit", "r1/probe/student-single-stage"} <= found.keys()
    assert found["r1/student-single-stage"]["init"] == found["r1/student-no-teacher"]["init"] == ["r1/base"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student-no-teacher": STEPS["student"]}, "the name student-no-teacher is taken"),
        ({"signal": {"strategy": None, "numerator": "policy", "denominator": "teacher"}}, "teacher step .* got policy"),
        ({"student": {"controls": ["no-teachers"]}}, "no-teacher"),
    ],
)  # fmt: skip
def test_a_control_without_a_meaning_is_refused(changes, message):
    student = {"controls": ["no-teacher", "single-stage"], **changes.pop("student", {})}
    with pytest.raises(ConfigError, match=message):
        recipe_of(student=student, **changes)


@pytest.mark.parametrize("stage", ["teacher", "distill"])
def test_a_record_that_says_what_it_is_a_control_of_is_one(finished_record, tmp_path, stage):
    record: LineageRecord = finished_record(tmp_path, {"a": b"1"})
    config = {"control_of": "student", "advantage": "signal"}
    assert role_of(record.model_copy(update={"stage": stage, "config": config})) == "control"
    plain = record.model_copy(update={"stage": stage, "config": config | {"control_of": None}})
    assert role_of(plain) == {"teacher": "teacher", "distill": "student"}[stage]
