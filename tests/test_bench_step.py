"""The step benchmark: its arithmetic, what it reports, and that it needs nothing a bare GPU machine lacks."""

import json
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erpd_hub.benchmarks import step
from erpd_hub.benchmarks.shapes import SHAPES, forward_flops, peak_flops, random_model, step_flops
from erpd_hub.benchmarks.step import main, parse
from erpd_hub.benchmarks.workbench import StepBench, make_row
from erpd_hub.logprobs import install_logprob_forward, response_logprobs
from erpd_hub.planning.shapes import KNOWN
from erpd_hub.training.activations import checkpoint_activations
from erpd_hub.training.batches import collate

CPU = torch.device("cpu")
TINY = SHAPES["tiny"]
WITHOUT = """
import sys
for name in ("pydantic", "trl", "pyarrow", "datasets", "typer", "rich", "deepspeed", "bitsandbytes", "flash_attn"):
    sys.modules[name] = None  # importing it fails, looking for it finds nothing
from erpd_hub.benchmarks.step import main
main(sys.argv[1:])
"""


def test_flops_are_those_that_torch_counts() -> None:
    tokens = 64
    model = random_model(TINY, CPU, attention="eager")  # the CPU's fused attention is not counted
    ids = torch.randint(TINY.vocab, (1, tokens))
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids, use_cache=False).logits
    assert counter.get_total_flops() == forward_flops(TINY, tokens, tokens, causal=False)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    total = counter.get_total_flops() + backward.get_total_flops()
    assert total == step_flops(TINY, tokens, tokens, causal=False)


def test_causal_attention_and_the_head_count_only_what_is_needed() -> None:
    pairs = 4 * TINY.layers * TINY.heads * TINY.head_dim
    both = [forward_flops(TINY, 64, 64, causal=causal) for causal in (True, False)]
    assert both[1] - both[0] == pairs * (64 * 64 - 64 * 65 // 2)
    assert both[0] - forward_flops(TINY, 64, 32) == 2 * TINY.hidden * TINY.vocab * 32


@pytest.mark.parametrize(
    ("name", "millions"), [("qwen3-4b", 4022.5), ("qwen3-1.7b", 1720.6), ("qwen3-0.6b", 596.0), ("smollm2-135m", 134.5)]
)
def test_shapes_have_the_published_number_of_weights(name: str, millions: float) -> None:
    model = random_model(SHAPES[name], torch.device("meta"))
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_peaks_by_device_name() -> None:
    assert peak_flops("NVIDIA H200") == peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("cpu") is None


def test_runs_with_torch_and_transformers_alone() -> None:
    command = [sys.executable, "-c", WITHOUT, "--shape", "tiny", "--length", "64", "--steps", "1", "--no-profile"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["teacher"]["seconds"] > 0


def test_report_of_every_length(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--shape", "tiny", "--length", "64,128", "--steps", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["device"], report["dtype"]) == ("erpd-hub/bench-step/v1", "cpu", "float32")
    assert [row["length"] for row in report["rows"]] == [64, 128]
    for row in report["rows"]:
        for part in ("teacher", "score", "distill"):
            assert row[part]["seconds"] > 0 and row[part]["mfu"] is None
        assert row["distill_per_teacher"] > 0
        assert row["teacher"]["model_tflop"] == pytest.approx(3 * row["score"]["model_tflop"])
        phases = row["teacher"]["phases"]
        assert phases["recompute of the layers"] > 0 and phases["head and loss, both ways"] > 0
        assert row["teacher"]["kernels"]["matrix products"] > 0


def test_a_length_that_does_not_fit_is_said_and_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.nn.functional.scaled_dot_product_attention

    def small(query: torch.Tensor, *rest: torch.Tensor, **keywords: object) -> torch.Tensor:
        if query.shape[2] > 64:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB. If reserved but unallocated memory is large, ...")
        return real(query, *rest, **keywords)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", small)
    options = StepBench(
        shape="tiny", lengths=(128, 64), dtype="float32", steps=1, profile=False, parts=("score", "teacher")
    )
    first, second = step.run(options)["rows"]
    assert first["score"]["out_of_memory"].startswith("tried to allocate 2 GiB")
    assert first["teacher"]["out_of_memory"] and "distill_per_teacher" not in first
    assert second["score"]["seconds"] > 0 and second["teacher"]["seconds"] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_gets_no_mask_and_no_repeated_keys(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A (T, T) mask at 81,920 tokens is 6.7 GB, and rules the flash kernels out."""
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **keywords: object) -> torch.Tensor:
        calls.append((keywords, key.shape[1]))
        return real(query, key, value, **keywords)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    model = random_model(TINY, CPU)
    checkpoint_activations(model)
    install_logprob_forward(model, dtype)  # type: ignore[arg-type]
    model.train()
    scored = response_logprobs(model, collate([make_row(TINY, 64)], CPU), temperature=1.0)
    scored.logprobs.sum().backward()
    assert len(calls) == 2 * TINY.layers  # forward and recompute
    for keywords, kv_heads in calls:
        assert keywords["attn_mask"] is None
        assert keywords["is_causal"] is True
        assert keywords["enable_gqa"] is True and kv_heads == TINY.kv_heads


def test_kept_attention_changes_no_gradient() -> None:
    gradients = []
    for keep in (False, True):
        model = random_model(TINY, CPU)
        checkpoint_activations(model, keep_attention=keep, offload=True)
        model.train()
        response_logprobs(model, collate([make_row(TINY, 64)], CPU), temperature=1.0).logprobs.sum().backward()
        gradients.append(model.base_model.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_tables_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--shape", "tiny", "--length", "32", "--steps", "1", "--part", "teacher", "--no-checkpointing"])
    shown = capsys.readouterr().out
    assert "32 tokens" in shown and "clipping and optimizer" in shown and "score" not in shown


def test_options_are_those_of_a_training_stage_by_default() -> None:
    options, as_json = parse([])
    assert (options.shape, options.lengths, options.attn) == ("qwen3-4b", (32768, 81920), "sdpa")
    assert options.checkpointing and not options.offload and not as_json


@pytest.mark.parametrize("name", ["qwen3-4b", "smollm2-135m"])
def test_shapes_are_those_that_plan_reckons_with(name: str) -> None:
    facts, shape = KNOWN[name], SHAPES[name]
    assert facts.params == sum(weight.numel() for weight in random_model(shape, torch.device("meta")).parameters())
    for field in ("layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab", "tied"):
        assert getattr(facts, field) == getattr(shape, field)
