"""Counting and the bill: parameters against real models, memory and time by hand, plans of the shipped recipes."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import cli
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3_5ForCausalLM,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from erpd_hub.config import TinyBase
from erpd_hub.errors import ConfigError, StageError
from erpd_hub.plan import make_plan
from erpd_hub.planning.bill import base_facts, bill_plan, default_setting
from erpd_hub.planning.devices import DEVICES, get_device
from erpd_hub.planning.draws import draw_of
from erpd_hub.planning.durations import sampling_time, training_flops, weighted_length
from erpd_hub.planning.fitting import comparing_memory, require_comparable, require_fit
from erpd_hub.planning.memory import training_memory
from erpd_hub.planning.preview import Machine, preview
from erpd_hub.planning.shapes import KNOWN, facts_from_config, facts_of_repository, tiny_facts
from erpd_hub.planning.storage import work_storage
from erpd_hub.recipe import load_recipe
from erpd_hub.tables import print_plan, print_preview
from erpd_hub.tiny_policies import tiny_policy

QWEN = KNOWN["qwen3-4b"]


def _shape(facts):
    return {
        "vocab_size": facts.vocab,
        "hidden_size": facts.hidden,
        "intermediate_size": facts.intermediate,
        "num_hidden_layers": facts.layers,
        "num_attention_heads": facts.heads,
        "num_key_value_heads": facts.kv_heads,
        "head_dim": facts.head_dim,
        "tie_word_embeddings": facts.tied,
    }


def _linear(facts):
    it = facts.linear
    return {
        "linear_num_key_heads": it.key_heads,
        "linear_num_value_heads": it.value_heads,
        "linear_key_head_dim": it.key_dim,
        "linear_value_head_dim": it.value_dim,
        "linear_conv_kernel_dim": it.kernel,
    }


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (Qwen3ForCausalLM, Qwen3Config(**_shape(QWEN))),
        (LlamaForCausalLM, LlamaConfig(**_shape(KNOWN["nbg4-3b"]))),
        (LlamaForCausalLM, LlamaConfig(**_shape(KNOWN["smollm2-135m"]))),
        (Qwen3_5ForCausalLM, Qwen3_5TextConfig(**_shape(KNOWN["qwen3.5-9b"]), **_linear(KNOWN["qwen3.5-9b"]))),
    ],
    ids=["qwen3-4b", "nbg4-3b", "smollm2-135m", "qwen3.5-9b"],
)
def test_the_parameters_are_those_of_the_real_model(model, config, request):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in model(config).parameters())
    name = request.node.callspec.id
    assert KNOWN[name].params == count
    read = facts_from_config(config.to_dict(), name)
    assert replace(read, stored="bfloat16", mean_response=KNOWN[name].mean_response) == KNOWN[name]


def test_the_tiny_policy_is_counted_too():
    config = TinyBase(type="tiny")
    assert tiny_facts(config).params == tiny_policy(config, 0)[0].num_parameters() == KNOWN["tiny"].params


def test_shapes_that_are_not_read_are_none_and_names_go_by_the_hub():
    experts = Qwen3Config(**_shape(QWEN)).to_dict() | {"num_experts": 8}
    assert facts_from_config(experts) is None
    assert facts_from_config({"hidden_size": 4}) is None
    assert facts_of_repository("Qwen/Qwen3-4B-Thinking-2507") is QWEN
    assert facts_of_repository("nobody/nothing") is None


def test_a_forward_is_two_operations_a_weight_and_half_the_square_of_attention():
    tokens = length = 32_768
    by_hand = 2 * (QWEN.body + QWEN.embedding) * tokens + 36 * 4 * 32 * 128 * length**2 / 2
    assert QWEN.forward_flops(tokens, length) == pytest.approx(by_hand)
    assert training_flops(QWEN, tokens=tokens, length=length) == pytest.approx(3 * by_hand)
    assert QWEN.cache_bytes_per_token == 2 * 36 * 8 * 128 * 2


def test_training_memory_by_hand():
    memory = training_memory(QWEN, tokens=32_768, gradient_checkpointing=True)
    params = 4_022_468_096
    assert (memory.weights, memory.gradients, memory.optimizer) == pytest.approx(
        (params * 4e-9, params * 4e-9, params * 8e-9)
    )
    kept = 36 * 2560 * 4 * 32_768 / 1e9
    assert memory.activations > kept
    logits, parts, gradient = 2 * 4 * 2**28, 2 * 2 * 151_936 * 2560, 4 * 151_936 * 2560
    assert memory.head == pytest.approx((logits + parts + gradient) / 1e9)
    assert memory.total == pytest.approx(
        memory.weights + memory.gradients + memory.optimizer + memory.activations + memory.head
    )
    for part in (f"{memory.weights:.1f}", "4.02 B trained", f"{kept:.1f} kept", f"= {memory.total:.1f} GB"):
        assert part in memory.arithmetic
    assert training_memory(QWEN, tokens=81_920, gradient_checkpointing=True).total < get_device("h200").usable


def test_a_training_needs_disk_for_its_steps_and_two_checkpoints():
    params = 4_022_468_096
    assert work_storage(QWEN, "bfloat16", saved=4) == pytest.approx(params * (2 * 4 + 2 * 12) / 1e9)
    assert work_storage(QWEN, "float32", saved=1, lora_rank=8) < 2


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp2", "zero3"])
def test_memory_grows_with_tokens_and_shrinks_with_every_remedy(strategy):
    layout = {"gpus": 1 if strategy == "single" else 8, "strategy": strategy}
    small, large = (training_memory(QWEN, tokens=n, gradient_checkpointing=True, **layout) for n in (8192, 16_384))
    assert small.total < large.total
    kept = training_memory(QWEN, tokens=16_384, **layout)
    assert large.total < kept.total
    offloaded = training_memory(QWEN, tokens=16_384, gradient_checkpointing=True, offload=True, **layout)
    assert offloaded.total < large.total
    assert offloaded.host > 0
    assert training_memory(QWEN, tokens=16_384, gradient_checkpointing=True, lora_rank=16, **layout).total < large.total


def test_sharding_divides_the_states_and_ddp_does_not():
    single, ddp, fsdp2 = (
        training_memory(QWEN, tokens=8192, gradient_checkpointing=True, gpus=n, strategy=s)
        for n, s in ((1, "single"), (8, "ddp"), (8, "fsdp2"))
    )
    assert ddp.optimizer == single.optimizer
    assert fsdp2.optimizer == pytest.approx(single.optimizer / 8)
    assert ddp.gradients == pytest.approx(2 * single.gradients)  # its buckets copy them


def test_what_cannot_fit_is_refused_with_the_arithmetic_and_a_change_that_helps():
    layout = {"tokens": 81_920, "gpus": 1, "strategy": "single", "gradient_checkpointing": False}
    with pytest.raises(StageError, match=r"^teacher: expected at most 80\.0 GB a GPU, got weights 16\.1 .* on 2 GPUs$"):
        require_fit("teacher", QWEN, 80.0, **layout)
    with pytest.raises(StageError, match=r"; set gradient_checkpointing=true parallel=fsdp2$"):
        require_fit("teacher", QWEN, 80.0, **layout | {"gpus": 8, "strategy": "ddp"})
    with pytest.raises(StageError, match="use shorter responses"):
        require_fit("teacher", QWEN, 1.0, **layout)
    fits = layout | {"gradient_checkpointing": True}
    assert require_fit("teacher", QWEN, 140.0, **fits).total < 140


def test_a_probe_holds_two_models_or_one_after_the_other_or_is_refused():
    need = {"tokens": 16_384, "dtype": "bfloat16"}
    two, one = (comparing_memory(QWEN, room, **need) for room in (80.0, 30.0))
    assert (two.together, one.together) == (True, False)
    assert two.memory.weights == pytest.approx(2 * one.memory.weights) == pytest.approx(2 * 4 * 4.022468096)
    assert "weights of 2 models 32.2" in two.memory.arithmetic
    assert require_comparable("probe", QWEN, 30.0, **need) == one
    with pytest.raises(
        StageError, match=r"^probe: expected at most 10\.0 GB, got weights 16\.1 .*; set a smaller micro"
    ):
        require_comparable("probe", QWEN, 10.0, **need)


@pytest.mark.parametrize(
    ("model", "gpu", "fits", "remedy"),
    [
        ("qwen3.5-27b", "h200", True, "one model at a time: no exact KL"),
        ("qwen3.5-27b", "h100", False, "use GPUs with more memory"),
    ],
)
def test_the_bill_of_a_probe_is_what_it_holds_when_it_scores(model, gpu, fits, remedy):
    plan = make_plan(load_recipe(f"table11-rounds+{model}"))
    facts = base_facts(plan)
    items = bill_plan(plan, list(plan.nodes), default_setting(facts, gpu, 8), facts)
    probe = next(item for item in items if item.stage == "probe")
    assert (probe.fits, probe.remedy) == (fits, remedy)
    assert probe.gb > 4 * facts.params / 1e9


def test_sampling_is_faster_with_more_of_everything_and_slower_with_longer_answers():
    def seconds(device="h200", gpus=8, mean=19_800, facts=QWEN, engine="vllm"):
        device = get_device(device)
        return sampling_time(
            facts, device, samples=16_000, mean_tokens=mean, longest=32_768, gpus=gpus, engine=engine
        ).seconds

    assert seconds(gpus=8) < seconds(gpus=4)
    assert seconds("h200") < seconds("h100") < seconds("a100")
    assert seconds(mean=10_000) < seconds(mean=19_800)
    assert seconds(facts=KNOWN["qwen3.5-9b"]) < seconds(), "a quarter of its layers has a cache"
    assert seconds(engine="vllm") < seconds(engine="transformers")


def test_length_weighted_by_tokens_is_longer_than_the_mean_and_within_the_limit():
    assert weighted_length(100, spread=0.0) == 100
    assert weighted_length(100, spread=1.0) == 200
    assert weighted_length(100, spread=1.0, limit=150) == 150


# ------------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize("name", ["qwen3-4b-ce", "qwen3-4b-mse", "qwen3.5-9b-mse"])
def test_the_big_recipes_have_a_whole_bill_and_fit_on_eight_of_the_gpus_they_name(name):
    plan = make_plan(load_recipe(name))
    facts = base_facts(plan)
    gpu = "h200" if "9b" in name else "h100"
    items = bill_plan(plan, list(plan.nodes), default_setting(facts, gpu, 8), facts)
    assert [item.step for item in items if item.seconds is None or item.fits is False] == []
    rollouts = next(item for item in items if item.stage == "rollout")
    limit = next(node.config.decoding.max_new_tokens for node in plan.nodes if node.config.stage == "rollout")
    assert rollouts.tokens_upper == 1000 * 16 * limit
    assert rollouts.tokens < rollouts.tokens_upper
    teacher = next(item for item in items if item.stage == "teacher")
    steps = next(node.config.steps for node in plan.nodes if node.config.stage == "teacher")
    assert teacher.tokens == int(rollouts.tokens * 32 * steps / 1000)


def test_no_more_problems_are_billed_than_there_are():
    """`long` evaluates on the first 100 of chain's 64 problems, four samples each."""
    plan = make_plan(load_recipe("tiny-race+long", ["rollouts.limit=1000"]))
    drawn = {name: draw_of(plan, plan.node(f"r1/{name}")) for name in ("rollouts", "evaluate/base/chain")}
    assert {name: draw.samples for name, draw in drawn.items()} == {"rollouts": 128 * 4, "evaluate/base/chain": 64 * 4}


def test_one_gpu_is_told_what_to_change():
    plan = make_plan(load_recipe("qwen3-4b-ce"))
    facts = base_facts(plan)
    items = bill_plan(plan, list(plan.nodes), default_setting(facts, "h100", 1), facts)
    teacher = next(item for item in items if item.stage == "teacher")
    assert teacher.fits is False
    assert "activation_offload=true" in teacher.remedy


def test_measured_rates_take_the_place_of_the_model():
    plan = make_plan(load_recipe("qwen3-4b-ce"))
    facts = base_facts(plan)
    setting = replace(default_setting(facts, "h100", 8), rates={"rollout": 1000.0})
    item = next(x for x in bill_plan(plan, list(plan.nodes), setting, facts) if x.stage == "rollout")
    assert item.measured
    assert item.seconds == pytest.approx(item.tokens / 8000 + 120 + item.storage_gb / 0.1)


def test_assumed_counts_are_whole_as_the_rest_of_the_arithmetic():
    assume = default_setting(QWEN, None, None, {"prompt_tokens": 300.0, "training_mfu": 0.3}).assume
    assert (repr(assume.prompt_tokens), assume.training_mfu) == ("300", 0.3)


def test_devices_and_assumptions_that_are_not_known_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"--gpu: expected one of .*did you mean 'h200'"):
        get_device("h20")
    with pytest.raises(ConfigError, match=r"--assume: expected one of .*did you mean 'training_mfu'"):
        default_setting(QWEN, None, None, {"training_mf": 0.3})
    assert all(device.usable < device.memory and device.source for device in DEVICES.values())
    plan = make_plan(load_recipe("qwen3-4b-ce", ["facts.shape=qwen3-5b"]))
    with pytest.raises(ConfigError, match=r"facts\.shape: expected one of .*did you mean"):
        base_facts(plan)


def test_plan_and_dry_run_agree_and_need_no_endpoint(tmp_path):
    """An upstream that nobody listens at: everything that is read from it is unresolved, and the bill stands."""
    dead = "hub.upstream=http://127.0.0.1:9"
    plan = json.loads(cli("plan", "qwen3-4b-ce", dead, "--gpus", 8, "--gpu", "h200", "--json", home=tmp_path).stdout)
    verdicts = {node["step"]: node["will"] for node in plan["nodes"]}
    assert verdicts["r1/base"].startswith("unresolved: http://127.0.0.1:9: not reachable")
    assert verdicts["r1/ce"] == "make"
    assert plan["bill"]["mean_length"] == {"tokens": 19_800, "source": "the recipe's facts.mean_length"}
    totals = plan["bill"]["totals"]
    assert totals["does_not_fit"] == totals["unknown"] == []
    assert 0 < totals["gpu_hours"] < totals["gpu_hours_upper"]
    dry = json.loads(cli("run", "qwen3-4b-ce", dead, "--gpus", 8, "--dry-run", "--json", home=tmp_path).stdout)
    assert [node["tokens"] for node in dry["nodes"]] == [node["tokens"] for node in plan["nodes"]]
    assert dry["bill"]["gpu"] == "h100"


def test_the_tables_say_the_sum_and_what_it_goes_by(capsys):
    report = preview(make_plan(load_recipe("qwen3-4b-ce", ["hub.upstream="])), machine=Machine(mean_length=10_000))
    print_plan(report, explain=True)
    print_preview(report)
    shown = capsys.readouterr().out
    assert "GPU-hours" in shown
    assert "mean response 10,000 tokens (--mean-length)" in shown
    assert "4.02 B trained" in shown
    assert "training_mfu=0.4" in shown
