import logging

import pytest
import torch
from architectures import ARCHITECTURES, random_model

from erpd_hub.errors import ConfigError
from erpd_hub.layout import cut_batches, exact_layout
from erpd_hub.logprobs import install_logprob_forward, response_logprobs
from erpd_hub.response_batch import make_batch

LENGTHS = [3, 90, 40, 60, 7, 10, 55]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gets_a_layout_in_which_it_is_exact(name: str, caplog) -> None:
    model = random_model(name)
    packs = name != "qwen3.5"  # its linear attention carries its state over, and says nothing
    assert exact_layout(model, "padded", dtype="float32") == "padded"
    with caplog.at_level(logging.WARNING):
        assert exact_layout(model, "packed", dtype="float32") == ("packed" if packs else "single")
    assert ("packed rows change" in caplog.text) != packs
    assert exact_layout(model, "auto", dtype="bfloat16") == "padded"  # a mask over a packed row costs its square
    assert exact_layout(model, "single", dtype="float32") == "single"


def test_structure_is_probed_in_fp32_also_for_a_body_in_bf16() -> None:
    assert exact_layout(random_model("qwen3.5", gain=1.0), "packed", dtype="bfloat16") == "single"
    model = random_model("qwen3")
    install_logprob_forward(model, "bfloat16")
    assert exact_layout(model, "packed", dtype="bfloat16") == "packed"


@pytest.mark.parametrize(("change", "layout"), [(1e-4, "padded"), (1e-2, "single")])
def test_rounding_of_another_batch_is_allowed_and_no_more(change: float, layout: str) -> None:
    model = random_model("llama")
    inner = model.model.norm.forward
    model.model.norm.forward = lambda hidden: inner(hidden) * (1 + change * (len(hidden) > 1))
    assert exact_layout(model, "auto", dtype="float32") == layout


def test_an_unknown_change_of_the_logits_is_refused() -> None:
    model = random_model("llama")
    inner = model.lm_head.forward
    model.lm_head.forward = lambda hidden: 0.5 * inner(hidden)
    with pytest.raises(ConfigError, match="logit_transform"):
        exact_layout(model, "auto", dtype="float32")


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_layouts_agree_in_value_and_gradient(name: str) -> None:
    model = random_model(name)
    prompts, responses = [[2, 5, 6, 3], [7], [2, 9, 8]], [[5, 6, 7, 1], [0, 8], [9, 4, 4]]
    found = {}
    for layout in ("padded", "packed"):
        batch = make_batch(prompts, responses, layout=layout)
        scored = response_logprobs(model, batch, temperature=0.8, with_entropy=True)
        model.zero_grad()
        (scored.logprobs.sum() + 0.1 * scored.entropy.sum()).backward()
        found[layout] = [scored.logprobs.detach(), scored.entropy.detach()]
        found[layout] += [parameter.grad.clone() for parameter in model.parameters()]
    assert make_batch(prompts, responses, layout="packed").input_ids.shape == (1, 17)
    torch.testing.assert_close(found["packed"], found["padded"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["packed", "padded", "single"])
@pytest.mark.parametrize("budget", [1, 64, 100, 1000])
def test_cuts_hold_every_sequence_once_within_the_budget(layout: str, budget: int) -> None:
    cuts = list(cut_batches(LENGTHS, budget, layout))
    assert sorted(index for cut in cuts for index in cut) == list(range(len(LENGTHS)))
    assert cuts[0][0] == 1
    for cut in cuts:
        inside = [LENGTHS[index] for index in cut]
        tokens = sum(inside) if layout == "packed" else len(inside) * max(inside)
        assert len(cut) == 1 or (tokens <= budget and layout != "single")


def test_a_packed_row_is_filled_with_the_longest_that_fit() -> None:
    assert list(cut_batches(LENGTHS, 100, "packed")) == [[1, 5], [3, 2], [6, 4, 0]]
    assert list(cut_batches([], 100, "packed")) == []
