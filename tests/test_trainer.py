import json
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from conftest import MICRO
from tiny import folder_digest, make_policy, save_policy, write_rollouts

from erpd_hub.config import CELoss, TeacherConfig
from erpd_hub.config.training import LoRA
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.launching.options import Launch
from erpd_hub.logprobs import response_logprobs, unwrap
from erpd_hub.losses import LossOutput, TokenBatch, ce_loss, mse_loss
from erpd_hub.making import make
from erpd_hub.models import load_model
from erpd_hub.plan import make_plan
from erpd_hub.recipe import load_recipe
from erpd_hub.samples import LOGPROB_SCHEMA, read_rows, shard_path, write_rows
from erpd_hub.stage_context import StageContext
from erpd_hub.training.arguments import training_arguments
from erpd_hub.training.batches import Denominators, StepBatch, Trajectory, collate, deal, share
from erpd_hub.training.checkpoints import RunFiles
from erpd_hub.training.data import join, prompt_schedule, read_columns, read_trajectories, step_batches
from erpd_hub.training.policy import check_fit, load_policy, processes
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
    folder: Path, trajectories: list[Trajectory], loss=CE, *, model=None, role="teacher", arguments=None, **changes
) -> PolicyTrainer:
    fresh, tokenizer = make_policy()
    settings = config(**changes)
    steps = step_batches(trajectories, settings.prompts_per_step, settings.steps, seed=1)
    files = RunFiles(folder / "out", folder / "work")
    return PolicyTrainer(
        model or fresh, steps=steps, loss=loss, role=role, config=settings, seed=1, files=files, tokenizer=tokenizer,
        arguments=arguments,
    )  # fmt: skip


def test_schedule_is_one_list_of_epochs() -> None:
    assert [len(prompt_schedule(1000, size, 1000 // size + 1, 0)) for size in (32, 64)] == [32, 16]
    assert sum(map(len, prompt_schedule(1000, 32, 32, 0))) == 1000
    long = prompt_schedule(10, 4, 7, seed=2)
    assert prompt_schedule(10, 4, 3, seed=2) == long[:3]
    assert sorted(chain(*long[:3])) == sorted(chain(*long[3:6])) == list(range(10))
    assert long[:3] != long[3:6]


def test_every_rank_gets_as_many_micro_batches_and_every_row_comes_once(trajectories) -> None:
    rows = step_batches(trajectories, 6, 1, seed=1)[0].trajectories
    for world in (1, 2, 4, 8):
        parts = [share(rows, budget=150, rank=rank, world=world) for rank in range(world)]
        assert len({len(part) for part in parts}) == 1
        real = [row.key for part in parts for batch in part if batch.weight for row in batch.rows]
        assert sorted(real) == sorted(row.key for row in rows)
        fillers = [batch for part in parts for batch in part if not batch.weight]
        assert all(len(batch.rows) == 1 for batch in fillers)
        longest = [max(map(len, batch.rows)) for batch in parts[0] if batch.weight]
        assert longest == sorted(longest, reverse=True)


def test_a_round_is_of_like_cost_and_totals_are_balanced() -> None:
    assert deal([1, 9, 8, 2, 3, 7], 2) == [[1, 5, 3], [2, 4, 0]] or deal([1, 9, 8, 2, 3, 7], 2) == [
        [1, 4, 3],
        [2, 5, 0],
    ]
    assert deal([5.0], 3) == [[0], [], []]


def test_denominators_are_those_of_the_whole_step(trajectories) -> None:
    lengths = [len(row.response_ids) for row in trajectories]
    whole = Denominators.of(trajectories)
    found = [whole.by(reduction) for reduction in ("token", "sequence", "max_len")]
    assert found == [sum(lengths), len(lengths), len(lengths) * max(lengths)]


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


def test_no_layout_changes_a_step(tmp_path, trajectories) -> None:
    found = []
    for layout in ("padded", "packed", "single"):
        trainer = make_trainer(tmp_path / layout, trajectories, steps=2, save_steps=(), micro_batch_tokens=150)
        trainer.layout = layout
        train(trainer)
        found.append((trainer.files.step_metrics(2), trainer.model.state_dict()))
    for metrics, state in found[1:]:
        assert metrics == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        for name, value in found[0][1].items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


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


def test_a_checkpoint_of_otherwise_shared_weights_is_refused(tmp_path, trajectories) -> None:
    train(make_trainer(tmp_path, trajectories))
    (tmp_path / "out" / "step-6").rename(tmp_path / "elsewhere")
    (tmp_path / "work" / "checkpoint-4" / "kind.txt").write_text("fsdp2")
    with pytest.raises(
        StageError, match=r"checkpoint-4: expected a checkpoint of whole weights, got one of fsdp2; go on"
    ):
        train(make_trainer(tmp_path, trajectories))


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


def test_checkpointing_and_offload_are_on_and_change_nothing(tmp_path, trajectories) -> None:
    weights = []
    for name, checkpointing in (("plain", False), ("checkpointed", True), ("offloaded", True)):
        model, _ = make_policy()
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
            layer.mlp = torch.nn.Sequential(layer.mlp, torch.nn.Dropout(0.5))
        runs = []
        model.model.layers[0].register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        trainer = make_trainer(
            tmp_path / name, trajectories, model=model, steps=1, save_steps=(), micro_batch_tokens=100_000,
            gradient_checkpointing=checkpointing, activation_offload=name == "offloaded",
        )  # fmt: skip
        train(trainer)
        assert len(runs) == 1 + checkpointing  # forward once more in the backward pass
        weights.append((model.state_dict(), trainer.files.step_metrics(1)))
    plain, plain_metrics = weights[0]
    for checkpointed, metrics in weights[1:]:
        assert metrics == pytest.approx(plain_metrics, rel=1e-5)
        for name, value in plain.items():
            torch.testing.assert_close(checkpointed[name], value, rtol=1e-4, atol=1e-5)


def test_several_gpus_are_not_used_at_once(tmp_path, trajectories, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert make_trainer(tmp_path, trajectories).args.n_gpu <= 1


@pytest.mark.parametrize(("role", "old"), [("teacher", "sampler"), ("teacher", "old"), ("student", "old")])
def test_the_kl_names_both_its_policies(tmp_path, trajectories, role, old) -> None:
    rows = [replace(row, old_logprobs=row.reference_logprobs) for row in trajectories]
    trainer = make_trainer(tmp_path, rows, role=role, steps=1, save_steps=())
    trainer.old = old
    train(trainer)
    names = [name for name in trainer.files.step_metrics(1) if name.startswith("kl_")]
    assert names == [f"kl_{old}_to_{role}_k1", f"kl_{old}_to_{role}_k3", f"kl_reference_to_{role}_k3"]


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


def test_an_adapter_trains_alone_and_is_the_same_policy_merged(tmp_path, trajectories) -> None:
    base = save_policy(tmp_path / "base")
    model, _ = make_policy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lora = LoRA(r=4, alpha=8.0)
    trainer = make_trainer(tmp_path, trajectories, model=model, steps=2, save_steps=(), lora=lora, learning_rate=1e-2)
    train(trainer)
    after = {name.replace(".base_layer", ""): value for name, value in unwrap(trainer.model).state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    saved = tmp_path / "out" / "step-2"
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= set(folder_digest(saved))
    assert str(tmp_path) not in (saved / "adapter_config.json").read_text()
    (saved / "base").symlink_to(base)
    batch = collate(trajectories[:3], torch.device("cpu"))
    merged, adapted = (
        response_logprobs(policy, batch, temperature=1.0).logprobs for policy in (load_model(saved), trainer.model)
    )
    torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=1e-5)
    assert (merged - response_logprobs(make_policy()[0], batch, temperature=1.0).logprobs).abs().max() > 0.01


def test_a_killed_adapter_run_ends_in_the_same_bytes(tmp_path, trajectories) -> None:
    lora = LoRA(r=4, target_modules=("q_proj", "v_proj"))
    train(make_trainer(tmp_path / "whole", trajectories, lora=lora))

    def killed(batch: TokenBatch) -> LossOutput:
        if trainer.state.global_step == 4:
            raise KeyboardInterrupt
        return CE(batch)

    trainer = make_trainer(tmp_path / "killed", trajectories, killed, lora=lora)
    with pytest.raises(KeyboardInterrupt):
        train(trainer)
    train(make_trainer(tmp_path / "killed", trajectories, lora=lora))
    whole, resumed = (folder_digest(tmp_path / name / "out", "metrics.jsonl") for name in ("whole", "killed"))
    assert whole == resumed


def test_what_cannot_fit_is_refused_with_the_sum_before_it_is_loaded(tmp_path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 5120, "num_hidden_layers": 64,
                "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 25600,
                "tie_word_embeddings": False,
            }
        )
    )  # fmt: skip
    with pytest.raises(StageError, match=r"teacher: expected at most .* GB .*weights .*Adam .*= .* GB"):
        check_fit("teacher", tmp_path, config(), 20_000, processes())
    assert check_fit("teacher", save_policy(tmp_path / "tiny"), config(), 200, processes()).spare > 0


def test_a_tracker_that_is_not_there_is_refused(tmp_path, trajectories, monkeypatch) -> None:
    monkeypatch.setattr("erpd_hub.training.arguments.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="report_to: expected trackio to be installed"):
        make_trainer(tmp_path, trajectories, report_to="trackio")


def test_trackers_get_what_the_run_records(tmp_path, trajectories, monkeypatch) -> None:
    seen = []
    trainer = make_trainer(tmp_path, trajectories, steps=2, save_steps=())
    object.__setattr__(trainer.config, "report_to", "tensorboard")
    monkeypatch.setattr(trainer, "log", lambda logs, *_: seen.append(logs))
    train(trainer)
    assert [line["loss"] for line in seen[:2]] == [
        json.loads(line)["loss"] for line in (tmp_path / "out" / "dynamics.jsonl").read_text().splitlines()
    ]


def test_trackers_are_told_the_run_and_no_folder_of_this_machine(tmp_path) -> None:
    context = StageContext(0, tmp_path / "work", run="tiny", label="r1/ce-0123abcd")
    arguments = training_arguments(config(), context)
    policy = load_policy(save_policy(tmp_path / "base"), config(), processes())
    assert (arguments.project, arguments.run_name) == ("tiny", "r1/ce-0123abcd")
    assert arguments.output_dir == str(context.work)
    assert str(tmp_path) not in arguments.to_json_string() + policy.config.to_json_string()
    assert not policy.name_or_path, "peft would send it"


def test_a_stage_is_told_its_run_and_its_name_there(tmp_path, monkeypatch) -> None:
    contexts = []
    monkeypatch.setattr("erpd_hub.making.run_stage", lambda job, *_: contexts.append(job.context) or 1 / 0)
    node = make_plan(load_recipe(str(MICRO))).node("r1/teacher")
    with pytest.raises(ZeroDivisionError):
        make(node, [], "0123456789abcdef", tmp_path, launch=Launch(), threads=None)
    assert (contexts[0].run, contexts[0].label) == ("micro", "r1/teacher-01234567")


@pytest.mark.parametrize("tracker", ["trackio", "tensorboard", "wandb"])
def test_a_real_tracker_has_a_run_for_each_training(tmp_path, trajectories, monkeypatch, tracker) -> None:
    seen, local = tmp_path / "seen", tmp_path / "local"
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TENSORBOARD_LOGGING_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ERPD_HOME", "TRACKIO_DIR", "WANDB_DIR"):
        monkeypatch.setenv(name, str(seen))
    monkeypatch.setenv("WANDB_MODE", "offline")
    seen.mkdir()
    pytest.importorskip(tracker)
    settings = {"steps": 2, "save_steps": (), "report_to": tracker, "lora": LoRA(r=2)}
    for step in ("ce", "student"):
        context = StageContext(1, local / step, run="a-recipe", label=f"r1/{step}-0123abcd")
        model = load_policy(save_policy(local / "base"), config(), processes())
        arguments = training_arguments(config(**settings), context)
        train(make_trainer(local / step, trajectories, model=model, arguments=arguments, **settings))
    files = [path for path in seen.rglob("*") if path.is_file()]
    told = b"".join(str(path.relative_to(seen)).encode() + path.read_bytes() for path in files)
    assert all(name in told for name in (b"a-recipe", b"r1/ce-0123abcd", b"r1/student-0123abcd", b"train/loss"))
    assert str(local).encode() not in told
    runs = {"trackio": ".db", "tensorboard": "0123abcd/events", "wandb": ".wandb"}
    assert sum(runs[tracker] in str(path) for path in files) == (1 if tracker == "trackio" else 2)


def test_bf16_products_keep_fp32_masters(tmp_path, trajectories) -> None:
    runs = []
    for dtype in ("float32", "bfloat16"):
        trainer = make_trainer(tmp_path / dtype, trajectories, steps=1, save_steps=(), dtype=dtype, push_dtype=dtype)
        train(trainer)
        assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}
        saved = load_model(tmp_path / dtype / "out" / "step-1", "stored")
        assert saved.dtype == getattr(torch, dtype)
        runs.append(trainer.files.step_metrics(1)["logprob_positive"])
    assert runs[0] != runs[1]
    assert runs[0] == pytest.approx(runs[1], rel=0.02)
