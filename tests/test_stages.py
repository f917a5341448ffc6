import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest
import torch
from tiny import TINY, context, folder_digest, save_policy, write_prompts, write_rollouts

from erpd_hub.config import (
    CELoss,
    Decoding,
    DistillConfig,
    ImportBase,
    MSELoss,
    ProbeConfig,
    RolloutConfig,
    ScoreConfig,
    SignalConfig,
    TeacherConfig,
    TransformersEngine,
    UnlearnedConfig,
)
from erpd_hub.distances import measure
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.logprobs import response_logprobs
from erpd_hub.models import load_model, load_tokenizer
from erpd_hub.response_batch import make_batch
from erpd_hub.samples import read_rows
from erpd_hub.stages import base, distill, probe, rollout, score, signal, teacher, unlearned
from erpd_hub.stages.probe import ratio_mean
from erpd_hub.training.warm_start import WarmStart

CE = CELoss(type="ce", beta=1.0)


@pytest.fixture
def parts(tmp_path) -> dict[str, Path]:
    """A policy, another one, rollouts and the log-probs of both policies on them."""
    folders = {"policy": save_policy(tmp_path / "policy"), "other": save_policy(tmp_path / "other", seed=1)}
    folders["rollouts"] = write_rollouts(tmp_path / "rollouts")
    for name in ("policy", "other"):
        folders[f"{name}-logprobs"] = tmp_path / f"{name}-logprobs"
        score_into(folders[f"{name}-logprobs"], folders["rollouts"], folders[name])
    return folders


def score_into(out: Path, rollouts: Path, checkpoint: Path, **changes) -> dict:
    config = ScoreConfig(rollouts="rollouts", checkpoint="policy", **({"micro_batch_tokens": 200} | changes))
    return score.run(config, out, context=context(out), rollouts=rollouts, checkpoint=checkpoint).metrics


def teach(out: Path, parts: dict[str, Path], loss=CE, **changes):
    config = TeacherConfig(rollouts="r", loss=loss, **({"learning_rate": 1e-3, "steps": 2} | changes))
    reference = parts["policy-logprobs"] if loss.type == "ce" else None
    return teacher.run(
        config, out, context=context(out), rollouts=parts["rollouts"], init=parts["policy"], reference=reference
    )


def make_signal(out: Path, parts: dict[str, Path], numerator: str, denominator: str | None):
    config = SignalConfig(rollouts="r", numerator="teacher", denominator="policy" if denominator else "none")
    return signal.run(
        config, out, context=context(out), rollouts=parts["rollouts"], old=parts["policy-logprobs"],
        numerator=parts[numerator], denominator=denominator and parts[denominator],
    )  # fmt: skip


def test_warm_start_resumes_to_the_same_bytes(tmp_path, monkeypatch) -> None:
    config = TINY.model_copy(
        update={"batch_size": 8, "target_accuracy": 0.0, "first_check": 4, "decay_steps": 3, "checkpoint_every": 2}
    )
    whole = base.run(config, tmp_path / "whole", context=context(tmp_path / "a"))
    assert whole.metrics["steps"] == 7
    step = WarmStart._train_step

    def killed(self: WarmStart) -> None:
        if self.step == 5:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(WarmStart, "_train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        base.run(config, tmp_path / "again", context=context(tmp_path / "b"))
    monkeypatch.setattr(WarmStart, "_train_step", step)
    assert base.run(config, tmp_path / "again", context=context(tmp_path / "b")) == whole
    assert folder_digest(tmp_path / "whole") == folder_digest(tmp_path / "again")


def test_warm_start_that_does_not_get_there_is_refused(tmp_path) -> None:
    config = TINY.model_copy(
        update={"batch_size": 4, "target_accuracy": 1.0, "first_check": 1, "check_every": 1, "max_steps": 2}
    )
    with pytest.raises(StageError, match=r"accuracy of 1.0 within 2 steps"):
        base.run(config, tmp_path / "out", context=context(tmp_path))


def test_import_brings_a_policy_in(tmp_path) -> None:
    source = save_policy(tmp_path / "source")
    config = ImportBase(type="import", source="./source")
    result = base.run(config, tmp_path / "out", context=context(tmp_path), source=source)
    assert result.metrics["context_length"] == 512
    assert folder_digest(source) == folder_digest(tmp_path / "out")


def test_rollout_then_score_agree_on_the_samples(tmp_path) -> None:
    policy, prompts = save_policy(tmp_path / "policy"), write_prompts(tmp_path / "prompts")
    config = RolloutConfig(
        prompts="p",
        k=3,
        limit=3,
        decoding=Decoding(max_new_tokens=16),
        engine=TransformersEngine(dtype="float32", batch_tokens=96),
    )
    out = tmp_path / "rollouts"
    metrics = rollout.run(config, out, context=context(tmp_path), prompts=prompts, policy=policy).metrics
    assert (metrics["prompts"], metrics["samples"], metrics["groups_all_wrong"]) == (3, 9, 3)
    assert (out / "format.json").read_bytes() == (prompts / "format.json").read_bytes()
    scored = score_into(tmp_path / "scored", out, policy)
    assert scored["sampler_difference_max"] < 1e-4
    again = score_into(tmp_path / "scored", out, policy)
    assert again == scored


def test_score_keeps_the_rollouts_rows_and_order(parts) -> None:
    model = load_model(parts["policy"])
    samples, scored = list(read_rows(parts["rollouts"])), list(read_rows(parts["policy-logprobs"]))
    assert [(s["problem_id"], s["k"]) for s in samples] == [(s["problem_id"], s["k"]) for s in scored]
    for sample, row in zip(samples[:4], scored[:4], strict=True):
        batch = make_batch([sample["prompt_ids"]], [sample["response_ids"]])
        expected = response_logprobs(model, batch, temperature=1.0).logprobs[0].tolist()
        assert row["logprobs"] == pytest.approx(expected, abs=1e-5)


def test_teacher_pulls_right_and_wrong_responses_apart(tmp_path, parts) -> None:
    result = teach(tmp_path / "out", parts, steps=20, save_steps=(5,))
    first, last = result.step_metrics[5], result.step_metrics[20]
    assert last["loss"] < first["loss"] < 0.694
    assert last["logprob_positive"] - last["logprob_negative"] > first["logprob_positive"] - first["logprob_negative"]
    assert result.metrics == last
    load_model(tmp_path / "out" / "step-5")


def test_a_signal_says_whether_it_blames_wrong_responses_where_they_go_wrong(tmp_path, parts) -> None:
    metrics = make_signal(tmp_path / "signal", parts, "other-logprobs", "policy-logprobs").metrics
    samples, rows = list(read_rows(parts["rollouts"])), list(read_rows(tmp_path / "signal"))
    lowest = []
    for sample, row in zip(samples, rows, strict=True):
        ids = sample["response_ids"]
        right = [s["response_ids"] for s in samples if s["problem_id"] == sample["problem_id"] and s["label"] == 1]
        for at in range(len(ids)) if right and sample["label"] == 0 else ():
            if not any(other[: at + 1] == ids[: at + 1] for other in right):
                lowest.append([row[name].index(min(row[name])) == at for name in ("signal", "old")])
                break
    shares = [fmean(found) for found in zip(*lowest, strict=True)]
    assert metrics["credit_responses"] == len(lowest) > 0
    assert [metrics["credit_at_departure"], metrics["credit_by_surprise"]] == pytest.approx(shares)


@pytest.mark.parametrize("label", [0, 1])
def test_teacher_refuses_outcomes_of_one_kind(tmp_path, parts, label: int) -> None:
    parts["rollouts"] = write_rollouts(tmp_path / "one", label=label)
    with pytest.raises(StageError, match=f"got {18 * label} right of 18 graded"):
        teach(tmp_path / "out", parts, MSELoss(type="mse"))


def test_log_probs_at_another_temperature_are_refused(tmp_path, parts) -> None:
    with pytest.raises(ArtifactError, match="use one temperature throughout"):
        teach(tmp_path / "out", parts, logprob_temperature=0.6)
    parts["warm"] = tmp_path / "warm"
    score_into(parts["warm"], parts["rollouts"], parts["other"], logprob_temperature=2.0)
    with pytest.raises(ArtifactError, match=r"numerator: expected logprob_temperature 1\.0 as in old, got 2\.0"):
        make_signal(tmp_path / "signal", parts, "warm", "policy-logprobs")


def test_log_probs_in_another_layout_are_refused_with_the_remedy(tmp_path, parts) -> None:
    parts["alone"] = tmp_path / "alone"
    score_into(parts["alone"], parts["rollouts"], parts["other"], layout="single")
    with pytest.raises(ArtifactError, match=r"expected layout padded .* got single; .*\(scoring.layout: single serves"):
        make_signal(tmp_path / "signal", parts, "alone", "policy-logprobs")


def test_log_probs_of_other_rollouts_are_refused(tmp_path, parts) -> None:
    parts["elsewhere"] = tmp_path / "elsewhere"
    score_into(parts["elsewhere"], write_rollouts(tmp_path / "others", label=1), parts["other"])
    with pytest.raises(ArtifactError, match=r"numerator: .* scored on other rollouts"):
        make_signal(tmp_path / "mixed", parts, "elsewhere", "policy-logprobs")
    make_signal(tmp_path / "signal", parts, "other-logprobs", None)
    parts["rollouts"] = tmp_path / "others"
    with pytest.raises(ArtifactError, match=r"denominator: .* scored on other rollouts"):
        make_signal(tmp_path / "mixed", parts, "elsewhere", "policy-logprobs")
    with pytest.raises(ArtifactError, match=r"signal: .* scored on other rollouts"):
        run_distill(tmp_path / "out", parts, signal=tmp_path / "signal")
    with pytest.raises(ArtifactError, match=r"old: .* scored on other rollouts"):
        run_distill(tmp_path / "out", parts, old=parts["policy-logprobs"])
    parts["rollouts"] = write_rollouts(tmp_path / "fewer", prompts=5)
    with pytest.raises(ArtifactError, match=r"reference: .* scored on other rollouts"):
        teach(tmp_path / "out", parts)


def test_log_probs_scored_unlike_the_policy_in_training_are_refused(tmp_path, parts) -> None:
    parts["policy-logprobs"] = tmp_path / "half"
    score_into(tmp_path / "half", parts["rollouts"], parts["policy"], dtype="bfloat16")
    make_signal(tmp_path / "signal", parts, "policy-logprobs", None)
    for given in ({"signal": tmp_path / "signal"}, {"old": tmp_path / "half"}):
        with pytest.raises(ArtifactError, match=r"float32 .*, got bfloat16: .*clip range; set scoring\.dtype"):
            run_distill(tmp_path / "out", parts, **given)
    with pytest.raises(ArtifactError, match=r"reference: .*got bfloat16"):
        teach(tmp_path / "out", parts)


def test_log_probs_of_other_attention_or_layout_are_refused_and_auto_takes_theirs(tmp_path, parts) -> None:
    score_into(tmp_path / "eager", parts["rollouts"], parts["policy"], attn_implementation="eager")
    with pytest.raises(
        ArtifactError, match=r"old: .* scored in sdpa .*, got eager: .*set scoring\.attn_implementation"
    ):
        run_distill(tmp_path / "out", parts, old=tmp_path / "eager")
    score_into(tmp_path / "alone", parts["rollouts"], parts["policy"], layout="single")
    with pytest.raises(ArtifactError, match=r"layout: expected single as in the log-probs, got padded"):
        run_distill(tmp_path / "out", parts, old=tmp_path / "alone", layout="padded")
    assert run_distill(tmp_path / "out", parts, old=tmp_path / "alone").metrics["layout"] == "single"


def test_log_probs_under_another_chat_template_are_refused(tmp_path, parts) -> None:
    tokenizer = load_tokenizer(parts["policy"])
    tokenizer.chat_template += " "
    tokenizer.save_pretrained(parts["policy"])
    with pytest.raises(ArtifactError, match=r"old: expected the chat template \w+ of init"):
        run_distill(tmp_path / "out", parts, old=parts["policy-logprobs"])


def test_log_probs_that_do_not_name_their_rollouts_are_refused(tmp_path, parts) -> None:
    path = parts["policy-logprobs"] / "score.json"
    fields = json.loads(path.read_text())
    del fields["rollouts_digest"]
    path.write_text(json.dumps(fields))
    with pytest.raises(ArtifactError, match=r"expected the fields .*'rollouts_digest'.*; make it again with `score`"):
        teach(tmp_path / "out", parts)


def test_unlearned_is_the_saved_step(tmp_path, parts) -> None:
    teach(tmp_path / "mse", parts, MSELoss(type="mse"), save_steps=(1,))
    step = tmp_path / "mse" / "step-1"
    (step / "README.md").write_text("the teacher's card")
    result = unlearned.run(
        UnlearnedConfig(teacher="mse@step-1"), tmp_path / "out", context=context(tmp_path), teacher=step
    )
    assert folder_digest(tmp_path / "out") == folder_digest(step, "README.md", "metrics.jsonl")
    assert result.metrics["step"] == 1
    with pytest.raises(ArtifactError, match="no weights"):
        unlearned.run(
            UnlearnedConfig(teacher="mse"), tmp_path / "no", context=context(tmp_path), teacher=tmp_path / "mse"
        )


def test_signal_is_the_difference_of_its_sides(tmp_path, parts) -> None:
    result = make_signal(tmp_path / "signal", parts, "other-logprobs", "policy-logprobs")
    rows = list(read_rows(tmp_path / "signal"))
    for row in rows:
        difference = torch.tensor(row["numerator"]) - torch.tensor(row["denominator"])
        assert row["signal"] == difference.tolist()
        assert row["old"] == row["denominator"]
    assert result.metrics["tokens"] == sum(len(row["signal"]) for row in rows)
    make_signal(tmp_path / "half", parts, "other-logprobs", None)
    half = next(read_rows(tmp_path / "half"))
    assert half["denominator"] is None
    assert half["signal"] == half["numerator"]


def run_distill(out: Path, parts: dict[str, Path], **changes):
    given = {"signal": changes.pop("signal", None), "old": changes.pop("old", None)}
    fields = {"learning_rate": 1e-3, "steps": 2, "advantage": "signal" if given["signal"] else "outcome"}
    config = DistillConfig(rollouts="r", signal="signal" if given["signal"] else None, **(fields | changes))
    return distill.run(config, out, context=context(out), rollouts=parts["rollouts"], init=parts["policy"], **given)


def test_equal_numerator_and_denominator_teach_nothing_and_whitening_them_is_refused(tmp_path, parts) -> None:
    make_signal(tmp_path / "signal", parts, "policy-logprobs", "policy-logprobs")
    for whiten in ("dataset", "step"):
        with pytest.raises(StageError, match="signal: expected one that varies by more than rounding"):
            run_distill(tmp_path / whiten, parts, signal=tmp_path / "signal", whiten=whiten)
    run_distill(tmp_path / "out", parts, signal=tmp_path / "signal", whiten="none")
    before, after = (load_model(folder).state_dict() for folder in (parts["policy"], tmp_path / "out" / "step-2"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_student_records_its_whitening_and_what_the_mask_removed(tmp_path, parts) -> None:
    make_signal(tmp_path / "signal", parts, "other-logprobs", "policy-logprobs")
    result = run_distill(tmp_path / "out", parts, signal=tmp_path / "signal", keep_on_right="negative")
    rows = list(read_rows(tmp_path / "signal"))
    raw = torch.cat([torch.tensor(row["signal"]) for row in rows])
    right = torch.cat([torch.full((len(row["signal"]),), row["label"] == 1) for row in rows])
    kept = torch.where(right, raw.clamp(max=0.0), raw).double()
    assert result.metrics["whitening_shift"] == pytest.approx(kept.mean().item())
    assert result.metrics["whitening_scale"] == pytest.approx(1 / kept.std().item(), rel=1e-5)
    assert result.metrics["share_removed"] == pytest.approx(((kept == 0) & (raw != 0)).double().mean().item())
    assert result.step_metrics[2] == result.metrics and 0 < result.metrics["share_removed"] < 0.5


def test_student_moves_towards_the_numerator(tmp_path, parts) -> None:
    make_signal(tmp_path / "signal", parts, "other-logprobs", "policy-logprobs")
    result = run_distill(tmp_path / "out", parts, signal=tmp_path / "signal", steps=8, clip_high=10.0, clip_low=1.0)
    assert result.step_metrics[8]["loss"] < 0
    assert result.metrics["kl_old_to_student_k3"] > 0


def test_outcome_control_raises_right_over_wrong(tmp_path, parts) -> None:
    result = run_distill(
        tmp_path / "out", parts, old=parts["policy-logprobs"], steps=12, kl_weight=0.1, entropy_weight=0.01
    )
    lines = (tmp_path / "out" / "dynamics.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), result.metrics
    assert last["logprob_positive"] - last["logprob_negative"] > first["logprob_positive"] - first["logprob_negative"]
    assert first["kl_old_to_student_k3"] == pytest.approx(0, abs=1e-8)


def test_outcome_control_refuses_prompts_of_one_outcome(tmp_path, parts) -> None:
    parts["rollouts"] = write_rollouts(tmp_path / "one", label=1)
    score_into(tmp_path / "old", parts["rollouts"], parts["policy"])
    with pytest.raises(StageError, match="got 6 all right, 0 all wrong and 0 mixed of 6 prompts"):
        run_distill(tmp_path / "out", parts, old=tmp_path / "old")


def test_probe_measures_distance_from_base_and_policy(tmp_path, parts) -> None:
    prompts = write_prompts(tmp_path / "prompts")
    config = ProbeConfig(checkpoints=("base",), prompts="p", num_prompts=3, k=4, max_new_tokens=20)
    metrics = probe.run(
        config, tmp_path / "out", context=context(tmp_path), checkpoints=(parts["policy"],), policy=parts["policy"],
        base=parts["other"], prompts=prompts,
    ).metrics  # fmt: skip
    assert metrics["kl_checkpoint_to_policy"] == metrics["kl_checkpoint_to_policy_k3"] == 0
    assert metrics["kl_checkpoint_to_base"] > 0
    assert 0 < metrics["kl_checkpoint_to_base_stderr"] < metrics["kl_checkpoint_to_base"]
    assert metrics["entropy"] > 1
    assert (metrics["prompts"], metrics["samples"]) == (3, 12)
    assert json.loads((tmp_path / "out" / "probe.json").read_text()) == {"format": "erpd-hub/probe/v1", **metrics}


def test_a_probe_of_models_that_fit_one_at_a_time_has_the_same_estimates_and_no_exact_kl(tmp_path, parts) -> None:
    rows = [
        {"problem_id": f"p{index % 2}", "prompt_ids": [2, 5 + index, 3], "response_ids": [5, 6, 7, 1][index:]}
        for index in range(3)
    ]
    config = ProbeConfig(checkpoints=("base",), prompts="p", micro_batch_tokens=16)
    others = {"base": parts["other"], "policy": parts["policy"]}
    both, apart = (
        probe.describe_distances(
            measure(rows, parts["policy"], others.values(), config, together=together), others, exact=together
        )
        for together in (True, False)
    )
    assert "no exact KL" in apart.pop("warning")
    assert apart["kl_checkpoint_to_base"] is None is apart["kl_checkpoint_to_base_by_sequence_stderr"]
    assert apart.keys() == both.keys()
    assert both["kl_checkpoint_to_base"] > 0 and both["kl_checkpoint_to_policy_k3"] == 0
    estimates = [name for name in both if "kl_checkpoint" not in name or "_k1" in name or "_k3" in name]
    assert len(estimates) == 4 + 2 * 8
    assert {name: apart[name] for name in estimates} == pytest.approx({name: both[name] for name in estimates})


def test_a_probe_checks_the_head_of_its_models(tmp_path, parts) -> None:
    """A family that does to its logits what nobody here knows: the KL would be of other policies."""
    odd = tmp_path / "odd"
    shutil.copytree(parts["policy"], odd)
    settings = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(settings | {"logit_scale": 3.0}))  # Llama itself does not scale
    row = {"problem_id": "p", "prompt_ids": [2, 5, 3], "response_ids": [5, 1]}
    config = ProbeConfig(checkpoints=("base",), prompts="p")
    with pytest.raises(ConfigError, match="expected log-probs of the model's own logits"):
        measure([row], parts["policy"], [odd], config, together=True)


def test_clustered_error_is_that_of_independent_means_for_equal_clusters() -> None:
    sums = {str(i): (float(i) * 5, 5.0) for i in range(10)}
    expected = torch.arange(10.0).std() / 10**0.5
    assert ratio_mean(sums) == pytest.approx((4.5, expected.item()))
    assert ratio_mean({"one": (3.0, 2.0)}).value == 1.5
