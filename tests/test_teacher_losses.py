"""Every teacher loss through its stage, and the controls of the second one, on rollouts of a tiny policy."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
import yaml
from tiny import context, save_policy, write_rollouts
from torch import Tensor

from erpd_hub import plugins
from erpd_hub.config import DistillConfig, ScoreConfig, SignalConfig, TeacherConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.fields import identity
from erpd_hub.models import load_model
from erpd_hub.samples import SAMPLE_SCHEMA, read_rows, shard_path, write_rows
from erpd_hub.stages import distill, score, signal, teacher
from erpd_hub.training.data import prompt_schedule, read_trajectories

LOSSES = ["ce", "mse", "sft", "grpo", "dr_grpo", "sapo", "gspo", "cispo", "vespo", "topr"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    """Two policies, rollouts, their log-probs, and the signal of the second over the first."""
    root = tmp_path_factory.mktemp("parts")
    found = {"policy": save_policy(root / "policy"), "other": save_policy(root / "other", seed=1)}
    found["rollouts"] = write_rollouts(root / "rollouts")
    for name in ("policy", "other"):
        out = root / f"{name}-logprobs"
        config = ScoreConfig(rollouts="r", checkpoint="policy", micro_batch_tokens=200)
        score.run(config, out, context=context(out), rollouts=found["rollouts"], checkpoint=found[name])
        found[f"{name}-logprobs"] = out
    for name, given in (("signal", found["policy-logprobs"]), ("no-numerator", None)):
        sides = {"numerator": found["other-logprobs"], "denominator": given}
        if given is None:
            sides = {"numerator": None, "denominator": found["other-logprobs"]}
        config = SignalConfig(
            rollouts="r", numerator="none" if given is None else "teacher", denominator="teacher" if given is None
            else "policy",
        )  # fmt: skip
        signal.run(
            config, root / name, context=context(root / name), rollouts=found["rollouts"],
            old=found["policy-logprobs"], **sides,
        )  # fmt: skip
        found[name] = root / name
    return found


def teach(out: Path, parts: dict[str, Path], loss: dict, **changes):
    config = TeacherConfig(rollouts="r", loss=loss, **({"learning_rate": 1e-3, "steps": 12} | changes))
    given = {role: parts["policy-logprobs"] for role in ("reference", "old") if role in config.loss.required}
    return teacher.run(config, out, context=context(out), rollouts=parts["rollouts"], init=parts["policy"], **given)


def run_distill(out: Path, parts: dict[str, Path], signal_name: str = "signal", init: str = "policy", **changes):
    fields = {"learning_rate": 1e-3, "steps": 4, "signal": "signal"} | changes
    given = {"anchor": parts["policy"]} if fields.get("kl_estimator") == "exact" else {}
    return distill.run(
        DistillConfig(rollouts="r", **fields), out, context=context(out), rollouts=parts["rollouts"],
        init=parts[init], signal=parts[signal_name], **given,
    )  # fmt: skip


def dynamics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "dynamics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", LOSSES)
def test_teacher_pulls_right_and_wrong_responses_apart(tmp_path, parts, loss: str) -> None:
    teach(tmp_path, parts, {"type": loss})
    first, last = dynamics(tmp_path)[0], dynamics(tmp_path)[-1]
    if loss == "sft":  # it sees right responses alone
        assert "logprob_negative" not in first and last["logprob_positive"] > first["logprob_positive"]
        return
    gaps = [line["logprob_positive"] - line["logprob_negative"] for line in (first, last)]
    assert gaps[1] > gaps[0]
    start = {"ce": "kl_reference_to_teacher_k3", "mse": None}.get(loss, "kl_old_to_teacher_k3")
    assert start is None or (first[start] == pytest.approx(0, abs=1e-6) and last[start] > 0)


@pytest.mark.parametrize(("kind", "loss", "seen"), [
    ("masked", "mse", None), ("masked", "sft", 9), ("masked", "grpo", 9), ("dropped", "grpo", None),
    ("negative", "mse", 18), ("all right", "sft", 9), ("all right", "mse", None),
])  # fmt: skip
def test_both_outcomes_are_asked_for_where_the_loss_tells_them_apart(
    tmp_path, parts, monkeypatch, kind: str, loss: str, seen: int | None
) -> None:
    """Rollouts whose wrong responses all ended by length, nine of eighteen, or without these."""
    whole = list(read_trajectories(parts["rollouts"]))
    marked = [replace(row, label=place % 2, truncated=place % 2 == 0) for place, row in enumerate(whole)]
    given = [row for row in marked if row.label] if kind == "all right" else marked
    monkeypatch.setattr("erpd_hub.training.data.read_trajectories", lambda _: given)
    trained: list = []
    monkeypatch.setattr(teacher, "train_policy", lambda *_, trajectories, **__: trained.extend(trajectories))
    truncated = "negative" if kind == "all right" else kind
    if seen is None:
        with pytest.raises(StageError, match="expected right and wrong responses, got 9 right of 9 graded"):
            teach(tmp_path, parts, {"type": loss}, truncated=truncated)
        return
    teach(tmp_path, parts, {"type": loss}, truncated=truncated)
    assert len(trained) == seen


def test_a_loss_without_what_it_needs_is_refused(tmp_path, parts) -> None:
    config = TeacherConfig(rollouts="r", loss={"type": "sapo"}, steps=1)
    with pytest.raises(ConfigError, match="old: expected log-probs of a checkpoint for the sapo loss, got none"):
        teacher.run(config, tmp_path, context=context(tmp_path), rollouts=parts["rollouts"], init=parts["policy"])
    with pytest.raises(ValueError, match="critic: expected a critic step with the ppo loss"):
        TeacherConfig(rollouts="r", loss={"type": "ppo"}, steps=1)


def test_a_loss_of_ones_own(tmp_path, parts, monkeypatch) -> None:
    (tmp_path / "wide_losses.py").write_text(
        "from erpd_hub.losses import grpo_loss\n\n\ndef wide(batch, *, width):\n"
        "    return grpo_loss(batch, clip_low=width, clip_high=width)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loss = {"type": "custom", "function": "wide_losses:wide", "arguments": {"width": 0.2}, "inputs": ["old"],
            "advantages": "group"}  # fmt: skip
    teach(tmp_path / "own", parts, loss, steps=2)
    teach(tmp_path / "grpo", parts, {"type": "grpo", "clip_high": 0.2}, steps=2)
    assert dynamics(tmp_path / "own") == dynamics(tmp_path / "grpo")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("batch.logprobs.sum()", "bad_losses:loss: expected a LossOutput, got Tensor; return LossOutput"),
        ("LossOutput(batch.logprobs.sum(), 'tokens', {})", "reduction: expected one of token, .*, got 'tokens'"),
        ("LossOutput(batch.logprobs, 'token', {})", r"sum: expected a tensor of one number, got shape \(18, "),
        ("LossOutput(batch.logprobs.sum().detach(), 'token', {})", "sum: expected a gradient, got none"),
        ("LossOutput(batch.logprobs.sum() * float('nan'), 'token', {})", "at step 1 on .* nothing has been trained"),
    ],
)
def test_a_loss_of_ones_own_that_is_none_is_refused(tmp_path, parts, monkeypatch, returned, message) -> None:
    source = f"from erpd_hub.losses import LossOutput\n\n\ndef loss(batch):\n    return {returned}\n"
    (tmp_path / "bad_losses.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.source_hash.cache_clear()
    sys.modules.pop("bad_losses", None)
    with pytest.raises(StageError, match=message):
        teach(tmp_path / "own", parts, {"type": "custom", "function": "bad_losses:loss"}, steps=1)


def test_kl_penalty_holds_the_teacher_back(tmp_path, parts) -> None:
    moved = []
    for weight in (0.0, 5.0):
        teach(tmp_path / str(weight), parts, {"type": "ce", "beta": 1.0, "kl_weight": weight})
        before, after = (load_model(f).state_dict() for f in (parts["policy"], tmp_path / str(weight) / "step-12"))
        moved.append(sum(float((after[name] - before[name]).abs().sum()) for name in before))
    assert moved[1] < moved[0]


@pytest.mark.parametrize(("estimator", "correction"), [("k1", "ratio"), ("k2", "none"), ("k3", "none"), ("k3", "ratio"),
                                                       ("exact", "none")])  # fmt: skip
def test_student_under_each_kl_estimator(tmp_path, parts, estimator: str, correction: str) -> None:
    run_distill(tmp_path, parts, kl_weight=0.5, kl_estimator=estimator, kl_correction=correction, steps=3)
    first, _, last = dynamics(tmp_path)
    assert first["kl_penalty"] == pytest.approx(0, abs=1e-6)
    assert last["kl_penalty"] != 0


def test_a_correction_that_is_none_is_refused_and_the_default_is_no_part_of_the_identity() -> None:
    fields = {"rollouts": "r", "signal": "s", "steps": 1}
    assert "kl_correction" not in identity(DistillConfig(**fields))
    assert identity(DistillConfig(**fields, kl_correction="ratio"))["kl_correction"] == "ratio"
    for wrong in ({"kl_weight": 0.1, "kl_estimator": "k1"}, {"kl_estimator": "k2", "kl_correction": "ratio"}):
        with pytest.raises(ValueError, match="kl_"):
            DistillConfig(**fields, **wrong)


def test_kl_target_stops_before_the_update_that_would_follow(tmp_path, parts) -> None:
    plain = run_distill(tmp_path / "plain", parts, steps=8, save_steps=(2, 4))
    curve = [line["kl_old_to_student_k3"] for line in dynamics(tmp_path / "plain")]
    stopped = run_distill(tmp_path / "stopped", parts, steps=8, save_steps=(2, 4), kl_target=curve[3] * 0.999)
    assert dynamics(tmp_path / "stopped")[:3] == dynamics(tmp_path / "plain")[:3]
    assert len(dynamics(tmp_path / "stopped")) == 4
    assert stopped.metrics["stopped_after"] == 3 and stopped.step_metrics[4]["stopped_after"] == 3
    assert "stopped_after" not in stopped.step_metrics[2] and "stopped_after" not in plain.metrics
    weights = {step: load_model(tmp_path / "stopped" / f"step-{step}").state_dict() for step in (2, 4, 8)}
    other = load_model(tmp_path / "plain" / "step-2").state_dict()
    assert all(torch.equal(weights[2][name], other[name]) for name in other)
    assert all(torch.equal(weights[4][name], weights[8][name]) for name in other)
    again = run_distill(tmp_path / "stopped", parts, steps=8, save_steps=(2, 4), kl_target=curve[3] * 0.999)
    assert again == stopped


def test_kl_target_survives_a_kill(tmp_path, parts, monkeypatch) -> None:
    options = {"steps": 6, "kl_target": 1e-3, "checkpoint_every": 1}
    whole = run_distill(tmp_path / "whole", parts, **options)
    from erpd_hub.training.checkpoints import RunFiles

    save = RunFiles.save_step
    monkeypatch.setattr(RunFiles, "save_step", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_distill(tmp_path / "again", parts, **options)
    monkeypatch.setattr(RunFiles, "save_step", save)
    assert run_distill(tmp_path / "again", parts, **options) == whole
    assert whole.metrics["stopped_after"] < 6


def test_the_evolving_signal_starts_as_the_fixed_one_and_departs(tmp_path, parts) -> None:
    for kind in ("fixed", "evolving"):
        run_distill(tmp_path / kind, parts, denominator=kind)
    fixed, evolving = (dynamics(tmp_path / kind) for kind in ("fixed", "evolving"))
    assert fixed[0]["loss"] == pytest.approx(evolving[0]["loss"], rel=1e-4)
    assert fixed[1]["loss"] != evolving[1]["loss"]
    with pytest.raises(ArtifactError, match="expected a numerator for the evolving denominator"):
        run_distill(tmp_path / "no", parts, "no-numerator", denominator="evolving")


@dataclass(frozen=True)
class Tokens:
    """All response tokens of the rollouts, in float64, and those that a student sees first."""

    signal: Tensor
    moved: Tensor
    """log rho of a student that starts as the teacher, which is one side of the signal."""
    right: Tensor
    row: Tensor
    taken: Tensor
    """Whether the first step has the token."""

    @classmethod
    def of(cls, folder: Path, *, prompts_per_step: int) -> "Tokens":
        rows = list(read_rows(folder))
        prompts = list(dict.fromkeys(row["problem_id"] for row in rows))
        first = {prompts[index] for index in prompt_schedule(len(prompts), prompts_per_step, 1, seed=0)[0]}
        columns = [
            (signal, teacher - old, row["label"], at, row["problem_id"] in first)
            for at, row in enumerate(rows)
            for signal, teacher, old in zip(
                row["signal"], row["numerator"] or row["denominator"], row["old"], strict=True
            )
        ]
        signal, moved, right, row, taken = torch.tensor(columns, dtype=torch.float64).T
        return cls(signal, moved, right.bool(), row.long(), taken.bool())


def white(values: Tensor, among: Tensor | slice = slice(None)) -> Tensor:
    return (values - values[among].mean()) / values[among].std()


def clipped(rho: Tensor, a: Tensor, low: float = 0.2, high: float = 0.28) -> Tensor:
    return -torch.minimum(rho * a, rho.clamp(1 - low, 1 + high) * a)


ADVANTAGES = {
    "keep_on_right: negative": lambda r, t: white(torch.where(t.right, r.clamp(max=0), r)),
    "keep_on_right: positive": lambda r, t: white(torch.where(t.right, r.clamp(min=0), r)),
    "keep_on_wrong: negative": lambda r, t: white(torch.where(t.right, r, r.clamp(max=0))),
    "keep_on_wrong: positive": lambda r, t: white(torch.where(t.right, r, r.clamp(min=0))),
    "{keep_on_wrong: negative, whiten_order: before_mask}": lambda r, t: white(r) * (t.right | (r < 0)),
    "whiten: step": lambda r, t: white(r, t.taken),
    "whiten: none": lambda r, t: r,
    "shift_mean: false": lambda r, t: r / r.std(),
    "denominator: evolving": lambda r, t: (0 * r - r.mean()) / r.std(),
}
LOSSES_OF_TOKENS = {
    "{clip_low: 0.01, clip_high: 0.02}": lambda d, a: clipped(d.exp(), a, 0.01, 0.02),
    "dual_clip: 1.1": lambda d, a: torch.where(a < 0, clipped(d.exp(), a).clamp(max=-1.1 * a), clipped(d.exp(), a)),
    "{kl_weight: 0.5, kl_estimator: k2}": lambda d, a: clipped(d.exp(), a) + 0.5 * d**2 / 2,
    "kl_weight: 0.5": lambda d, a: clipped(d.exp(), a) + 0.5 * ((-d).exp() - 1 + d),
    "{kl_weight: 0.5, kl_correction: ratio}": lambda d, a: clipped(d.exp(), a) + 0.5 * (1 - d.exp() + d.exp() * d),
    "{kl_weight: 0.5, kl_estimator: k1, kl_correction: ratio}": lambda d, a: clipped(d.exp(), a) + 0.5 * d.exp() * d,
}
MEANS = {
    "reduction: sequence": lambda values, row: torch.stack([values[row == at].mean() for at in row.unique()]).mean(),
    "reduction: max_len": lambda values, row: values.sum() / (row.bincount().max() * len(row.unique())),
}


@pytest.mark.parametrize("said", [*ADVANTAGES, *LOSSES_OF_TOKENS, *MEANS])
def test_each_control_changes_the_step_as_its_formula_says(tmp_path, parts, said: str) -> None:
    def expected(said: str) -> float:
        advantages = ADVANTAGES.get(said, lambda r, t: white(r))(tokens.signal, tokens)
        loss = LOSSES_OF_TOKENS.get(said, lambda d, a: clipped(d.exp(), a))
        of_tokens = loss(tokens.moved, advantages)[tokens.taken]
        return float(MEANS.get(said, lambda values, row: values.mean())(of_tokens, tokens.row[tokens.taken]))

    # No token of the other signal has both a negative advantage and a ratio above one.
    signal_name = "no-numerator" if "dual_clip" in said else "signal"
    tokens = Tokens.of(parts[signal_name], prompts_per_step=3)
    controls = yaml.safe_load(said if said.startswith("{") else f"{{{said}}}")
    run_distill(tmp_path, parts, signal_name, init="other", steps=1, prompts_per_step=3, **controls)
    assert dynamics(tmp_path)[0]["loss"] == pytest.approx(expected(said), rel=1e-4)
    assert expected(said) != pytest.approx(expected("none of them"), rel=1e-3)


def test_exact_kl_and_entropy_enter_the_loss_by_their_weights(tmp_path, parts) -> None:
    terms = {"kl_weight": 0.5, "kl_estimator": "exact", "entropy_weight": 0.2}
    for name, options in (("plain", {}), ("terms", terms)):
        run_distill(tmp_path / name, parts, init="other", steps=1, prompts_per_step=3, **options)
    plain, line = (dynamics(tmp_path / name)[0] for name in ("plain", "terms"))
    assert line["kl_penalty"] > 0 and line["entropy"] > 0
    assert line["loss"] == pytest.approx(plain["loss"] + 0.5 * line["kl_penalty"] - 0.2 * line["entropy"], rel=1e-4)


def test_a_chain_keeps_the_rounds_policy_as_its_anchor(tmp_path, parts) -> None:
    run_distill(tmp_path / "first", parts)
    config = DistillConfig(rollouts="r", learning_rate=1e-3, steps=1, signal="signal", init="first")
    distill.run(
        config, tmp_path / "second", context=context(tmp_path / "second"), rollouts=parts["rollouts"],
        init=tmp_path / "first" / "step-4", signal=parts["signal"],
    )  # fmt: skip
    assert (
        dynamics(tmp_path / "second")[0]["kl_old_to_student_k3"]
        > dynamics(tmp_path / "first")[1]["kl_old_to_student_k3"]
    )


@pytest.fixture
def cut_short(tmp_path, parts) -> Path:
    """The rollouts with one wrong response of the first prompt ended by length, and their log-probs."""
    rows = list(read_rows(parts["rollouts"]))
    chosen = next(row for row in rows if row["label"] == 0)
    chosen |= {"finish_reason": "length", "verdict": "truncated"}
    write_rows(shard_path(tmp_path / "cut", 0), rows, SAMPLE_SCHEMA)
    config = ScoreConfig(rollouts="r", checkpoint="policy", micro_batch_tokens=200)
    out = tmp_path / "cut-logprobs"
    score.run(config, out, context=context(out), rollouts=tmp_path / "cut", checkpoint=parts["policy"])
    return tmp_path


def test_truncated_responses_are_trained_on_masked_or_dropped(cut_short, parts) -> None:
    found = {}
    for truncated in ("negative", "masked", "dropped"):
        config = TeacherConfig(rollouts="r", loss={"type": "grpo"}, steps=1, truncated=truncated)
        out = cut_short / truncated
        metrics = teacher.run(
            config, out, context=context(out), rollouts=cut_short / "cut", init=parts["policy"],
            old=cut_short / "cut-logprobs",
        ).metrics  # fmt: skip
        found[truncated] = (metrics["samples"], metrics["loss"])
    assert [samples for samples, _ in found.values()] == [18, 17, 17]
    assert found["masked"][1] != found["dropped"][1], "a dropped response is not in its prompt's mean either"


def two_prompts(out: Path, parts: dict[str, Path], *, right: set[int], cut: set[int]) -> dict[str, Path]:
    """The parts with two prompts of two responses: those that are right, and those that ended by length."""
    rows = [row for row in read_rows(parts["rollouts"]) if row["k"] < 2][:4]
    for at, row in enumerate(rows):
        row |= {"label": int(at in right), "finish_reason": "length" if at in cut else "stop"}
    write_rows(shard_path(out / "rollouts", 0), rows, SAMPLE_SCHEMA)
    score.run(ScoreConfig(rollouts="r", checkpoint="policy"), out / "logprobs", context=context(out),
              rollouts=out / "rollouts", checkpoint=parts["policy"])  # fmt: skip
    return {**parts, "rollouts": out / "rollouts", "policy-logprobs": out / "logprobs"}


def test_imitation_of_right_responses_that_are_all_masked_is_refused(tmp_path, parts) -> None:
    found = two_prompts(tmp_path, parts, right={0}, cut={0})
    with pytest.raises(StageError, match="expected right responses to imitate, got none of 3; draw"):
        teach(tmp_path / "sft", found, {"type": "sft"}, steps=1, truncated="masked")


@pytest.mark.parametrize(
    ("truncated", "right", "cut", "counts"),
    [
        ("dropped", {0, 2}, {0, 3}, "1 all right, 1 all wrong and 0 mixed of 2 prompts"),
        ("masked", {0}, {0, 1}, "0 all right, 1 all wrong and 0 mixed of 1 prompts"),
    ],
)
def test_prompts_are_counted_by_what_is_trained_on(tmp_path, parts, truncated, right, cut, counts) -> None:
    found = two_prompts(tmp_path, parts, right=right, cut=cut)
    with pytest.raises(StageError, match=counts):
        teach(tmp_path / "grpo", found, {"type": "grpo"}, steps=1, truncated=truncated)
    with pytest.raises(StageError, match=counts):
        distill.run(
            DistillConfig(rollouts="r", advantage="outcome", steps=1, truncated=truncated), tmp_path / "student",
            context=context(tmp_path), rollouts=found["rollouts"], init=parts["policy"], old=found["policy-logprobs"],
        )  # fmt: skip


def test_a_student_leaves_truncated_responses_out(cut_short, parts) -> None:
    everything = list(read_rows(cut_short / "cut"))
    ended = [row for row in everything if row["finish_reason"] == "stop"]
    for truncated, trained, compared in (
        ("negative", everything, everything), ("masked", ended, everything), ("dropped", ended, ended)
    ):  # fmt: skip
        config = DistillConfig(rollouts="r", advantage="outcome", steps=1, truncated=truncated, whiten="none")
        out = cut_short / f"student-{truncated}"
        result = distill.run(
            config, out, context=context(out), rollouts=cut_short / "cut", init=parts["policy"],
            old=cut_short / "cut-logprobs",
        )  # fmt: skip
        assert result.metrics["samples"] == len(trained)
        labels: dict[str, list[int]] = {}
        for row in compared:
            labels.setdefault(row["problem_id"], []).append(row["label"])
        centred = [(len(row["response_ids"]), row["label"] - fmean(labels[row["problem_id"]])) for row in trained]
        loss = -sum(length * value for length, value in centred) / sum(length for length, _ in centred)
        assert result.metrics["loss"] == pytest.approx(loss, rel=1e-4)
