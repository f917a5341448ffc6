"""The plan: what a recipe leaves implicit, made explicit."""

from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe, load_recipe


def _recipe(steps, **top):
    return build_recipe({"run": "t", "steps": steps, **top}, "test")


COMMON = {
    "base": {"type": "tiny"},
    "prompts": {"type": "generator", "generator": "addition", "decontaminate": []},
    "rollouts": {"stage": "rollout", "prompts": "prompts"},
}
TEACHER = {"stage": "teacher", "rollouts": "rollouts", "loss": {"type": "ce"}, "steps": 10, "save_steps": [5]}


def test_each_checkpoint_is_scored_once_and_shared():
    plan = make_plan(load_recipe("quickstart"))
    scored = [node.name for node in plan.nodes if node.config.stage == "score"]
    assert scored == ["r1/score-base", "r1/score-teacher", "r1/score-unlearned", "r1/score-recovered"]
    users = [n.name for n in plan.nodes if any(e.source == "r1/score-base" for e in n.inputs)]
    assert users == ["r1/teacher", "r1/signal", "r1/signal-weak", "r1/signal-weak-s1", "r1/control"]


def test_every_input_comes_before_its_users():
    plan = make_plan(load_recipe("quickstart"))
    seen = set()
    for node in plan.nodes:
        assert {edge.source for edge in node.inputs} <= seen
        seen.add(node.name)


def test_an_explicit_score_step_is_used():
    steps = {
        **COMMON,
        "old": {"stage": "score", "rollouts": "rollouts", "checkpoint": "policy"},
        "teacher": TEACHER,
        "signal": {"rollouts": "rollouts", "numerator": "teacher@step-5", "denominator": "none"},
    }
    plan = make_plan(_recipe(steps))
    signal = plan.node("r1/signal")
    assert {edge.role: edge.source for edge in signal.inputs} == {
        "rollouts": "r1/rollouts",
        "numerator": "r1/score-teacher-step-5",
        "old": "r1/old",
    }


def test_only_referenced_steps_are_pushed_and_the_last_always():
    steps = {**COMMON, "teacher": TEACHER, "later": {**TEACHER, "init": "teacher@step-5", "push_steps": "all"}}
    plan = make_plan(_recipe(steps))
    assert plan.node("r1/teacher").pushed_steps == (5, 10)
    assert plan.node("r1/later").pushed_steps == (5, 10)
    assert make_plan(_recipe({**COMMON, "teacher": TEACHER})).node("r1/teacher").pushed_steps == (10,)


def test_a_later_round_starts_from_the_last_student():
    first = {
        **COMMON,
        "teacher": TEACHER,
        "signal": {"rollouts": "rollouts", "numerator": "teacher"},
        "student": {"stage": "distill", "rollouts": "rollouts", "signal": "signal", "steps": 4},
    }
    second = {
        "prompts": {**COMMON["prompts"], "disjoint_from": ["r1/prompts"]},
        "rollouts": COMMON["rollouts"],
        "teacher": TEACHER,
        "probe": {"checkpoints": ["teacher"], "prompts": "prompts"},
    }
    plan = make_plan(build_recipe({"run": "t", "rounds": [{"steps": first}, {"steps": second}]}, "test"))
    policy = {e.role: e.source for e in plan.node("r2/rollouts").inputs}
    assert policy == {"prompts": "r2/prompts", "policy": "r1/student"}
    probe = {e.role: e.source for e in plan.node("r2/probe/teacher").inputs}
    assert (probe["base"], probe["policy"]) == ("r1/base", "r1/student")
    assert plan.node("r2/teacher").repo_id == "local/t-r2-teacher"


def test_until_takes_what_is_needed_and_from_takes_what_follows():
    plan = make_plan(load_recipe("quickstart"))
    nodes, given = plan.select(until="student", start="signal")
    names = [node.name for node in nodes]
    assert names[-1] == "r1/student"
    assert "r1/mse" not in names
    assert given == set(names) - {"r1/signal", "r1/student"}


def test_a_benchmark_entry_is_part_of_the_identity(monkeypatch):
    from dataclasses import replace

    from erpd_hub.evaluation.benchmarks import BENCHMARKS

    def identity():
        return make_plan(load_recipe("quickstart")).node("r1/evaluate/base/addition").identity

    before = identity()
    monkeypatch.setitem(BENCHMARKS, "addition", replace(BENCHMARKS["addition"], version=99))
    assert identity() != before


def test_a_local_path_in_the_place_of_a_checkpoint_becomes_an_import():
    plan = make_plan(_recipe({**COMMON, "rollouts": {**COMMON["rollouts"], "policy": "./my-model"}}))
    assert {e.role: e.source for e in plan.node("r1/rollouts").inputs}["policy"] == "r1/import-my-model"
