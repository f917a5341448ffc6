"""`extend_to`: two nodes of a plan, two artifacts, and only the samples that ended by length drawn on."""

import json

import pytest
from conftest import cli
from tiny import context, save_policy, write_prompts

from erpd_hub.config import Decoding, EvaluateConfig, RolloutConfig, TransformersEngine
from erpd_hub.errors import ConfigError
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import read_rows
from erpd_hub.stages import evaluate, rollout

STEPS = {
    "base": {"type": "tiny"},
    "prompts": {"type": "generator", "generator": "addition", "decontaminate": []},
    "rollouts": {"stage": "rollout", "prompts": "prompts", "decoding": {"max_new_tokens": 8}},
    "teacher": {"stage": "teacher", "rollouts": "rollouts", "loss": {"type": "ce"}, "steps": 4},
    "evaluate": {"checkpoints": ["teacher"], "benchmarks": ["addition"]},
}
ENGINE = TransformersEngine(dtype="float32", batch_tokens=120)


def plan_of(**changes):
    steps = {name: {**step, **changes.get(name, {})} for name, step in STEPS.items()}
    return make_plan(build_recipe({"run": "t", "steps": steps}, "test"))


def test_an_extension_is_a_node_of_its_own_and_what_the_step_then_means():
    plain, plan = plan_of(), plan_of(rollouts={"extend_to": 32}, evaluate={"extend_to": 128})
    for name in ("r1/rollouts", "r1/evaluate/teacher/addition"):
        before, now = plain.node(name), plan.node(name)
        assert (now.identity, now.repo_id, now.folder) == (before.identity, before.repo_id, before.folder)
    rollouts, details = plan.node("r1/rollouts-to-32"), plan.node("r1/evaluate/teacher/addition-to-128")
    assert {edge.role: edge.source for edge in rollouts.inputs} == {
        "prompts": "r1/prompts", "policy": "r1/base", "extended": "r1/rollouts"
    }  # fmt: skip
    assert rollouts.repo_id == "local/t-r1-rollouts-to-32"
    assert (details.repo_id, details.folder) == ("local/t-details", "teacher/addition-to-128")
    users = {node.name for node in plan.nodes if any(edge.source == "r1/rollouts-to-32" for edge in node.inputs)}
    assert users == {"r1/teacher", "r1/score-base"}
    selected, _ = plan.select(until="rollouts")
    assert [node.name for node in selected][-2:] == ["r1/rollouts", "r1/rollouts-to-32"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouts": {"extend_to": 8}}, r"rollouts: extend_to: expected more than max_new_tokens 8, got 8"),
        ({"evaluate": {"extend_to": 64}}, r"r1/evaluate\.extend_to: expected more than max_new_tokens 64, got 64"),
    ],
)
def test_an_extension_that_is_no_longer_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(**changes)


def test_rollouts_are_continued_and_say_so(tmp_path):
    inputs = {"prompts": write_prompts(tmp_path / "prompts"), "policy": save_policy(tmp_path / "policy")}
    config = RolloutConfig(prompts="p", k=3, decoding=Decoding(max_new_tokens=8), engine=ENGINE)
    short = rollout.run(config, tmp_path / "short", context=context(tmp_path / "a"), **inputs).metrics
    longer = config.model_copy(update={"extend_to": 24})
    found = rollout.run(
        longer, tmp_path / "long", context=context(tmp_path / "b"), extended=tmp_path / "short", **inputs
    ).metrics
    assert found["continued"] == round(short["truncated"] * short["samples"]) > 0
    assert found["truncated"] < short["truncated"]
    assert "continued" not in short
    drawn = json.loads((tmp_path / "long" / "rollout.json").read_text())
    assert (drawn["extend_to"], drawn["decoding"]["max_new_tokens"]) == (24, 8)
    assert drawn["engine"]["dtype"] == "float32"


def test_continued_answers_are_graded_again(tmp_path):
    config = EvaluateConfig(
        checkpoints=("base",), benchmarks=("addition-1digit",), k=2, limit=6, decoding=Decoding(max_new_tokens=6),
        engine=ENGINE,
    )  # fmt: skip
    policy = (save_policy(tmp_path / "policy"),)
    evaluate.run(config, tmp_path / "short", context=context(tmp_path / "a"), checkpoints=policy)
    longer = config.model_copy(update={"extend_to": 30})
    metrics = evaluate.run(
        longer, tmp_path / "long", context=context(tmp_path / "b"), checkpoints=policy, extended=tmp_path / "short"
    ).metrics
    before = {(r["problem_id"], r["k"]): r for r in read_rows(tmp_path / "short")}
    ended = [row for row in read_rows(tmp_path / "long") if row["finish_reason"] == "stop"]
    continued = [row for row in ended if before[row["problem_id"], row["k"]]["verdict"] == "truncated"]
    assert continued
    assert all(row["verdict"] in ("no_answer", "wrong", "correct") for row in continued)
    assert metrics["continued"] == sum(row["finish_reason"] == "length" for row in before.values())


def test_a_command_extends_what_is_there(micro):
    """The same rollouts with --extend-to: the artifact from before is reused, and a new one continues it."""
    words = ("rollout", "--name", "ext", "--policy", "local/micro-r1-base", "prompts=local/micro-r1-prompts", "k=2")
    words += ("decoding.max_new_tokens=6", "engine.dtype=float32", "--json")
    short = json.loads(cli(*words, home=micro.home).stdout)["artifacts"]
    both = json.loads(cli(*words, "--extend-to", "40", home=micro.home).stdout)["artifacts"]
    assert [(item["repo"], item["reused"]) for item in both] == [
        ("local/ext-r1-rollout", True),
        ("local/ext-r1-rollout-to-40", False),
    ]
    assert both[0]["fingerprint"] == short[0]["fingerprint"]
