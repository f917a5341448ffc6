"""Which early checkpoint is the unlearned one: the rule on hand-made curves, the stage on candidates of two runs."""

import json
from pathlib import Path

import pytest
from tiny import context, folder_digest, save_policy, write_rollouts

from erpd_hub.config import TeacherConfig, UnlearnedConfig
from erpd_hub.errors import ArtifactError
from erpd_hub.picker import Choice, Curve, Point, pick, read_curve
from erpd_hub.stages import teacher, unlearned

FALL_AND_RETURN = [1.0, 0.99, 0.95, 0.9, 0.7, 0.5, 0.3, 0.4, 0.6, 0.8]
"""Positives' probability seen before updates 1, 2, ...; so line N+1 is what N updates have made of it."""


def curve(positives: list[float]) -> Curve:
    return tuple(Point(step, p, p / 2, p - 1, p - 2) for step, p in enumerate(positives, 1))


def choose(steps: list[int], positives: list[float] = FALL_AND_RETURN, **bounds: float) -> Choice:
    """The choice among steps of one run, each with the dynamics up to itself except the last, which has all."""
    whole = curve(positives)
    curves = [*(whole[:step] for step in steps[:-1]), whole]
    return pick(curves, steps, ["run"] * len(curves), **({"min_fall": 0.03, "max_fall": 0.5} | bounds))


def verdicts(choice: Choice) -> list[str]:
    return [depth.verdict for depth in choice.depths]


def test_the_least_unlearned_of_those_that_clearly_fell() -> None:
    choice = choose([1, 2, 3, 5, 6])
    assert choice.index == 1
    assert verdicts(choice) == ["too shallow", "picked", "clear", "clear", "destroyed"]
    assert [depth.fall for depth in choice.depths] == pytest.approx([0.01, 0.05, 0.1, 0.5, 0.7])
    assert choice.reason == (
        "candidate 2 (step 2) is the least unlearned of the 3 of 5 candidates whose positives have clearly fallen: "
        "their probability is down by 5.0% (at least 3.0%, at most 50.0%)"
    )
    assert choose([1, 2, 3, 5, 6], min_fall=0.08).index == 2


def test_a_step_is_judged_by_the_batch_after_it_where_a_longer_candidate_has_it() -> None:
    alone = pick([curve(FALL_AND_RETURN[:3])], [3], ["run"], min_fall=0.03, max_fall=0.5)
    assert alone.depths[0].fall == pytest.approx(0.05)
    assert alone.depths[0].updates_seen == 2
    assert "seen before their last update, and so behind the others: candidate 1 (step 3)" in alone.reason
    whole = choose([3, 9]).depths[0]
    assert whole.fall == pytest.approx(0.1) and whole.updates_seen == 3


def test_a_last_step_that_looks_shallower_than_it_is_yields_to_one_seen_whole() -> None:
    last, whole = curve([1.0, 0.96, 0.95]), curve([1.0, 0.97, 0.94, 0.9])
    choice = pick([last, whole], [3, 2], ["last", "whole"], min_fall=0.03, max_fall=0.5)
    assert verdicts(choice) == ["clear", "picked"]


def test_a_recovering_checkpoint_is_not_unlearned() -> None:
    choice = choose([8, 4])
    assert verdicts(choice) == ["recovering", "picked"]
    noisy = choose([3, 5], [1.0, 0.95, 0.88, 0.9, 0.91, 0.9])
    assert verdicts(noisy) == ["picked", "clear"]  # a sixth of the loss regained may be the difference of two batches


@pytest.mark.parametrize(
    ("steps", "bounds", "picked", "advice"),
    [
        ([5, 6], {"max_fall": 0.2}, 5, "save earlier steps or lower the learning rate"),
        ([1, 2], {"min_fall": 0.1}, 2, "save later steps or raise the learning rate"),
        ([8, 9], {}, 8, "save later steps"),
    ],
)
def test_without_a_fit_candidate_the_nearest_one_and_what_to_do(steps, bounds, picked, advice) -> None:
    choice = choose(steps, **bounds)
    assert steps[choice.index] == picked
    assert advice in choice.reason


def test_runs_at_other_learning_rates_are_compared_by_depth_and_not_by_steps() -> None:
    slow, fast = curve([1.0, 0.999, 0.998]), curve([1.0, 0.93, 0.6])
    medium = curve([1.0, 0.99, 0.96])
    choice = pick([slow, fast, medium], [3, 3, 3], ["slow", "fast", "medium"], min_fall=0.03, max_fall=0.5)
    assert choice.index == 2
    assert verdicts(choice) == ["too shallow", "clear", "picked"]


def test_runs_that_begin_alike_are_not_taken_for_one_another() -> None:
    """Before its first update every run from one policy sees the same."""
    mild, heavy = curve([1.0]), curve([1.0, 0.6, 0.5])
    choice = pick([mild, heavy], [1, 2], ["mild", "heavy"], min_fall=0.03, max_fall=0.5)
    assert choice.depths[0].fall == 0 and choice.index == 1


def test_steps_without_both_outcomes_are_left_out() -> None:
    whole = {"probability_positive": 0.9, "probability_negative": 0.8, "logprob_positive": -0.1, "logprob_negative": -1}
    wrong_only = {"probability_negative": 0.8, "logprob_negative": -1.0}
    assert read_curve([{"step": 1, **wrong_only}, {"step": 2, **whole}]) == (Point(2, 0.9, 0.8, -0.1, -1.0),)
    with pytest.raises(KeyError):
        read_curve([{"step": 1, "logprob_positive": -0.1}])


def test_a_step_is_judged_by_the_nearest_batch_that_had_both_outcomes() -> None:
    gap = tuple(point for point in curve(FALL_AND_RETURN) if point.step not in (4, 5))
    choice = pick([gap] * 3, [3, 4, 5], ["run"] * 3, min_fall=0.03, max_fall=0.5)
    assert [depth.updates_seen for depth in choice.depths] == [2, 5, 5]
    assert "seen before their last update, and so behind the others: candidate 1 (step 3)" in choice.reason
    assert choice.reason.endswith("seen after more updates than it has had: candidate 2 (step 4) after 5 (take more "
                                  "prompts a step)")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """MSE runs of one policy, which can do the task, at two learning rates, with their steps 1 and 3."""
    root = tmp_path_factory.mktemp("runs")
    rollouts, policy = write_rollouts(root / "rollouts"), save_policy(root / "policy")

    def train(name: str, init: Path, **fields) -> None:
        config = TeacherConfig(rollouts="r", **fields)
        teacher.run(config, root / name, context=context(root / f"{name}-work"), rollouts=rollouts, init=init)

    train("able", policy, loss={"type": "sft"}, learning_rate=3e-2, steps=40)
    for name, rate in (("slow", 1e-7), ("fast", 1e-2)):
        fields = {"loss": {"type": "mse"}, "learning_rate": rate, "steps": 3, "save_steps": (1,)}
        train(name, root / "able" / "step-40", **fields)
    return {f"{name}@{step}": root / name / f"step-{step}" for name in ("slow", "fast") for step in (1, 3)}


def run_stage(out: Path, *folders: Path, **bounds: float):
    config = UnlearnedConfig(candidates=[f"m@step-{n}" for n, _ in enumerate(folders, 1)], **bounds)
    return unlearned.run(config, out, context=context(out), candidates=folders)


def test_the_stage_publishes_the_picked_step_with_its_reason(tmp_path, runs) -> None:
    candidates = [runs[name] for name in ("slow@1", "slow@3", "fast@1", "fast@3")]
    result = run_stage(tmp_path / "out", *candidates, max_fall=1.0)
    report = json.loads((tmp_path / "out" / "unlearned.json").read_text())
    picked = candidates[report["picked"] - 1]
    assert picked in candidates[2:]
    assert [entry["verdict"] for entry in report["candidates"]][:2] == ["too shallow", "too shallow"]
    assert folder_digest(tmp_path / "out", "unlearned.json") == folder_digest(picked, "metrics.jsonl", "README.md")
    assert report.pop("format") == "erpd-hub/unlearned/v1"
    assert result.metrics["pick"] == report
    assert result.metrics["winner"] == report["picked"] - 1
    assert result.metrics["step"] == report["candidates"][report["picked"] - 1]["step"]


def test_candidates_that_cannot_be_compared_are_refused(tmp_path, runs) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for path in runs["slow@1"].iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    (old / "dynamics.jsonl").write_text('{"step": 1, "logprob_positive": -0.1}\n')
    with pytest.raises(ArtifactError, match=r"old: expected dynamics\.jsonl with the probabilities"):
        run_stage(tmp_path / "a", runs["fast@1"], old)
    with pytest.raises(ArtifactError, match="no weights"):
        run_stage(tmp_path / "b", runs["fast@1"], tmp_path)


def test_either_a_step_or_candidates() -> None:
    for fields, got in (({}, "neither"), ({"teacher": "m@step-1", "candidates": ["m@step-2"]}, "both")):
        with pytest.raises(ValueError, match=f"a saved step, or candidates to pick it from, got {got}"):
            UnlearnedConfig(**fields)
    with pytest.raises(ValueError, match=r"min_fall: expected at most max_fall 0\.1, got 0\.2"):
        UnlearnedConfig(teacher="m@step-1", min_fall=0.2, max_fall=0.1)
