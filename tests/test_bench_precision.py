import pytest
import torch

from erpd_hub.benchmarks.memory import Point, _batch, _naive_logprobs, measure, render
from erpd_hub.benchmarks.precision import compare_signals
from erpd_hub.benchmarks.shapes import random_model, shape_named
from erpd_hub.logprobs import response_logprobs


def test_equal_signals_differ_in_nothing() -> None:
    signal = torch.randn(100, generator=torch.Generator().manual_seed(0))
    found = compare_signals(signal, signal)
    assert found["correlation"] == pytest.approx(1)
    assert found["sd_difference"] == found["sign_flips"] == found["whitened_rms_difference"] == 0


def test_noise_is_measured_against_the_signal() -> None:
    signal = torch.tensor([1.0, -1.0, 3.0, -3.0])
    noise = torch.tensor([-1.5, 0.0, 1.5, 0.0])
    found = compare_signals(signal, signal + noise)
    assert found["tokens"] == 4
    assert found["sd_fp32"] == pytest.approx((20 / 3) ** 0.5)
    assert found["noise_to_signal"] == pytest.approx((1.5 / (20 / 3)) ** 0.5)
    assert found["sign_flips"] == 0.25
    assert found["sign_flips_beyond_one_sd"] == 0
    assert compare_signals(signal, 2 * signal)["whitened_rms_difference"] == pytest.approx(0, abs=1e-6)


def test_both_paths_of_the_memory_benchmark_compute_the_same() -> None:
    device = torch.device("cpu")
    model, batch = random_model(shape_named("tiny"), device), _batch(48, device)
    ours = response_logprobs(model, batch, temperature=1.0).logprobs
    torch.testing.assert_close(_naive_logprobs(model, batch), ours)
    assert int(batch.prompt_lengths) == 6


@pytest.mark.parametrize("path", ["ours", "naive"])
def test_a_point_of_the_memory_benchmark(path: str) -> None:
    assert measure(Point("tiny", 64, path, checkpointing=True, dtype="float32")) >= 0


def test_memory_report_is_a_table() -> None:
    row = {"length": 64, "checkpointing": True, "ours_mb": 1.0, "naive_mb": 2.0, "naive_per_ours": 2.0}
    report = {"shape": "tiny", "device": "cpu", "dtype": "float32", "logits_mb_per_1k_tokens": 2.1, "rows": [row]}
    assert render(report).splitlines()[-1].split() == ["64", "yes", "1", "2", "2.00"]
