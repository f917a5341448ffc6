"""The clipped loss through our trainer and through TRL's GRPOTrainer: the same gradients, the same weights after."""

import copy

import pytest
import torch

from erpd_hub.benchmarks.shapes import SHAPES, random_model
from erpd_hub.benchmarks.trl import TRLBench, gradient_difference, make_steps, run, train_ours, train_trl


@pytest.mark.parametrize("lengths", ["even", "heavy"])
def test_same_gradients_and_weights_as_grpo(lengths: str) -> None:
    options = TRLBench(shape="tiny", lengths=lengths, median=24, rows=8, micro_rows=2, steps=1)  # type: ignore[arg-type]
    steps = make_steps(options)
    base = random_model(SHAPES["tiny"], torch.device("cpu"))
    ours, theirs = (train(copy.deepcopy(base), steps, options) for train in (train_ours, train_trl))
    assert gradient_difference(ours.gradients, theirs.gradients) < 1e-5
    moved = 0.0
    for (name, start), weight in zip(base.named_parameters(), ours.model.parameters(), strict=True):
        # Adam divides by the gradient's size, so weights that have next to none may go either way by the rate.
        torch.testing.assert_close(weight, theirs.model.get_parameter(name), rtol=0, atol=4.1e-6)
        moved += float((weight.detach() - start.detach()).abs().sum())
    apart = sum(
        float((weight - theirs.model.get_parameter(name)).detach().abs().sum())
        for name, weight in ours.model.named_parameters()
    )
    assert apart < 0.01 * moved


def test_report_names_every_rate() -> None:
    report = run(TRLBench(shape="tiny", lengths="heavy", median=16, rows=4, micro_rows=2, steps=1, repeats=1))
    assert report["ratio"] == report["ratios"][0] > 0
    assert len(report["ours_tokens_per_second"]) == len(report["trl_tokens_per_second"]) == 1
    assert 0 < report["padding_of_trl"] < 1 and report["gradient_difference"] < 1e-5
