import json
from importlib.metadata import version

import pytest
import torch
from tiny import context, folder_digest, save_policy, write_prompts
from transformers import GPT2Config, GPT2LMHeadModel

from erpd_hub.config import OnlineConfig, TransformersEngine
from erpd_hub.config.sampling import Decoding
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.fields import identity
from erpd_hub.models import load_model, load_tokenizer, save_checkpoint
from erpd_hub.plan import make_plan
from erpd_hub.prompts import read_prompts
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import read_rows
from erpd_hub.sampling.draws import Prompt
from erpd_hub.sampling.plan import render_prompts
from erpd_hub.stages import online
from erpd_hub.training.arguments import training_arguments
from erpd_hub.training.micro_rounds import MicroRounds, parked
from erpd_hub.training.online import OnlineTrainer
from erpd_hub.training.online_trl import OwnReward, TRLTrainer
from erpd_hub.training.online_trl_settings import grpo_arguments
from erpd_hub.training.trainer import train

ENGINE = TransformersEngine(dtype="float32", batch_tokens=512)


def config(**changes) -> OnlineConfig:
    fields = {"steps": 4, "prompts_per_step": 3, "k": 4, "learning_rate": 1e-3, "save_steps": (2,), "engine": ENGINE}
    return OnlineConfig(prompts="prompts", **(fields | {"decoding": Decoding(max_new_tokens=12)} | changes))


@pytest.fixture
def parts(tmp_path):
    return {"init": save_policy(tmp_path / "policy"), "prompts": write_prompts(tmp_path / "prompts", 5)}


def run(folder, parts, **changes):
    return online.run(config(**changes), folder / "out", context=context(folder), **parts)


def dynamics(folder):
    return [json.loads(line) for line in (folder / "out" / "dynamics.jsonl").read_text().splitlines()]


@pytest.fixture
def reward(tmp_path, monkeypatch):
    """What a fresh policy does now and then: answers that begin with a small digit are right."""
    name = f"digits_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(
        "def first(completions, **_):\n    return [float(c[0]['content'][:1] in tuple('01234')) for c in completions]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return f"{name}:first"


def test_the_reward_rises_and_every_step_says_what_it_saw(tmp_path, parts, reward):
    done = run(tmp_path, parts, steps=12, k=8, prompts_per_step=5, learning_rate=1e-2, reward=reward)
    lines = dynamics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.3
    first, last = lines[0], lines[-1]
    assert first["kl_policy_to_start_k3"] == pytest.approx(0, abs=1e-9)
    assert first["kl_sampler_to_policy_k3"] < 1e-9
    assert last["kl_policy_to_start_k3"] > 0.01
    assert first["clip_fraction"] == last["clip_fraction"] == 0
    wanted = {"entropy", "mean_length", "truncated", "grad_norm", "prompts_mixed", "logprob_negative", "samples"}
    assert wanted <= first.keys()
    assert not any("old_to" in name for name in first)
    assert done.metrics["samples"] == 12 * 5 * 8
    assert done.metrics["response_tokens"] == sum(line["tokens"] for line in lines)
    assert done.step_metrics[2]["samples"] == 2 * 5 * 8
    times = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    for line in times:
        parts_of_it = line["sampling_seconds"] + line["kl_seconds"] + line["update_seconds"]
        assert parts_of_it == pytest.approx(line["seconds"], abs=1e-3)
    load_model(tmp_path / "out" / "step-12")


def test_steps_go_through_the_prompts_and_samples_never_repeat(tmp_path, parts, monkeypatch):
    seen = []
    draw = MicroRounds.draw_here

    def noted(self, step, model):
        folder = draw(self, step, model)
        seen.append([(row["problem_id"], row["k"], row["seed"]) for row in read_rows(folder)])
        return folder

    monkeypatch.setattr(MicroRounds, "draw_here", noted)
    run(tmp_path, parts)
    prompts = [{problem for problem, _, _ in step} for step in seen]
    assert [len(step) for step in prompts] == [3, 2, 3, 2]
    assert not prompts[0] & prompts[1]
    assert not prompts[2] & prompts[3]
    assert all(len(step) == len(chosen) * 4 for step, chosen in zip(seen, prompts, strict=True))
    seeds = [seed for step in seen for _, _, seed in step]
    assert len(set(seeds)) == len(seeds)


def test_the_first_gradient_is_reinforce_with_group_advantages(tmp_path, parts, reward):
    given = config(reward=reward, kl_to_start=False, logprob_temperature=0.8, micro_batch_tokens=64)
    given = given.model_copy(update={"decoding": Decoding(max_new_tokens=12, temperature=0.8)})
    trainer = online.make_online_trainer(given, tmp_path / "out", context(tmp_path), **parts)
    trainer.training_step(trainer.model, trainer.steps[0])
    rows = list(read_rows(tmp_path / "work" / "micro-rounds" / "step-1"))
    assert 0 < sum(row["label"] for row in rows) < len(rows)

    model = load_model(parts["init"]).double()
    tokens = sum(len(row["response_ids"]) for row in rows)
    for problem in {row["problem_id"] for row in rows}:
        group = [row for row in rows if row["problem_id"] == problem]
        outcomes = torch.tensor([row["label"] for row in group], dtype=torch.float64)
        advantages = (outcomes - outcomes.mean()) / (outcomes.std() + 1e-6)
        for row, advantage in zip(group, advantages, strict=True):
            ids = torch.tensor([[*row["prompt_ids"], *row["response_ids"]]])
            logits = model(ids).logits[0, len(row["prompt_ids"]) - 1 : -1] / 0.8
            taken = logits.log_softmax(-1).gather(-1, ids[0, len(row["prompt_ids"]) :, None]).sum()
            (-advantage * taken / tokens).backward()
    for (name, ours), theirs in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_phase_killed_at_any_point_ends_in_the_same_bytes(tmp_path, parts, reward, monkeypatch):
    run(tmp_path / "whole", parts, reward=reward)
    draw, step, record = MicroRounds.draw_here, OnlineTrainer._with_start, OnlineTrainer.save_step
    killed = []

    def at(name, number, then):
        def wrapper(self, *arguments):
            if (name, number) not in killed and self_step(self, arguments) == number:
                killed.append((name, number))
                raise KeyboardInterrupt
            return then(self, *arguments)

        return wrapper

    def self_step(owner, arguments):
        return arguments[0].step if isinstance(owner, MicroRounds) else owner.state.global_step

    monkeypatch.setattr(MicroRounds, "draw_here", at("draw", 2, draw))
    monkeypatch.setattr(OnlineTrainer, "_with_start", at("drawn", 2, step))  # in step 3, whose samples are all there
    monkeypatch.setattr(OnlineTrainer, "save_step", at("save", 2, record))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", parts, reward=reward)
    done = run(tmp_path / "killed", parts, reward=reward)
    assert sorted(killed) == [("draw", 2), ("drawn", 2), ("save", 2)]
    whole, resumed = (folder_digest(tmp_path / name / "out", "metrics.jsonl") for name in ("whole", "killed"))
    assert whole == resumed
    assert done == run(tmp_path / "killed", parts, reward=reward), "a finished phase is left as it is"


def test_samples_from_a_process_of_its_own_are_the_same(tmp_path, parts, monkeypatch):
    given = {"steps": 1, "save_steps": (), "prompts_per_step": 2}
    run(tmp_path / "here", parts, **given)
    trainer = online.make_online_trainer(
        config(**given), tmp_path / "there" / "out", context(tmp_path / "there"), **parts
    )
    monkeypatch.setattr(trainer, "_draw", lambda step: trainer.rounds.draw_elsewhere(step, trainer.publish))
    train(trainer)
    here, there = (list(read_rows(tmp_path / name / "work" / "micro-rounds" / "step-1")) for name in ("here", "there"))
    assert here == there
    assert folder_digest(tmp_path / "here" / "out", "metrics.jsonl") == folder_digest(
        tmp_path / "there" / "out", "metrics.jsonl"
    )


STEPS = {
    "prompts": {"type": "generator", "generator": "addition"},
    "rollouts": {"stage": "rollout", "prompts": "prompts"},
    "teacher": {"rollouts": "rollouts", "loss": {"type": "ce"}, "steps": 2},
    "signal": {"rollouts": "rollouts", "numerator": "teacher"},
    "student": {"stage": "distill", "rollouts": "rollouts", "signal": "signal", "steps": 2},
}


def test_an_online_phase_stands_between_two_offline_rounds():
    online_step = {"prompts": "prompts", "init": "student", "steps": 6, "save_steps": [3]}
    first = {"base": {"type": "tiny"}, **STEPS, "online": online_step}
    between = {"prompts": STEPS["prompts"], "more": {"stage": "online", "prompts": "prompts", "steps": 2}}
    rounds = [
        {"steps": first},
        {"policy": "r1/online@step-3", "steps": between},
        {"policy": "r2/more", "steps": STEPS},
    ]
    plan = make_plan(build_recipe({"run": "t", "rounds": rounds}, "test"))
    source = {node.name: {edge.role: (edge.source, edge.saved_step) for edge in node.inputs} for node in plan.nodes}
    assert source["r1/online"] == {"init": ("r1/student", None), "prompts": ("r1/prompts", None)}
    assert source["r2/more"]["init"] == ("r1/online", 3)
    assert source["r3/rollouts"]["policy"] == source["r3/student"]["init"] == ("r2/more", None)
    assert plan.node("r1/online").pushed_steps == (3, 6)
    assert plan.node("r1/online").stage.kind == "checkpoint"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": {"type": "server", "urls": ["http://a/v1"]}}, "engine.type: expected transformers or vllm"),
        ({"loss": {"type": "ce"}}, "loss.type: expected one without a reference"),
        ({"loss": {"type": "ppo"}}, "loss.type: expected one without a critic"),
        ({"loss": {"type": "sft"}}, "loss.type: expected one that learns from wrong"),
        ({"k": 1}, "k: expected at least 2"),
        ({"decoding": {"temperature": 0}}, "decoding.temperature: expected more than 0"),
    ],
)
def test_what_an_online_phase_cannot_do_is_refused(changes, message):
    steps = {"base": {"type": "tiny"}, "prompts": STEPS["prompts"]}
    steps["online"] = {"prompts": "prompts", "steps": 2, **changes}
    with pytest.raises(ConfigError, match=message):
        build_recipe({"run": "t", "steps": steps}, "test")


def test_a_parked_policy_comes_back_as_it_was(parts):
    model = load_model(parts["init"])
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = [value.clone() for held in optimizer.state.values() for value in held.values()]
    with parked(model, optimizer):
        assert all(value.device.type == "cpu" for value in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(map(torch.equal, state, [value for held in optimizer.state.values() for value in held.values()]))


TRL = {
    "backend": "trl", "engine": TransformersEngine(), "kl_to_start": False, "prompts_per_step": 2,
    "micro_batch_tokens": 80,
}  # fmt: skip
"""Of eight samples a step four fit into a pass."""


@pytest.fixture
def even(parts, tmp_path):
    return parts | {"prompts": write_prompts(tmp_path / "even", 4)}


def test_a_phase_in_trl_leaves_what_ours_does(tmp_path, even, reward, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("trl.trainer.base_trainer.send_telemetry", lambda *_, **__: pytest.fail("TRL tells of a run"))
    done = run(tmp_path / "trl", even, **TRL, reward=reward, steps=8, k=8, learning_rate=1e-2)
    own = run(tmp_path / "own", even, **TRL | {"backend": "own"}, reward=reward)
    lines = dynamics(tmp_path / "trl")
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["reward"] > lines[0]["reward"]
    assert set(own.metrics) - {"engine"} >= set(lines[0]) - {"step"}
    assert (done.metrics["backend"], done.metrics["trl"]) == ("trl", version("trl"))
    assert (done.metrics["samples"], done.step_metrics[2]["samples"]) == (8 * 2 * 8, 2 * 2 * 8)
    assert "backend" not in own.metrics
    folders = (even["init"], tmp_path / "trl" / "out" / "step-8")
    before, after = (folder_digest(each, "dynamics.jsonl", "metrics.jsonl", "model.safetensors") for each in folders)
    assert before == after, "what TRL sets in model and tokenizer is not saved"
    times = [json.loads(line) for line in (tmp_path / "trl" / "out" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["sampling_seconds"] < line["seconds"] for line in times)


@pytest.mark.parametrize(
    "loss",
    [
        {"type": "grpo"},
        {"type": "sapo", "tau_positive": 0.5},
        {"type": "gspo"},
        {"type": "cispo"},
        {"type": "vespo", "k_positive": 1.5, "lambda_negative": 1.0},
    ],
    ids=lambda loss: loss["type"],
)
def test_a_step_in_trl_is_our_step_on_the_same_samples(tmp_path, even, reward, loss, monkeypatch):
    given = TRL | {"steps": 1, "save_steps": (), "loss": loss, "reward": reward}
    given |= {"decoding": Decoding(max_new_tokens=12, temperature=0.8), "logprob_temperature": 0.8}
    theirs = run(tmp_path / "trl", even, **given)
    drawn = tmp_path / "trl" / "work" / "samples"
    assert [(row["problem_id"], row["k"]) for row in read_rows(drawn)] == order(even, given)
    assert len(set(row["text"] for row in read_rows(drawn))) > 1
    monkeypatch.setattr(OnlineTrainer, "_draw", lambda *_: drawn)
    ours = run(tmp_path / "own", even, **given | {"backend": "own"})
    # TRL adds 1e-4 to a deviation of some 0.5.
    same = {"grad_norm", "entropy", "reward", "tokens", "mean_length", "truncated", "prompts_mixed"}
    assert 0 < theirs.metrics["reward"] < 1
    for name in same:
        assert theirs.metrics[name] == pytest.approx(ours.metrics[name], rel=5e-4), name
    start = load_model(even["init"])
    after = [load_model(tmp_path / name / "out" / "step-1") for name in ("trl", "own")]
    moved = apart = 0.0
    for before, trl, own in zip(*(model.parameters() for model in (start, *after)), strict=True):
        moved += float((own - before).detach().abs().sum())
        apart += float((own - trl).detach().abs().sum())
    assert apart < 0.01 * moved


def order(parts, given):
    """Our trainer's samples of the first step: problem and k."""
    problems, format = read_prompts(parts["prompts"])
    step = online.prompt_steps(problems, given["prompts_per_step"], 1, 0)[0]
    prompts = render_prompts(step.problems, format, load_tokenizer(parts["init"]))
    return [(prompt.problem.problem_id, k) for prompt in prompts for k in range(4)]


def test_a_phase_in_trl_killed_at_a_step_ends_in_the_same_bytes(tmp_path, even, reward, monkeypatch):
    run(tmp_path / "whole", even, **TRL, reward=reward)

    def killed_at_2(then):
        def wrapper(self, *arguments, **named):
            state = named["trainer_state"] if named else self.state
            if state.global_step == 2:
                raise KeyboardInterrupt
            return then(self, *arguments, **named)

        return wrapper

    for owner, name in ((TRLTrainer, "save_step"), (OwnReward, "__call__")):  # of step 2, and in step 3
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, killed_at_2(getattr(owner, name)))
            run(tmp_path / "killed", even, **TRL, reward=reward)
    assert [path.name for path in (tmp_path / "killed" / "work").glob("checkpoint-*")] == ["checkpoint-2"]
    run(tmp_path / "killed", even, **TRL, reward=reward)
    whole, resumed = (folder_digest(tmp_path / name / "out", "metrics.jsonl") for name in ("whole", "killed"))
    assert whole == resumed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"type": "dr_grpo"}}, "loss.type: expected grpo, sapo, gspo, cispo, vespo"),
        ({"engine": {"type": "vllm"}}, "engine.type: expected transformers"),
        ({"engine": {"dtype": "bfloat16"}}, "engine.dtype: expected auto or float32"),
        ({"engine": {"batch_tokens": 512}}, "engine.batch_tokens: expected nothing"),
        ({"logprob_temperature": 0.5}, "logprob_temperature: expected decoding's, 1, "),
        ({"decoding": {"presence_penalty": 1.5}}, "decoding.presence_penalty: expected 0"),
        ({"layout": "packed"}, "layout: expected padded or auto"),
        ({"kl_to_start": True}, "kl_to_start: expected false"),
        ({"lora": {}}, "lora: expected none"),
        ({"parallel": "fsdp2"}, "parallel: expected auto"),
    ],
)
def test_what_trl_has_not_is_refused(changes, message):
    with pytest.raises(ValueError, match=message + ".*; or take backend: own"):
        config(**TRL | changes)


def test_prompts_that_trl_would_get_wrong_are_refused(tmp_path, parts):
    with pytest.raises(StageError, match="prompts in whole steps of 2 with backend: trl, got 5; set limit: 4"):
        run(tmp_path, parts, **TRL)
    format = json.loads((parts["prompts"] / "format.json").read_text())
    (parts["prompts"] / "format.json").write_text(json.dumps(format | {"stop": ["\n"]}))
    with pytest.raises(StageError, match="prompts without stop strings"):
        run(tmp_path, parts, **TRL, limit=4)


def test_a_model_with_learned_positions_is_refused_to_trl(tmp_path, even):
    tokenizer = load_tokenizer(even["init"])
    learned = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=24, n_layer=2, n_head=2))
    save_checkpoint(learned, tokenizer, tmp_path / "learned")
    with pytest.raises(ConfigError, match="backend: expected own for GPT2LMHeadModel"):
        run(tmp_path, even | {"init": tmp_path / "learned"}, **TRL)


def test_the_backend_is_no_part_of_what_there_was():
    assert "backend" not in identity(config())
    assert identity(config(**TRL))["backend"] == "trl"


def test_trl_is_told_what_our_trainer_is(tmp_path, even):
    given = config(**TRL, warmup_steps=2, weight_decay=0.1, max_grad_norm=0.5, dtype="bfloat16")
    prompts = [[Prompt(problem, tuple(range(5)), False) for problem in read_prompts(even["prompts"])[0][:2]]]
    theirs, ours = grpo_arguments(given, context(tmp_path), prompts), training_arguments(given, context(tmp_path))
    for name in ("learning_rate", "adam_beta2", "warmup_steps", "weight_decay", "max_grad_norm", "lr_scheduler_type"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert theirs.bf16 and theirs.to_dict()["output_dir"] == "", "trackers are sent it"
    # Of eight samples of 17 tokens four fit into 80, so two passes make a step, which are sampled together.
    sizes = (theirs.per_device_train_batch_size, theirs.gradient_accumulation_steps, theirs.steps_per_generation)
    assert sizes == (4, 2, 2)
