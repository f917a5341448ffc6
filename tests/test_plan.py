"""The plan: what a recipe leaves implicit, made explicit."""

import pytest

from erpd_hub.errors import ConfigError
from erpd_hub.plan import make_plan
from erpd_hub.planning.cautions import cautions
from erpd_hub.recipe import build_recipe, load_recipe
from erpd_hub.selection import final_seed
from erpd_hub.summary import selection_benchmarks


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


def test_log_probs_on_other_rollouts_get_a_step_of_their_own():
    first = {**COMMON, "teacher": TEACHER}
    second = {
        "more": {"stage": "rollout", "prompts": "r1/prompts"},
        "a": {"stage": "signal", "rollouts": "r1/rollouts", "numerator": "r1/teacher"},
        "b": {"stage": "signal", "rollouts": "more", "numerator": "r1/teacher"},
    }
    rounds = [{"steps": first}, {"steps": second, "policy": "r1/teacher"}]
    plan = make_plan(build_recipe({"run": "t", "rounds": rounds}, "test"))
    scores = {
        signal: next(e.source for e in plan.node(signal).inputs if e.role == "numerator") for signal in ("r2/a", "r2/b")
    }
    assert scores["r2/a"] != scores["r2/b"]
    for signal, rollouts in (("r2/a", "r1/rollouts"), ("r2/b", "r2/more")):
        assert rollouts in {edge.source for edge in plan.node(scores[signal]).inputs}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            {"x": {"stage": "score", "rollouts": "rollouts", "checkpoint": "./a/m"},
             "y": {"stage": "score", "rollouts": "rollouts", "checkpoint": "./b/m"}},
            "two paths end in the same name",
        ),
        (
            {"e1": {"stage": "evaluate", "checkpoints": ["base"], "benchmarks": ["addition"]},
             "e2": {"stage": "evaluate", "checkpoints": ["base"], "benchmarks": ["addition"], "k": 2}},
            "would go to local/t-details/base/addition, as does",
        ),
    ],
)  # fmt: skip
def test_two_artifacts_in_one_place_are_refused(steps, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(_recipe({**COMMON, **steps}))


def test_the_next_round_starts_from_the_student_and_never_from_the_control():
    first = {
        **COMMON,
        "teacher": TEACHER,
        "signal": {"rollouts": "rollouts", "numerator": "teacher"},
        "student": {"stage": "distill", "rollouts": "rollouts", "signal": "signal", "steps": 4},
        "control": {"stage": "distill", "rollouts": "rollouts", "advantage": "outcome", "steps": 4},
    }
    second = {"prompts": COMMON["prompts"], "rollouts": COMMON["rollouts"]}
    plan = make_plan(build_recipe({"run": "t", "rounds": [{"steps": first}, {"steps": second}]}, "test"))
    assert "r1/student" in {edge.source for edge in plan.node("r2/rollouts").inputs}
    first["other"] = first["student"]
    with pytest.raises(ConfigError, match=r"found student, other; set rounds\.1\.policy"):
        make_plan(build_recipe({"run": "t", "rounds": [{"steps": first}, {"steps": second}]}, "test"))


def test_evaluation_is_planned_with_the_benchmarks_own_k_and_decoding():
    steps = {**COMMON, "evaluate": {"checkpoints": ["base"], "benchmarks": ["addition"]}}
    node = make_plan(_recipe(steps)).node("r1/evaluate/base/addition")
    assert (node.identity["k"], node.identity["decoding"]["max_new_tokens"]) == (8, 64)


def test_a_selected_checkpoint_is_evaluated_on_other_samples_than_its_race() -> None:
    race = "best={stage: select, candidates: [teacher@step-8, teacher], benchmark: addition}"
    steps = [f"steps.{race}", "evaluate.checkpoints=[best, student]", "probe.checkpoints=[student]"]
    plan = make_plan(load_recipe("quickstart", steps))
    seeds = {node.config.checkpoints[0]: node.seed for node in plan.nodes if node.config.stage == "evaluate"}
    assert seeds == {"best": final_seed(0), "student": 0}
    assert plan.node("r1/best").seed == 0


def test_a_recipe_says_what_it_was_chosen_on() -> None:
    plan = make_plan(load_recipe("quickstart", ["selection=[addition]"]))
    assert selection_benchmarks(plan) == {"addition"}
    assert selection_benchmarks(make_plan(load_recipe("quickstart"))) == set()
    with pytest.raises(ConfigError, match="additoin"):
        make_plan(load_recipe("quickstart", ["selection=[additoin]"]))


def test_a_repository_id_that_no_hub_takes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 96 characters, got local/x+-r1-base \(\d+\); shorten run"):
        make_plan(load_recipe("quickstart", [f"run={'x' * 90}"]))


# -------------------------------------------------------------------------------------------- cautions


def said(steps, **top) -> list[str]:
    return cautions(make_plan(_recipe({**COMMON, **steps}, **top)))


def test_rounded_weights_that_something_goes_on_from_are_cautioned_against():
    rounded = {**TEACHER, "push_dtype": "bfloat16"}
    signal = {"rollouts": "rollouts", "numerator": "teacher", "denominator": "copy"}
    copy = {"stage": "unlearned", "teacher": "teacher@step-5"}
    (caution,) = said({"teacher": rounded, "copy": copy, "signal": signal})
    assert caution.startswith("r1/teacher.push_dtype: expected float32 at the learning rate 1e-06 for weights ")
    assert "that are input to r1/score-copy and 1 more, got bfloat16" in caution
    assert len(said({"teacher": rounded, "copy": copy, "later": {**TEACHER, "init": "copy"}})) == 1, "by way of a copy"
    race = {"stage": "select", "candidates": ["teacher@step-5", "teacher"], "benchmark": "addition"}
    assert len(said({"teacher": rounded, "best": race, "later": {**TEACHER, "init": "best"}})) == 1, "or of a race"
    assert len(said({"teacher": rounded, "again": {**COMMON["rollouts"], "policy": "teacher"}})) == 1, "as a sampler"
    evaluate = {"checkpoints": ["teacher"], "benchmarks": ["addition"]}
    for changes in ({"learning_rate": 1e-5}, {"push_dtype": "float32"}, {"lora": {}}):
        assert not said({"teacher": rounded | changes, "copy": copy, "signal": signal})
    assert not said({"teacher": rounded, "evaluate": evaluate}), "nothing goes on from it"


def test_another_temperature_than_that_of_the_rollouts_is_cautioned_against():
    drawn = {"rollouts": {**COMMON["rollouts"], "decoding": {"temperature": 0.6}}, "teacher": TEACHER}
    (caution,) = said(drawn)
    assert caution.startswith(
        "r1/rollouts: logprob_temperature: expected 0.6, at which the responses were drawn, got 1"
    )
    assert not said(drawn, scoring={"logprob_temperature": 0.6})
    drawn["rollouts"]["decoding"]["temperature"] = 0
    assert not said(drawn), "greedy responses have none"
    drawn["rollouts"] = {"stage": "rollout", "type": "import", "source": "./x", "format": "trl"}
    assert not said(drawn), "nobody knows"
    drawn["rollouts"]["decoding"] = {"temperature": 0.6}
    assert len(said(drawn | {"signal": {"rollouts": "rollouts", "numerator": "teacher"}})) == 1, "two scores, one word"


def test_an_evolving_denominator_is_cautioned_against_where_the_signal_has_another_or_no_numerator():
    def student(numerator: str, denominator: str) -> dict:
        signal = {"rollouts": "rollouts", "numerator": numerator, "denominator": denominator}
        return {"teacher": TEACHER, "signal": signal, "student": {"stage": "distill", "rollouts": "rollouts",
                "signal": "signal", "denominator": "evolving", "steps": 2, "learning_rate": 1e-4}}  # fmt: skip

    assert not said(student("teacher", "policy"))
    (without,) = said(student("none", "teacher"))
    assert without.startswith("r1/student.denominator: expected fixed for r1/signal, which has no numerator")
    (other,) = said(student("teacher", "teacher@step-5"))
    assert other.endswith(
        "which takes the student in place of teacher@step-5: that is scored for nothing; leave it out"
    )


def test_a_signal_of_one_checkpoint_under_two_names_is_cautioned_against():
    def between(numerator: str, denominator: str) -> list[str]:
        sides = {"rollouts": "rollouts", "numerator": numerator, "denominator": denominator}
        copy = {"stage": "unlearned", "teacher": f"teacher@step-{TEACHER['steps']}"}
        return said({"teacher": TEACHER, "copy": copy, "signal": sides})

    (last,) = between("teacher", f"teacher@step-{TEACHER['steps']}")
    assert last.startswith("r1/signal.denominator: expected another checkpoint than the numerator, got teacher@step-")
    assert len(between("copy", "teacher")) == 1, "a copy too"
    assert not between("teacher", "teacher@step-5") and not between("teacher", "policy")


# --------------------------------------------------------------------------------------------- presets


def test_a_strategy_fills_in_sides_where_the_round_leaves_no_choice():
    mse = {**TEACHER, "loss": {"type": "mse"}}
    unlearned = {"stage": "unlearned", "teacher": "mse@step-5"}
    recovered = {**TEACHER, "init": "unlearned", "reference": "unlearned"}
    signal = {"stage": "signal", "rollouts": "rollouts"}

    def sides(strategy: int, **steps) -> tuple[str, str]:
        made = _recipe({**COMMON, **steps, "signal": {**signal, "strategy": strategy}}).rounds[0].steps["signal"]
        return made.numerator, made.denominator

    assert sides(1, teacher=TEACHER) == ("teacher", "policy")
    assert sides(2, mse=mse, unlearned=unlearned) == ("mse", "unlearned")
    assert sides(2, mse=mse, unlearned=unlearned, recovered=recovered) == ("recovered", "unlearned")
    written = _recipe(
        {**COMMON, "teacher": TEACHER, "signal": {**signal, "strategy": 1, "numerator": "teacher@step-5"}}
    )
    assert written.rounds[0].steps["signal"].numerator == "teacher@step-5"
    for strategy in (1, 3):
        with pytest.raises(ConfigError, match="numerator: missing"):
            sides(strategy, teacher=TEACHER, **({"mse": mse} if strategy == 1 else {}))
