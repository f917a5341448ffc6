"""The teacher gate: its verdict, and that a run makes what the chosen strategy needs and nothing else."""

import json
import shutil

import pytest
from conftest import MICRO

from erpd_hub import config as c
from erpd_hub.choices import conditions, decide, needed
from erpd_hub.errors import ConfigError
from erpd_hub.evaluation.paired import compare
from erpd_hub.hub.connecting import connect
from erpd_hub.model_cards import render
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.planning.preview import preview
from erpd_hub.recipe import build_recipe, read_recipe
from erpd_hub.selection import choose, judge

EVALUATED = {"k": 2, "limit": 8, "decoding": {"max_new_tokens": 24}}
ALTERNATIVE = {"r1/mse", "r1/unlearned", "r1/recovered", "r1/score-recovered", "r1/score-unlearned"}


def _recipe(**gate):
    data = read_recipe(str(MICRO), [])[1]
    kept = ("base", "prompts", "rollouts", "teacher", "mse", "unlearned", "recovered", "student")
    steps = {name: data["steps"][name] for name in kept}
    for name in ("teacher", "mse", "student", "recovered"):
        steps[name] |= {"steps": 2 if name == "teacher" else 1, "save_steps": []}
    steps["unlearned"] = {"teacher": "mse"}
    steps["gate"] = {"teacher": "teacher", "benchmark": "addition-1digit", **EVALUATED, **gate}
    choices = {1: {"numerator": "teacher"}, 2: {"numerator": "recovered", "denominator": "unlearned"}}
    steps["signal"] = {"rollouts": "rollouts", "strategy": "auto", "gate": "gate", "choices": choices}
    steps["evaluate"] = {"checkpoints": ["base", "student"], "benchmarks": ["addition-1digit"], **EVALUATED}
    return data | {"steps": steps, "scoring": {"noise_samples": 0}}


def _plan(**gate):
    return make_plan(build_recipe(_recipe(**gate), "gated"))


@pytest.mark.parametrize(("right", "better"), [(4, True), (2, False), (0, False)])
def test_the_verdict_says_why(right, better):
    teacher = {str(i): [1] * right + [0] * (4 - right) for i in range(6)}
    policy = {str(i): [1, 1, 0, 0] for i in range(6)}
    found = compare(teacher, policy)
    verdict = judge(found, alpha=0.05, otherwise=(3, 2), where="addition")
    assert verdict.teacher_better is better
    assert verdict.strategies == ((1,) if better else (3, 2))
    assert f"the teacher has {25 * right}.0 % and the policy 50.0 % on addition (6 problems)" in verdict.reason
    assert verdict.reason.endswith("so strategy 1" if better else "so strategy 3 or else 2")


def test_a_margin_is_named_in_the_verdict():
    found = compare({str(i): [1] for i in range(9)}, {str(i): [0] for i in range(9)}, margin=0.1)
    assert "better by more than 10 points, so strategy 1" in judge(found, alpha=0.05, otherwise=(2,), where="b").reason


def test_the_first_strategy_that_is_offered_is_taken():
    assert choose((2, 3), (1, 3), where="signal") == 3
    assert choose((2, 3), (1, 2, 3), where="signal") == 2
    with pytest.raises(ConfigError, match=r"signal\.choices: expected strategy 2, as the gate says, got 1, 3"):
        choose((2,), (1, 3), where="signal")


def test_what_an_open_signal_needs():
    plan = _plan()
    sure = {node.name for node in needed(plan.nodes, {})}
    assert {"r1/gate", "r1/teacher", "r1/student", "r1/score-base"} <= sure
    assert not sure & (ALTERNATIVE | {"r1/score-teacher"})
    assert {node.name for node in needed(plan.nodes, {}, maybe=True)} == {node.name for node in plan.nodes}
    assert conditions(plan.nodes, {}) == {
        **{name: ["r1/signal: strategy 2"] for name in ALTERNATIVE},
        "r1/score-teacher": ["r1/signal: strategy 1"],
    }
    for strategies, unneeded in (((1,), ALTERNATIVE), ((3, 2), {"r1/score-teacher"})):
        decided = {"r1/signal": decide(plan.node("r1/signal"), strategies)}
        assert conditions(plan.nodes, decided) == {name: [] for name in unneeded}
        names = [node.name for node in needed(plan.nodes, decided)]
        assert set(names) == {node.name for node in plan.nodes} - unneeded
        assert names == [node.name for node in plan.nodes if node.name in names]


def test_a_decided_signal_is_the_plain_one_with_the_gate_beside_it():
    node = _plan().node("r1/signal")
    recipe = _recipe()
    recipe["steps"]["signal"] = {"rollouts": "rollouts", "strategy": 1, "numerator": "teacher"}
    plain = make_plan(build_recipe(recipe, "plain")).node("r1/signal")
    found = decide(node, (1,))
    assert found.config == plain.config
    assert found.identity == plain.identity
    gates = [edge for edge in found.inputs if edge.role == "gate"]
    assert set(found.inputs) == {*plain.inputs, *gates}
    assert len(gates) == 1


def test_an_evaluation_of_the_recipe_is_shared_and_not_made_twice():
    plan = _plan()
    assert {edge.role: edge.source for edge in plan.node("r1/gate").inputs} == {
        "teacher": "r1/gate/gate--teacher/addition-1digit",
        "policy": "r1/evaluate/base/addition-1digit",
    }
    other = _plan(k=4)
    assert "r1/gate/gate--policy/addition-1digit" in [edge.source for edge in other.node("r1/gate").inputs]
    assert len({node.name for node in other.nodes}) == len(other.nodes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": {1: {"numerator": "teacher"}}}, "choices: expected strategy 1 and at least one of 2 and 3, got 1"),
        ({"choices": {1: {"numerator": "policy"}, 2: {"numerator": "a", "denominator": "b"}}},
         r"choices\.1\.numerator: strategy 1 expects a trained teacher"),
        ({"gate": None}, "gate: expected a gate step with strategy auto"),
        ({"numerator": "teacher"}, "numerator: expected it in choices"),
        ({"strategy": 1, "numerator": "teacher"}, "strategy: expected auto with a gate and choices, got 1"),
        ({"gate": "teacher"}, "expected gate, got teacher, which makes checkpoint"),
        ({"choices": {1: {"numerator": "teacher"}, 3: {"numerator": "teacher", "denominator": "base"}}},
         r"r1/signal\.choices: expected strategy 2, as the gate says, got 1, 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(changes, message):
    recipe = _recipe(otherwise=[2])
    recipe["steps"]["signal"] |= changes
    with pytest.raises(ConfigError, match=message):
        make_plan(build_recipe(recipe, "gated"))


def test_a_gate_compares_two_checkpoints_with_their_own_weights():
    with pytest.raises(ConfigError, match="teacher: expected another checkpoint than the policy"):
        _plan(teacher="policy")
    with pytest.raises(ConfigError, match="expected transformers or vllm"):
        _plan(engine={"type": "server", "urls": ["http://a/v1"]})


@pytest.fixture(scope="module")
def gated(tmp_path_factory, micro_base):
    """One home in which the same recipe has gone both ways; the margin decides."""
    home = tmp_path_factory.mktemp("gated") / "home"
    shutil.copytree(micro_base, home)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ERPD_HOME", str(home))
        first = preview(_plan(margin=-1.0))
        return home, first, run_plan(_plan(margin=-1.0)), run_plan(_plan(margin=1.0))


def test_only_the_chosen_line_is_made(gated, monkeypatch):
    home, before, better, worse = gated
    monkeypatch.setenv("ERPD_HOME", str(home))
    made = [{item.node.name for item in outcome.finished} for outcome in (better, worse)]
    assert not made[0] & ALTERNATIVE
    assert made[1] >= ALTERNATIVE
    assert "r1/score-teacher" not in made[1]
    for outcome, strategy, roles in ((better, 1, "strategy 1"), (worse, 2, "so strategy 2 or else 3")):
        found = next(item for item in outcome.finished if item.node.name == "r1/signal").record
        assert found.config["strategy"] == found.metrics["strategy"] == strategy
        assert roles in found.metrics["strategy_reason"]
        assert {item.role for item in found.inputs} == {"rollouts", "gate", "old", "numerator", "denominator"}
        gate = next(item for item in outcome.finished if item.node.name == "r1/gate").record
        assert gate.metrics["teacher_better"] is (strategy == 1)
        assert gate.metrics["reason"] in render(gate.model_dump(mode="json", by_alias=True)).replace("\\", "")
    (denominator,) = (item for item in found.inputs if item.role == "denominator")
    assert denominator.repo_id == "local/micro-r1-score-unlearned"
    wills = {node["step"]: node["will"] for node in before["nodes"]}
    assert {name for name, will in wills.items() if will.startswith("maybe")} == ALTERNATIVE | {"r1/score-teacher"}
    assert wills["r1/mse"] == "maybe: only for r1/signal: strategy 2"


def test_a_second_run_and_its_preview_make_nothing(gated, monkeypatch):
    home, *_ = gated
    monkeypatch.setenv("ERPD_HOME", str(home))
    assert all(item.reused for item in run_plan(_plan(margin=-1.0)).finished)
    wills = {node["step"]: node["will"].partition(":")[0] for node in preview(_plan(margin=-1.0))["nodes"]}
    assert {name for name, will in wills.items() if will == "skip"} == ALTERNATIVE
    assert {will for name, will in wills.items() if name not in ALTERNATIVE} == {"reuse"}


def test_scores_on_the_benchmark_that_decided_are_marked(gated, monkeypatch):
    home, _, better, _ = gated
    monkeypatch.setenv("ERPD_HOME", str(home))
    rows = better.summary["checkpoints"]
    assert {row["ref"] for row in rows} == {"base", "teacher", "student"}
    assert all(row["selection"] for row in rows)
    headline = {item["ref"]: item for item in better.summary["headline"]}
    assert headline["base"] == {
        "ref": "base", "role": "base", "avg": None, "stderr": None, "benchmarks": [], "incomplete": [],
        "left_out": ["addition-1digit"],
    }  # fmt: skip
    import pyarrow.parquet as pq

    hub = connect("local")
    folder = hub.pull("dataset", "local/erpd-leaderboard", hub.resolve("dataset", "local/erpd-leaderboard"))
    assert pq.read_table(folder / "data" / "micro.parquet")["selection"].to_pylist() == [True] * 3
    assert json.loads(better.summary_path.read_text())["headline"] == better.summary["headline"]


def test_a_configs_choices_survive_json():
    config = build_recipe(_recipe(), "gated").rounds[0].steps["signal"]
    assert c.SignalConfig.model_validate(json.loads(config.model_dump_json())) == config
