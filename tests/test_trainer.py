import json
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from tiny import folder_digest, make_policy, write_rollouts

from erpd_hub.config import CELoss, TeacherConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.losses import LossOutput, TokenBatch, ce_loss, mse_loss
from erpd_hub.samples import LOGPROB_SCHEMA, read_rows, shard_path, write_rows
from erpd_hub.training.checkpoints import RunFiles
from erpd_hub.training.data import (
    StepBatch,
    Trajectory,
    join,
    prompt_schedule,
    read_columns,
    read_trajectories,
    step_batches,
    token_budget_batches,
)
from erpd_hub.training.trainer import PolicyTrainer, train

CE = partial(ce_loss, beta=1.0, aggregate="sum")
MSE = partial(mse_loss, negative_weight=1.0)


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory) -> list[Trajectory]:
    rows = read_trajectories(write_rollouts(tmp_path_factory.mktemp("data") / "rollouts"))
    return [replace(row, reference_logprobs=torch.full((len(row.response_ids),), -3.0)) for row in rows]


def config(**changes) -> TeacherConfig:
    fields = {"learning_rate": 1e-3, "steps": 6, "prompts_per_step": 4, "checkpoint_every": 2, "save_steps": (3,)}
    return TeacherConfig(rollouts="rollouts", loss=CELoss(type="ce"), **(fields | changes))


def make_trainer(
    folder: Path, trajectories: list[Trajectory], loss=CE, *, model=None, role="teacher", **changes
) -> PolicyTrainer:
    fresh, tokenizer = make_policy()
    settings = config(**changes)
    steps = step_batches(trajectories, settings.prompts_per_step, settings.steps, seed=1)
    files = RunFiles(folder / "out", folder / "work")
    return PolicyTrainer(
        model or fresh, steps=steps, loss=loss, role=role, config=settings, seed=1, files=files, tokenizer=tokenizer
    )


def test_schedule_is_one_list_of_epochs() -> None:
    assert [len(prompt_schedule(1000, size, 1000 // size + 1, 0)) for size in (32, 64)] == [32, 16]
    assert sum(map(len, prompt_schedule(1000, 32, 32, 0))) == 1000
    long = prompt_schedule(10, 4, 7, seed=2)
    assert prompt_schedule(10, 4, 3, seed=2) == long[:3]
    assert sorted(chain(*long[:3])) == sorted(chain(*long[3:6])) == list(range(10))
    assert long[:3] != long[3:6]


def test_token_budget_keeps_rows_and_budget() -> None:
    lengths = [5, 9, 3, 20, 7, 7]
    batches = list(token_budget_batches(lengths, 16))
    assert sorted(chain(*batches)) == list(range(6))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 16
    assert batches[0] == [3]


def test_columns_of_other_rollouts_are_refused(tmp_path, trajectories) -> None:
    rows = [
        {"problem_id": row.problem_id, "k": row.k, "logprobs": [0.0] * (len(row.response_ids) + (row.k == 1))}
        for row in trajectories
    ]
    write_rows(shard_path(tmp_path / "long", 0), rows, LOGPROB_SCHEMA)
    with pytest.raises(ArtifactError, match="it belongs to other rollouts"):
        join(trajectories, old_logprobs=read_columns(tmp_path / "long", "logprobs")["logprobs"])
    write_rows(shard_path(tmp_path / "short", 0), rows[:4], LOGPROB_SCHEMA)
    with pytest.raises(ArtifactError, match="score these rollouts"):
        join(trajectories[3:], old_logprobs=read_columns(tmp_path / "short", "logprobs")["logprobs"])


def test_trajectories_are_grouped_by_prompt_whatever_the_rows_order(tmp_path) -> None:
    folder = write_rollouts(tmp_path / "rollouts")
    rows = read_trajectories(folder)
    assert [row.k for row in rows] == [0, 1, 2] * 6
    assert len(rows) == len(list(read_rows(folder)))


@pytest.mark.parametrize("loss", [CE, MSE])
def test_how_a_step_is_cut_does_not_change_it(tmp_path, trajectories, loss) -> None:
    weights = []
    for budget in (100_000, 150, 1):
        trainer = make_trainer(
            tmp_path / str(budget), trajectories, loss, steps=2, save_steps=(), micro_batch_tokens=budget
        )
        train(trainer)
        weights.append((trainer.model.state_dict(), trainer.files.step_metrics(2)))
    for state, metrics in weights[1:]:
        for name, value in weights[0][0].items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)
        assert metrics == pytest.approx(weights[0][1], rel=1e-3, abs=1e-6)


def test_max_len_reduction_divides_by_rows_times_longest(tmp_path, trajectories) -> None:
    def counting(batch: TokenBatch) -> LossOutput:
        return LossOutput(batch.logprobs.sum() * 0 + batch.mask.sum(), "max_len", {})

    trainer = make_trainer(tmp_path, trajectories, counting, steps=1, save_steps=())
    train(trainer)
    lengths = [len(row.response_ids) for row in trainer.steps[0].trajectories]
    assert trainer.files.step_metrics(1)["loss"] == pytest.approx(sum(lengths) / (len(lengths) * max(lengths)))


def test_a_killed_run_ends_in_the_same_bytes(tmp_path, trajectories) -> None:
    whole = make_trainer(tmp_path / "whole", trajectories)
    train(whole)
    calls = 0

    def killed(batch: TokenBatch) -> LossOutput:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return CE(batch)

    with pytest.raises(KeyboardInterrupt):
        train(make_trainer(tmp_path / "killed", trajectories, killed))
    work = tmp_path / "killed" / "work"
    assert [path.name for path in work.glob("checkpoint-*")] == ["checkpoint-4"]
    (work / "unfinished" / "checkpoint-5").mkdir(parents=True)  # killed while it was written
    train(make_trainer(tmp_path / "killed", trajectories))
    digests = [folder_digest(tmp_path / name / "out", "metrics.jsonl") for name in ("whole", "killed")]
    assert digests[0] == digests[1]
    assert {"step-3/model.safetensors", "step-6/tokenizer.json", "dynamics.jsonl"} <= digests[0].keys()


def test_a_checkpoint_after_a_missing_saved_step_is_not_used(tmp_path, trajectories) -> None:
    train(make_trainer(tmp_path, trajectories))
    before = folder_digest(tmp_path / "out", "metrics.jsonl")
    (tmp_path / "out" / "step-3").rename(tmp_path / "elsewhere")
    train(make_trainer(tmp_path, trajectories))
    assert folder_digest(tmp_path / "out", "metrics.jsonl") == before


def test_a_finished_run_is_left_alone(tmp_path, trajectories) -> None:
    train(make_trainer(tmp_path, trajectories, steps=2, save_steps=()))

    def never(batch: TokenBatch) -> LossOutput:
        raise AssertionError

    train(make_trainer(tmp_path, trajectories, never, steps=2, save_steps=()))


def test_dynamics_have_a_line_a_step_and_times_stand_apart(tmp_path, trajectories) -> None:
    train(make_trainer(tmp_path, trajectories))
    lines = [json.loads(line) for line in (tmp_path / "out" / "dynamics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    expected = {"loss", "grad_norm", "logprob_positive", "logprob_negative", "entropy", "tokens", "reward_magnitude"}
    assert expected <= lines[0].keys()
    assert len((tmp_path / "out" / "step-3" / "dynamics.jsonl").read_text().splitlines()) == 3
    times = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in times] == [1, 2, 3, 4, 5, 6]
    assert times[0].keys() == {"step", "seconds", "tokens_per_second"}


def test_gradient_checkpointing_is_on_and_changes_nothing(tmp_path, trajectories) -> None:
    weights = []
    for checkpointing in (False, True):
        model, _ = make_policy()
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
            layer.mlp = torch.nn.Sequential(layer.mlp, torch.nn.Dropout(0.5))
        runs = []
        model.model.layers[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        trainer = make_trainer(
            tmp_path / str(checkpointing), trajectories, model=model,
            steps=1, save_steps=(), micro_batch_tokens=100_000, gradient_checkpointing=checkpointing,
        )  # fmt: skip
        train(trainer)
        assert len(runs) == 1 + checkpointing  # forward once more in the backward pass
        weights.append((model.state_dict(), trainer.files.step_metrics(1)))
    (plain, plain_metrics), (checkpointed, metrics) = weights
    assert metrics == pytest.approx(plain_metrics, rel=1e-5)
    for name, value in plain.items():
        torch.testing.assert_close(checkpointed[name], value, rtol=1e-4, atol=1e-5)


def test_several_gpus_are_not_used_at_once(tmp_path, trajectories, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert make_trainer(tmp_path, trajectories).args.n_gpu == 1


@pytest.mark.parametrize(("role", "pair"), [("teacher", "sampler_to_teacher"), ("student", "old_to_student")])
def test_the_kl_names_both_its_policies(tmp_path, trajectories, role, pair) -> None:
    rows = [replace(row, old_logprobs=row.reference_logprobs) for row in trajectories]
    trainer = make_trainer(tmp_path, rows, role=role, steps=1, save_steps=())
    train(trainer)
    names = [name for name in trainer.files.step_metrics(1) if name.startswith("kl_")]
    assert names == [f"kl_{pair}_k1", f"kl_{pair}_k3"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_prompts(tmp_path, trajectories) -> None:
    def broken(batch: TokenBatch) -> LossOutput:
        output = CE(batch)
        return replace(output, sum=output.sum * (float("nan") if trainer.state.global_step == 4 else 1))

    trainer = make_trainer(tmp_path, trajectories, broken)
    with pytest.raises(StageError, match=r"finite loss, got nan at step 5 on 4 prompts \("):
        train(trainer)
    assert (tmp_path / "work" / "checkpoint-4" / "model.safetensors").exists()


def test_small_steps_on_bf16_weights_are_refused(tmp_path, trajectories) -> None:
    model, tokenizer = make_policy()
    with pytest.raises(ConfigError, match="rounded away"):
        PolicyTrainer(
            model.bfloat16(), steps=[StepBatch(1, tuple(trajectories))], loss=CE, role="teacher",
            config=config(learning_rate=1e-6), seed=0, files=RunFiles(tmp_path, tmp_path), tokenizer=tokenizer,
        )  # fmt: skip


def test_nothing_is_printed(tmp_path, trajectories, capsys) -> None:
    train(make_trainer(tmp_path, trajectories, steps=2, save_steps=()))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
