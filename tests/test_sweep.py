"""Sweeps: what is named for what, what is shared, and a real one."""

import json
from itertools import pairwise

import pytest
from conftest import MICRO, cli

from erpd_hub.benchmarks.seeds import check_claims
from erpd_hub.cli.options import read_seeds
from erpd_hub.cli.sweep import read_sweep
from erpd_hub.comparing.comparison import differences, sweep_rows
from erpd_hub.comparing.grid import Setting, combine, parse_words, point_name, read_points
from erpd_hub.comparing.sweep import make_sweep
from erpd_hub.comparing.sweep_run import run_sweep
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.intervals import student_t_cdf, t_interval, t_quantile
from erpd_hub.names import value_name
from erpd_hub.nodes import Edge
from erpd_hub.pipeline import open_hub
from erpd_hub.plan import make_plan
from erpd_hub.recipe import load_recipe, read_recipe
from erpd_hub.runner import Runner
from erpd_hub.selection import final_seed

FEW = ("evaluate.checkpoints=[[base,student]]", "probe.checkpoints=[[base,student]]")


def sweep_of(*words, seeds=(), recipe=str(MICRO), points=((),), **options):
    fixed, axes = parse_words(words)
    origin, data = read_recipe(recipe, fixed)
    return make_sweep(origin, data, combine(axes, points), seeds=seeds, **options)


def places(sweep):
    return {f"{node.repo_id}/{node.folder}".rstrip("/") for node in sweep.plan.nodes}


# ---------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("word", "texts"),
    [
        ("s.kl_weight=0,0.1, 1e-3", ("0", "0.1", "1e-3")),
        ("s.kl_weight=[0, 0.1]", ("0", "0.1")),
        ("s.save_steps=[2],[4, 8]", ("[2]", "[4, 8]")),
        ("s.save_steps=[[2], [4, 8]]", ("[2]", "[4, 8]")),
        ("t.loss={type: ce, beta: 1},{type: mse}", ("{type: ce, beta: 1}", "{type: mse}")),
        ("s.numerator=teacher@step-8,policy,none", ("teacher@step-8", "policy", "none")),
        ("s.text='a,b',c", ("'a,b'", "c")),
    ],
)
def test_a_word_with_several_values_is_an_axis(word, texts):
    fixed, axes = parse_words([word])
    assert not fixed
    assert axes[0].texts == texts


@pytest.mark.parametrize(
    ("word", "fixed"),
    [
        ("s.steps=4", "s.steps=4"),
        ("e.checkpoints=[[base, student]]", 'e.checkpoints=["base", "student"]'),
        ("a=", "a="),
    ],
)
def test_a_word_with_one_value_is_an_override(word, fixed):
    assert parse_words([word]) == ([fixed], [])


@pytest.mark.parametrize("word", ["seed=1,2", "run=a,b", "hub.endpoint=a,b", "student", "=1,2"])
def test_what_a_sweep_cannot_vary_is_refused(word):
    with pytest.raises(ConfigError):
        parse_words([word])


def test_axes_are_multiplied_zipped_and_added_to_points(tmp_path):
    _, axes = parse_words(["a.x=1,2", "b.y=3,4"])
    assert [[s.text for s in point] for point in combine(axes)] == [["1", "3"], ["1", "4"], ["2", "3"], ["2", "4"]]
    assert [[s.text for s in point] for point in combine(axes, zipped=True)] == [["1", "3"], ["2", "4"]]
    file = tmp_path / "points.yaml"
    file.write_text("- {signal.numerator: policy, signal.denominator: unlearned}\n- {signal.numerator: '1e-6'}\n")
    first, second = read_points(file)
    assert first == (Setting("signal.numerator", "policy"), Setting("signal.denominator", "unlearned"))
    assert second[0].value == "1e-6", "a text that looks like a number stays one"
    assert len(combine(axes, [first, second])) == 8
    with pytest.raises(ConfigError, match=r"a\.x has 2, b\.y has 1"):
        combine([axes[0], axes[1]._replace(texts=("3",))], zipped=True)


@pytest.mark.parametrize(
    ("value", "name"),
    [(0.05, "0-05"), (3e-4, "3e-4"), (1.5e-6, "1-5e-6"), (0, "0"), (-2, "minus-2"), (None, "null"), (True, "true"),
     ("teacher@step-10", "teacher-step-10"), ("policy", "policy"), (1e8, "1e8"), (1e-3, "1e-3"), (10, "10")],
)  # fmt: skip
def test_a_value_has_a_short_name(value, name):
    assert value_name(value) == name


def test_seeds_are_numbers_each_of_which_is_there_once():
    assert read_seeds("3, 4,0") == [3, 4, 0]
    for wrong in ("", "3,", "x", "-1", "\u00b2"):
        with pytest.raises(ConfigError, match="--seeds: expected whole numbers with commas"):
            read_seeds(wrong)
    with pytest.raises(ConfigError, match="--seeds: expected each seed once, got 3 twice"):
        read_sweep(str(MICRO), [], seeds="3,4,03")


def test_values_that_look_alike_have_different_names():
    values = ["A", "a", [1, 2], "1 2", {"type": "ce"}, "x" * 40, "x" * 41]
    names = [value_name(value) for value in values]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and "--" not in name for name in names)


def test_a_point_names_a_step_once_and_long_ones_end_in_a_hash():
    grid = [Setting("signal.numerator", "teacher@step-10"), Setting("signal.denominator", "none"), Setting("seed", "3")]
    assert point_name(grid) == "signal-denominator-none-numerator-teacher-step-10-seed-3"
    long = [Setting("teacher.loss.length_adaptive_lambda", "0.123456789"), *grid]
    assert len(point_name(long)) <= 64
    assert point_name(long).endswith("-seed-3")


# ------------------------------------------------------------------------------------------- sharing


def test_the_point_at_the_recipes_own_value_is_the_recipes_own_run():
    sweep = sweep_of("student.kl_weight=0,0.1")
    plain = make_plan(load_recipe(str(MICRO)))
    assert [point.run for point in sweep.points] == ["micro", "micro-student-kl-weight-0-1"]
    assert {node.name: node for node in sweep.points[0].plan.nodes} == {node.name: node for node in plain.nodes}
    own = [node.name for node in sweep.plan.nodes if node not in plain.nodes]
    assert own == [
        "student-kl-weight-0-1/r1/student",
        "student-kl-weight-0-1/r1/probe/student",
        "student-kl-weight-0-1/r1/evaluate/student/addition-1digit",
    ]
    student = sweep.plan.node(own[0])
    assert (student.repo_id, student.run) == ("local/micro-student-kl-weight-0-1-r1-student", sweep.points[1].run)
    assert Edge("signal", ("signal",), "r1/signal") in student.inputs, "its signal is everybody's"
    assert sweep.plan.node(own[2]).repo_id == "local/micro-student-kl-weight-0-1-details"


def test_an_artifact_is_named_only_for_the_settings_that_change_it():
    sweep = sweep_of("student.kl_weight=0,0.1", "teacher.loss.beta=1.0,0.3", seeds=(0, 3))
    found = places(sweep)
    assert "local/micro-teacher-loss-beta-0-3-seed-3-r1-teacher" in found
    assert "local/micro-student-kl-weight-0-1-teacher-loss-beta-0-3-seed-3-r1-student" in found
    assert sum(place.endswith("r1-teacher") for place in found) == 4, "two betas at two seeds"
    assert sum(place.endswith("r1-student") for place in found) == 8
    assert sum(place.endswith("r1-base") for place in found) == 2
    names = [node.name for node in sweep.plan.nodes]
    assert len(names) == len(set(names)) == len(found)
    seen = set()
    for node in sweep.plan.nodes:
        assert {edge.source for edge in node.inputs} <= seen
        seen.add(node.name)


def test_an_added_point_or_key_leaves_the_other_names_alone():
    few = sweep_of("student.kl_weight=0.1,0.2", seeds=(3,))
    more = sweep_of("student.kl_weight=0.3,0.2,0.1", seeds=(4, 3))
    key = sweep_of("teacher.loss.beta=1.0,0.5", "student.kl_weight=0.1,0.2", seeds=(3,))
    assert places(few) < places(more)
    assert places(few) < places(key)


def test_a_grid_scores_each_checkpoint_once_and_pushes_all_steps_that_it_needs():
    sweep = sweep_of(
        *FEW,
        "teacher.save_steps=[[2,4]]",
        "signal.strategy=null",
        "signal.numerator=teacher,teacher@step-2,teacher@step-4,policy,none",
        "signal.denominator=policy,unlearned,none",
        skip_refused=True,
    )
    refused = [tuple(setting.text for setting in settings) for settings, _ in sweep.refused]
    assert ("none", "none") in refused
    scores = [node for node in sweep.plan.nodes if node.config.stage == "score"]
    assert {node.repo_id for node in scores} == {
        f"local/micro-r1-score-{name}"
        for name in ("base", "teacher", "teacher-step-2", "teacher-step-4", "unlearned", "recovered")
    }
    assert sweep.plan.node("r1/teacher").pushed_steps == (2, 4, 6)
    signals = [node for node in sweep.plan.nodes if node.step == "signal"]
    assert len(signals) == len(sweep.points) == 15 - len(refused)


def test_two_steps_that_a_point_makes_equal_keep_a_place_each():
    """A sweep of a weight mostly begins at 0, where the step is its neighbour."""
    other = "steps.other={stage: distill, rollouts: rollouts, signal: signal, learning_rate: 1e-3, steps: 4, "
    other += "prompts_per_step: 8, save_steps: [2], checkpoint_every: 2}"
    sweep = sweep_of(other, "other.kl_weight=0,0.1", "evaluate.checkpoints=[[base,student,other]]")
    for point in sweep.points:
        names = [node.name for node in point.plan.nodes]
        assert len(names) == len(set(names))
        measured = {n.config.checkpoints[0] for n in point.plan.nodes if n.config.stage == "evaluate"}
        assert measured == {"base", "student", "other"}


def test_a_point_that_is_no_recipe_is_refused_or_left_out():
    with pytest.raises(ConfigError, match=r"steps\.student\.kl_weight: .* \(at student\.kl_weight=-1\)"):
        sweep_of("student.kl_weight=0,-1")
    sweep = sweep_of("student.kl_weight=0,-1", skip_refused=True)
    assert [point.run for point in sweep.points] == ["micro"]
    with pytest.raises(ConfigError, match="a point that is a valid recipe"):
        sweep_of("student.kl_weight=-1,-2", skip_refused=True)


def test_settings_that_only_make_sense_together_stay_together():
    points = [(Setting("student.advantage", "outcome"), Setting("student.signal", "null"))]
    sweep = sweep_of(points=points)
    assert sweep.points[0].run == "micro-student-advantage-outcome-signal-null"
    made = [node.name for node in sweep.plan.nodes if "/r1/" in node.name]
    assert made[0].endswith("/r1/student")
    assert all("student" in name for name in made)


def test_a_step_with_a_seed_of_its_own_is_shared_by_all_seeds():
    sweep = sweep_of("base.seed=0", "prompts.seed=7", seeds=(1, 2))
    for step in ("base", "prompts"):
        assert len([node for node in sweep.plan.nodes if node.step == step]) == 1
    rollouts = {node.repo_id: node.seed for node in sweep.plan.nodes if node.step == "rollouts"}
    assert rollouts == {"local/micro-seed-1-r1-rollouts": 1, "local/micro-seed-2-r1-rollouts": 2}
    assert {node.repo_id for node in sweep.plan.nodes if node.step == "base"} == {"local/micro-r1-base"}


def test_a_selected_checkpoint_is_sampled_afresh_at_every_seed():
    for point in sweep_of(recipe="qwen3-4b-ce", seeds=(0, 1)).points:
        (race,) = {node.seed for node in point.plan.nodes if node.step == "ce-best"}
        (final,) = {node.seed for node in point.plan.nodes if node.folder.endswith("ce-best/hmmt_feb_2025")}
        assert (race, final) == (point.seed, final_seed(point.seed))


# -------------------------------------------------------------------------------------------- intervals


def test_students_t_is_that_of_the_tables():
    known = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 30: 2.0423}
    assert {n: round(t_quantile(0.975, n), 4) for n in known} == known
    assert student_t_cdf(0.0, 5) == 0.5
    assert all(a < b for a, b in pairwise(student_t_cdf(t / 4, 7) for t in range(20)))


def test_an_interval_of_three_numbers_by_hand():
    found = t_interval([1.0, 2.0, 6.0])  # sd sqrt(7), s.e. sqrt(7/3), t 4.3027
    assert (found.mean, found.stderr) == (3.0, pytest.approx((7 / 3) ** 0.5))
    assert (found.low, found.high) == (pytest.approx(3 - 6.5725, abs=1e-3), pytest.approx(3 + 6.5725, abs=1e-3))
    assert t_interval([2.0]) == (2.0, None, None, None)


# --------------------------------------------------------------------------------------------- for real


@pytest.mark.usefixtures("micro_copy")
def test_a_sweep_makes_what_points_share_once_and_an_added_point_only_its_own():
    weight, numerator = (lambda text: Setting("student.kl_weight", text)), Setting("signal.numerator", "teacher@step-3")
    points = [(weight("0"),), (weight("1"),), (weight("1"), numerator)]
    outcome = run_sweep(sweep_of(*FEW, points=points))
    made = [item["step"].rpartition("r1/")[2] for item in outcome.report["artifacts"] if not item["reused"]]
    own = ["student", "probe/student", "evaluate/student/addition-1digit"]
    assert sorted(made) == sorted(["score-teacher-step-3", "signal", *own, *own]), "the recipe's own run was there"
    base, first, second, third = outcome.report["rows"]
    assert (base["checkpoint"], len(base["points"])) == ("base", 3)
    assert [item["to"] for item in first["differences"]] == ["base"]
    assert [item["to"] for item in third["differences"]] == ["base", "first point"]
    assert third["differences"][1]["mean"] == pytest.approx(third["avg"] - first["avg"])
    assert (third["differences"][1]["low"], third["stderr_over"]) == (None, "problems"), "one seed tells no error"
    assert len({row["seeds"][0]["digest"] for row in (base, first, second, third)}) == 4
    assert outcome.picture is not None
    assert json.loads(outcome.report_path.read_text()) == outcome.report

    points += [(weight("2"),), (Setting("student.learning_rate", "1e30"),)]
    again = run_sweep(sweep_of(*FEW, points=points))
    made = [item["step"] for item in again.report["artifacts"] if not item["reused"]]
    assert made == [f"student-kl-weight-2/r1/{name}" for name in own]
    failed = [item["step"] for item in again.report["failures"]]
    assert failed == [f"student-learning-rate-1e30/r1/{name}" for name in own]


@pytest.mark.usefixtures("micro_copy")
def test_a_control_that_only_one_point_has_is_compared_there():
    points = [(Setting("student.kl_weight", "0"),),
              (Setting("student.kl_weight", "1"), Setting("student.controls", "[no-teacher]"))]  # fmt: skip
    outcome = run_sweep(sweep_of(*FEW, points=points))
    compared = [(row["checkpoint"], [item["to"] for item in row["differences"]]) for row in outcome.report["rows"]]
    assert compared == [
        ("base", []),
        ("student", ["base"]),
        ("student", ["base", "first point", "no-teacher"]),
        ("student-no-teacher", ["base"]),
    ]


@pytest.mark.usefixtures("micro_copy")
def test_means_and_differences_are_over_seeds(monkeypatch):
    """The same artifacts under two seeds' names: what is computed from them does not depend on where they came from."""
    sweep = sweep_of(*FEW, seeds=(0,))
    rows = sweep_rows(sweep, {item.node.name: item for item in run_sweep_nodes(sweep)})
    [base, student] = [row for row in rows if row.checkpoint in ("base", "student")]
    two = {0: student.any, 1: student.any._replace(avg=student.any.avg + 0.1)}
    row = student._replace(by_seed=two)
    [found] = differences(row, [base._replace(by_seed={0: base.any, 1: base.any}), row], sweep.plan.recipe)
    gain = student.any.avg - base.any.avg
    assert found.by_seed == {0: pytest.approx(gain), 1: pytest.approx(gain + 0.1)}
    named = base._replace(checkpoint="start", by_seed={0: base.any, 1: base.any})
    assert [(one.to, one.by_seed) for one in differences(row, [named, row], sweep.plan.recipe)] == [
        ("base", found.by_seed)
    ], "by its role, whatever its step is called"
    assert found.low == pytest.approx(gain + 0.05 - 12.7062 * 0.05, abs=1e-4)


def run_sweep_nodes(sweep):
    return Runner(sweep.plan, open_hub(sweep.plan)).run()


def test_the_command_previews_each_artifact_once(micro):
    words = ("sweep", MICRO, "student.kl_weight=0,1", *FEW, "--dry-run", "--json")
    report = json.loads(cli(*words, home=micro.home).stdout)
    assert [point["runs"] for point in report["points"]] == [{"0": "micro"}, {"0": "micro-student-kl-weight-1"}]
    make = [node["step"] for node in report["nodes"] if node["will"] != "reuse"]
    assert len(make) == 3
    assert all(name.startswith("student-kl-weight-1/r1/") for name in make)


def test_a_claim_holds_when_it_was_seen_on_every_seed():
    averages = {"base": 0.5, "teacher": 0.8, "student": 0.7, "unlearned": 0.1, "recovered": 0.3, "student-weak": 0.6}
    rows = [
        {"checkpoint": ref, "seeds": [{"seed": seed, "avg": avg, "kl_to_base": 0.1} for seed in (3, 4)]}
        for ref, avg in averages.items()
    ]
    checks = check_claims({"recipe": "quickstart", "points": [{}], "rows": rows})
    assert [check["holds"] for check in checks] == [True, True, False, True, True, True, False]
    assert checks[0]["values"] == [pytest.approx(0.15)] * 2
    assert checks[-1]["values"] == [None, None], "a checkpoint that failed"
    assert check_claims({"recipe": "mine", "points": [{}], "rows": rows}) == []
