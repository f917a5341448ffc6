"""The critic: its values, their gradient, its artifact, and PPO's advantages out of it, on a tiny policy's rollouts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import cli
from tiny import context, folder_digest, make_policy, save_policy, write_rollouts
from torch.nn.functional import mse_loss
from transformers import AutoModelForTokenClassification, OPTConfig, OPTForCausalLM

from erpd_hub.columns import flat_values
from erpd_hub.config import CriticConfig, PPOLoss, ScoreConfig, TeacherConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.losses import ValueBatch, summarise, value_loss
from erpd_hub.plan import make_plan
from erpd_hub.planning.bill_items import Clerk
from erpd_hub.planning.devices import DEVICES
from erpd_hub.planning.items import Setting
from erpd_hub.planning.shapes import KNOWN
from erpd_hub.recipe import build_recipe
from erpd_hub.response_batch import make_batch
from erpd_hub.samples import SAMPLE_SCHEMA, VALUE_SCHEMA, read_rows, shard_path, write_rows
from erpd_hub.stages import critic, score, teacher
from erpd_hub.training.batches import Denominators, share
from erpd_hub.training.checkpoints import RunFiles
from erpd_hub.training.data import read_columns, read_trajectories
from erpd_hub.training.step import forward_backward
from erpd_hub.training.values import VALUES, Valuer, value_batch
from erpd_hub.value_statistics import describe_values
from erpd_hub.values import install_value_forward, response_values, value_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    """A policy, rollouts, their old log-probs, and a critic of them."""
    root = tmp_path_factory.mktemp("parts")
    found = {"policy": save_policy(root / "policy"), "rollouts": write_rollouts(root / "rollouts")}
    config = ScoreConfig(rollouts="r", checkpoint="policy", noise_samples=0)
    score.run(
        config, root / "old", context=context(root / "old"), rollouts=found["rollouts"], checkpoint=found["policy"]
    )
    fit(root / "critic", found)
    return found | {"old": root / "old", "out": root / "critic", "critic": root / "critic" / "step-40"}


def fit(out: Path, parts: dict[str, Path], **changes):
    config = CriticConfig(rollouts="r", **({"learning_rate": 3e-3, "steps": 40, "prompts_per_step": 6} | changes))
    return critic.run(config, out, context=context(out), rollouts=parts["rollouts"], init=parts["policy"])


def small_critic(dtype=torch.float32, seed: int = 0):
    """A critic whose head is not zero."""
    model = value_model(make_policy()[0].to(dtype), start=0.3)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(seed))
    install_value_forward(model)
    return model


def naive_values(model, prompt, response) -> torch.Tensor:
    """(T,) logits of transformers' own forward at the position before each response token."""
    ids = torch.cat([torch.as_tensor(prompt), torch.as_tensor(response)]).long()[None]
    logits = type(model).forward(model, input_ids=ids).logits[0, :, 0]
    return logits[len(prompt) - 1 : -1]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_values_are_those_of_transformers_own_classifier(parts, layout) -> None:
    model, rows = small_critic(torch.float64), read_trajectories(parts["rollouts"])[:5]
    batch = make_batch([row.prompt_ids.long() for row in rows], [row.response_ids.long() for row in rows], CPU, layout)
    values = response_values(model, batch)
    assert values.dtype == torch.float64 and values.shape == batch.mask.shape
    for row, found in zip(rows, values, strict=True):
        length = len(row.response_ids)
        torch.testing.assert_close(found[:length], naive_values(model, row.prompt_ids, row.response_ids))
        assert not found[length:].any()


def test_gradient_of_a_step_is_that_of_the_naive_mean_however_it_is_cut(parts) -> None:
    rows = read_trajectories(parts["rollouts"])
    naive, gradients = small_critic(torch.float64), []
    values = [naive_values(naive, row.prompt_ids, row.response_ids) for row in rows]
    targets = [torch.full_like(value, row.label) for row, value in zip(rows, values, strict=True)]
    expected = mse_loss(torch.cat(values), torch.cat(targets))
    expected.backward()
    for budget in (100_000, 150, 1):
        model = small_critic(torch.float64)
        sums = forward_backward(
            model, share(rows, budget=budget), value_loss, Denominators.of(rows), temperature=1.0, device=CPU,
            see=VALUES.see,
        )  # fmt: skip
        assert sums.loss == pytest.approx(expected.item(), rel=1e-12)
        explained = 1 - torch.var(torch.cat(targets) - torch.cat(values), correction=0) / torch.cat(targets).var(
            correction=0
        )
        assert summarise(sums.metrics)["explained_variance"] == pytest.approx(explained.item(), rel=1e-9)
        gradients.append(dict(model.named_parameters()))
    for name, parameter in naive.named_parameters():
        for found in gradients:
            torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-9, atol=1e-12)


def test_loss_by_hand_and_by_finite_differences() -> None:
    values = torch.tensor([[0.2, 0.9, 7.0], [0.5, 0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64)
    output = value_loss(ValueBatch(values, mask, labels))
    assert output.reduction == "token"
    assert output.sum.item() == pytest.approx(0.64 + 0.01 + 0.25 + 0.01 + 0.16)
    assert summarise(output.metrics)["value_positive"] == pytest.approx(0.55)
    assert torch.autograd.gradcheck(lambda v: value_loss(ValueBatch(v, mask, labels)).sum, values)


def test_the_first_values_are_the_mean_outcome_and_the_body_waits(parts) -> None:
    rows = read_trajectories(parts["rollouts"])
    model = value_model(make_policy()[0], start=0.25)
    install_value_forward(model)
    seen = value_batch(model, rows, temperature=1.0, device=CPU, layout="padded")
    assert (seen.values[seen.mask] == 0.25).all()
    value_loss(seen).sum.backward()
    assert model.score.weight.grad.abs().sum() > 0
    assert all(not parameter.grad.any() for parameter in model.base_model.parameters() if parameter.grad is not None)


def test_explained_variance_rises_from_nothing(parts) -> None:
    lines = [json.loads(line) for line in (parts["critic"] / "dynamics.jsonl").read_text().splitlines()]
    assert len(lines) == 40
    assert lines[0]["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert lines[-1]["explained_variance"] > 0.3
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["value_positive"] > lines[-1]["value_negative"]
    assert {"grad_norm", "tokens"} <= lines[0].keys()


def test_the_artifact_is_a_token_classifier_and_its_values_are_its_own(parts) -> None:
    model = AutoModelForTokenClassification.from_pretrained(parts["critic"], dtype=torch.float32).eval()
    assert model.config.num_labels == 1 and model.dropout.p == 0
    saved = list(read_rows(parts["critic"]))
    samples = list(read_rows(parts["rollouts"]))
    assert [(row["problem_id"], row["k"]) for row in saved] == [(row["problem_id"], row["k"]) for row in samples]
    with torch.no_grad():
        for row, sample in zip(saved, samples, strict=True):
            expected = naive_values(model, sample["prompt_ids"], sample["response_ids"])
            np.testing.assert_allclose(row["values"], expected.numpy(), rtol=1e-5, atol=1e-5)
    assert len(list((parts["critic"] / "data").iterdir())) == 2
    assert not (parts["critic"] / "generation_config.json").exists()


def test_statistics_are_those_of_the_values(parts) -> None:
    info = json.loads((parts["critic"] / "values.json").read_text())
    rows = list(zip(read_rows(parts["critic"]), read_rows(parts["rollouts"]), strict=True))
    values = np.concatenate([row["values"] for row, _ in rows])
    outcomes = np.concatenate([[sample["label"]] * len(row["values"]) for row, sample in rows])
    assert info["explained_variance"] == pytest.approx(1 - np.var(outcomes - values) / np.var(outcomes), rel=1e-6)
    assert info["values"]["mean_positive"] == pytest.approx(values[outcomes == 1].mean(), rel=1e-5)
    assert info["errors"]["mean"] == pytest.approx((values - outcomes).mean(), abs=1e-6)
    table = {(row["label"], row["position"]): row for row in info["errors"]["by_label_and_position"]}
    assert table["positive", "last"]["tokens"] == sum(sample["label"] == 1 for _, sample in rows)
    assert "explained_variance_held_out" not in info


def test_ungraded_responses_are_valued_and_count_for_nothing_else(tmp_path, parts) -> None:
    shutil.copytree(parts["rollouts"], tmp_path / "rollouts")
    shards = [list(pq.read_table(shard_path(parts["rollouts"], index)).to_pylist()) for index in (0, 1)]
    shards[0][0]["label"] = None
    for index, rows in enumerate(shards):
        write_rows(shard_path(tmp_path / "rollouts", index), rows, SAMPLE_SCHEMA)
    whole, some = (describe_values(folder, parts["critic"]) for folder in (parts["rollouts"], tmp_path / "rollouts"))
    assert some["values"]["tokens"] == whole["values"]["tokens"]
    assert some["errors"]["tokens"] == whole["errors"]["tokens"] - len(shards[0][0]["response_ids"])
    fit(tmp_path / "out", parts | {"rollouts": tmp_path / "rollouts"}, steps=1)
    assert len(list(read_rows(tmp_path / "out" / "step-1"))) == len(list(read_rows(parts["rollouts"])))


def test_held_out_prompts_are_valued_and_not_trained_on(tmp_path, parts) -> None:
    result = fit(tmp_path, parts, held_out=0.34, steps=24, save_steps=(12,))
    assert result.metrics["prompts_held_out"] == 2 and result.metrics["prompts"] == 4
    assert result.metrics["explained_variance_trained"] > result.metrics["explained_variance_held_out"]
    assert result.step_metrics[12]["explained_variance"] != result.metrics["explained_variance"]
    assert (tmp_path / "step-12" / "values.json").is_file()
    with pytest.raises(StageError, match="held_out: expected a share that leaves prompts"):
        fit(tmp_path / "all", parts, held_out=0.99)


def test_a_killed_critic_ends_in_the_same_bytes(tmp_path, parts, monkeypatch) -> None:
    options = {"steps": 6, "save_steps": (3,), "checkpoint_every": 2}
    whole = fit(tmp_path / "whole", parts, **options)
    saved, record = [], RunFiles.record

    def killed(self, step, *rest, **more):
        if step == 5 and not saved:
            saved.append(step)
            raise KeyboardInterrupt
        record(self, step, *rest, **more)

    monkeypatch.setattr(RunFiles, "record", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", parts, **options)
    write = Valuer.write_shard

    def killed_again(self, shard, out):
        if out.name == "train-00001.parquet":
            raise KeyboardInterrupt
        write(self, shard, out)

    monkeypatch.setattr(Valuer, "write_shard", killed_again)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", parts, **options)
    assert (tmp_path / "killed" / "step-3" / "data" / "train-00000.parquet").exists()
    monkeypatch.setattr(Valuer, "write_shard", write)
    assert fit(tmp_path / "killed", parts, **options) == whole
    digests = [
        {name: value for name, value in folder_digest(tmp_path / run, "metrics.jsonl").items() if "work/" not in name}
        for run in ("whole", "killed")
    ]
    assert digests[0] == digests[1] and {"step-6/data/train-00000.parquet", "step-3/values.json"} <= digests[0].keys()


# --------------------------------------------------------------------------------------------------- PPO


def teach(out: Path, parts: dict[str, Path], truncated: str = "negative", **changes):
    loss = {"type": "ppo"} | changes
    config = TeacherConfig(
        rollouts="r", critic="critic", loss=loss, learning_rate=1e-3, steps=3, prompts_per_step=8, truncated=truncated
    )
    return teacher.run(
        config, out, context=context(out), rollouts=parts["rollouts"], init=parts["policy"], old=parts["old"],
        critic=parts["critic"],
    )  # fmt: skip


def gae_by_hand(values: list[float], outcome: float, alpha: float) -> list[float]:
    """The double sum of the definition."""
    length = len(values)
    lambda_ = max(0.0, 1 - 1 / (alpha * length))
    after = [*values[1:], outcome]
    deltas = [after[t] - values[t] for t in range(length)]
    return [sum(lambda_ ** (i - t) * deltas[i] for i in range(t, length)) for t in range(length)]


@pytest.mark.parametrize("whitened", [False, True])
def test_advantages_that_enter_training_are_those_of_the_file(tmp_path, parts, monkeypatch, whitened) -> None:
    seen = {}

    def caught(config, out, context, *, trajectories, **_):
        seen.update({row.key: row.advantages for row in trajectories})

    monkeypatch.setattr(teacher, "train_policy", caught)
    teach(tmp_path, parts, lambda_alpha=0.2, whiten=whitened)
    columns = read_columns(parts["critic"], "values")["values"]
    hand = {
        row.key: gae_by_hand(columns[row.key].tolist(), row.label, alpha=0.2)
        for row in read_trajectories(parts["rollouts"])
    }
    assert seen.keys() == hand.keys()
    flat = np.concatenate(list(hand.values()))
    shift, scale = (flat.mean(), flat.std(ddof=1)) if whitened else (0.0, 1.0)
    for key, expected in hand.items():
        np.testing.assert_allclose(seen[key], (np.array(expected) - shift) / scale, rtol=1e-4, atol=1e-5)


def test_whitening_leaves_out_what_is_masked(tmp_path, parts, monkeypatch) -> None:
    seen = []

    def some_cut(*given, **how):
        return [
            replace(row, truncated=place % 3 == 1) for place, row in enumerate(read_trajectories(parts["rollouts"]))
        ]

    monkeypatch.setattr(teacher, "graded", some_cut)
    monkeypatch.setattr(teacher, "train_policy", lambda *_, trajectories, **__: seen.extend(trajectories))
    teach(tmp_path, parts, truncated="masked")
    advantages = torch.cat([row.advantages for row in seen])
    assert not any(row.truncated for row in seen)
    assert (advantages.mean().item(), advantages.std().item()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_ppo_trains_on_a_critic(tmp_path, parts) -> None:
    teach(tmp_path, parts)
    lines = [json.loads(line) for line in (tmp_path / "dynamics.jsonl").read_text().splitlines()]
    assert lines[-1]["kl_old_to_teacher_k3"] > lines[0]["kl_old_to_teacher_k3"] == pytest.approx(0, abs=1e-6)
    assert "clip_fraction" in lines[0]


def test_a_critic_that_knows_every_outcome_is_refused(tmp_path, parts) -> None:
    rows = [row | {"values": [float(row["label"])] * len(row["response_ids"])} for row in read_rows(parts["rollouts"])]
    kept = [{name: row[name] for name in VALUE_SCHEMA.names} for row in rows]
    write_rows(shard_path(tmp_path, 0), kept, VALUE_SCHEMA)
    shutil.copy(parts["critic"] / "values.json", tmp_path)
    with pytest.raises(StageError, match="critic: expected values that leave something of the outcomes to explain"):
        teach(tmp_path / "out", parts | {"critic": tmp_path})


def test_a_critic_of_other_rollouts_is_refused(tmp_path, parts) -> None:
    other = write_rollouts(tmp_path / "other", prompts=5)
    with pytest.raises(ArtifactError, match=r"critic: expected values of the rollouts .*, got those of other rollouts"):
        teach(tmp_path / "out", parts | {"rollouts": other, "old": rescored(tmp_path, parts, other)})
    with pytest.raises(ArtifactError, match=r"critic: expected values\.json in it, got none; make it with `critic`"):
        teach(tmp_path / "out", parts | {"critic": parts["policy"]})
    info = json.loads((parts["critic"] / "values.json").read_text())
    (tmp_path / "values.json").write_text(json.dumps(info | {"format": "erpd-hub/values/v0"}))
    with pytest.raises(ArtifactError, match="expected values of the format erpd-hub/values/v1"):
        teach(tmp_path / "out", parts | {"critic": tmp_path})


def rescored(folder: Path, parts: dict[str, Path], rollouts: Path) -> Path:
    config = ScoreConfig(rollouts="r", checkpoint="policy", noise_samples=0)
    score.run(config, folder / "old", context=context(folder / "old"), rollouts=rollouts, checkpoint=parts["policy"])
    return folder / "old"


def test_what_a_critic_cannot_be_is_refused(parts) -> None:
    with pytest.raises(ValueError, match="lora: expected none for a critic"):
        CriticConfig(rollouts="r", steps=1, lora={})
    with pytest.raises(ValueError, match="critic: expected nothing with the ce loss, got critic"):
        TeacherConfig(rollouts="r", critic="critic", loss={"type": "ce"}, steps=1)
    with pytest.raises(ValueError, match="critic: expected a critic step with the ppo loss"):
        TeacherConfig(rollouts="r", loss=PPOLoss(type="ppo"), steps=1)
    small = OPTConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, ffn_dim=8, num_attention_heads=2,
                      max_position_embeddings=16, word_embed_proj_dim=8)  # fmt: skip
    with pytest.raises(ConfigError, match="expected a family with a token classifier in transformers"):
        value_model(OPTForCausalLM(small), start=0.0)


def test_values_have_one_entry_for_each_response_token(parts) -> None:
    table = pq.read_table(shard_path(parts["critic"], 0))
    assert table.column_names == ["problem_id", "k", "values"]
    assert len(flat_values(table["values"])) == sum(
        len(ids) for ids in pq.read_table(shard_path(parts["rollouts"], 0))["response_ids"].to_pylist()
    )


def test_ppo_goes_through_the_plan_and_names_its_saved_critic() -> None:
    steps = {
        "base": {"type": "tiny"},
        "prompts": {"type": "generator", "generator": "addition", "count": 8, "format": {"template": "{problem}?"}},
        "rollouts": {"stage": "rollout", "prompts": "prompts", "k": 4},
        "critic": {"rollouts": "rollouts", "steps": 4, "save_steps": [2]},
        "ppo": {"stage": "teacher", "rollouts": "rollouts", "critic": "critic@step-2", "loss": {"type": "ppo"},
                "steps": 2},
    }  # fmt: skip
    plan = make_plan(build_recipe({"run": "t", "steps": steps}, "t"))
    edges = {edge.role: edge for edge in plan.node("r1/ppo").inputs}
    assert edges.keys() == {"rollouts", "init", "old", "critic"}
    assert (edges["critic"].source, edges["critic"].saved_step) == ("r1/critic", 2)
    assert plan.node("r1/critic").pushed_steps == (2, 4)
    item, plain = (
        Clerk(plan, Setting(DEVICES["h100"], 1), KNOWN["qwen3-4b"]).item(plan.node(f"r1/{name}"))
        for name in ("critic", "ppo")
    )
    assert item.seconds and plain.seconds and item.seconds > plain.seconds
    steps["ppo"]["critic"] = "rollouts"
    with pytest.raises(ConfigError, match=r"ppo\.critic: expected critic, got rollouts, which makes rollouts"):
        make_plan(build_recipe({"run": "t", "steps": steps}, "t"))


def test_critic_and_teacher_as_single_stages(micro, tmp_path) -> None:
    home = tmp_path / "home"
    shutil.copytree(micro.home, home)
    words = ["--rollouts", "local/micro-r1-rollouts", "policy=local/micro-r1-base", "steps=2", "--name", "alone"]
    cli("critic", *words, "learning_rate=1e-3", home=home)
    done = cli("teacher", *words, "loss.type=ppo", "critic=local/alone-r1-critic", "--json", home=home)
    assert [item["repo"] for item in json.loads(done.stdout)["artifacts"]][-1] == "local/alone-r1-teacher"
    assert "data file" not in done.stderr
    assert " 0 missing or altered" in cli("lineage", "verify", "local/alone-r1-teacher", home=home).stdout
    card = next((home / "cache").glob("*/models--local--alone-r1-critic/snapshots/*/README.md")).read_text()
    assert "| label | position | tokens | mean |" in card and "| positive | first |" in card
