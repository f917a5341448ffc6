import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import LoraConfig, get_peft_model
from tiny import make_policy
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from erpd_hub import head
from erpd_hub.errors import ConfigError
from erpd_hub.estimators import kl_k1, kl_k3, masked_mean
from erpd_hub.exact_kl import full_vocabulary_kl, kl_to_anchor
from erpd_hub.logprobs import autocast, install_logprob_forward, response_logprobs, unwrap
from erpd_hub.response_batch import make_batch

PROMPTS = [[2, 5, 6, 3], [2, 7, 3], [2, 9, 8, 7, 6, 3]]
RESPONSES = [[5, 6, 7, 1], [0, 8, 1], [9]]  # 0 is the padding id and a token like any other here


def naive(model, prompt: list[int], response: list[int], temperature: float) -> tuple[Tensor, Tensor]:
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / temperature
    log_p = torch.log_softmax(logits, dim=-1)
    return log_p.gather(-1, torch.tensor(response)[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def gradients(model, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("elements", [1 << 20, 50])
def test_chunked_equals_naive_in_value_and_gradient(temperature: float, elements: int, monkeypatch) -> None:
    monkeypatch.setattr(head, "_CHUNK_CPU", elements)
    model, _ = make_policy()
    scored = response_logprobs(model, make_batch(PROMPTS, RESPONSES), temperature=temperature, with_entropy=True)
    expected = [naive(model, p, r, temperature) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    for row, (values, entropy) in enumerate(expected):
        torch.testing.assert_close(scored.logprobs[row, : len(values)], values)
        torch.testing.assert_close(scored.entropy[row, : len(values)], entropy)
        assert not scored.logprobs[row, len(values) :].any()
    weights = torch.rand(scored.logprobs.shape, generator=torch.Generator().manual_seed(0))
    ours = (weights * (scored.logprobs + 0.3 * scored.entropy)).sum()
    theirs = sum((weights[i, : len(v)] * (v + 0.3 * e)).sum() for i, (v, e) in enumerate(expected))
    for a, b in zip(gradients(model, ours), gradients(model, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("elements", [1 << 20, 50])
def test_exact_kl_to_an_anchor_in_value_and_gradient(elements: int, monkeypatch) -> None:
    monkeypatch.setattr(head, "_CHUNK_CPU", elements)
    model, anchor = make_policy()[0], make_policy(seed=1)[0]
    batch = make_batch(PROMPTS, RESPONSES)
    found = kl_to_anchor(model, anchor, batch, temperature=0.7, dtype="float32")
    torch.testing.assert_close(found, full_vocabulary_kl(model, anchor, batch, temperature=0.7).kl)
    expected = torch.zeros(())
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logs = [
            torch.log_softmax(m(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.7, -1)
            for m in (model, anchor)
        ]
        expected = expected + (logs[0].exp() * (logs[0] - logs[1].detach())).sum()
    for a, b in zip(gradients(model, found.sum()), gradients(model, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_padding_and_company_change_nothing() -> None:
    model, _ = make_policy()
    together = response_logprobs(model, make_batch(PROMPTS, RESPONSES), temperature=1.0).logprobs
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        alone = response_logprobs(model, make_batch([prompt], [response]), temperature=1.0).logprobs[0]
        torch.testing.assert_close(together[row, : len(response)], alone)


def test_mask_counts_tokens_and_does_not_look_at_them() -> None:
    mask = make_batch(PROMPTS, RESPONSES).mask
    assert mask.tolist() == [[True] * 4, [True, True, True, False], [True, False, False, False]]


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def as_it_is(model):
    return model


def with_ddp(model):
    return torch.nn.parallel.DistributedDataParallel(model)


def with_fsdp2(model):
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def with_accelerate(model):
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True).prepare(model)


@pytest.mark.parametrize("wrap", [as_it_is, with_ddp, with_fsdp2, with_accelerate])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wrappers_change_neither_values_nor_gradients(wrap, dtype: str, one_process) -> None:
    batch = make_batch(PROMPTS, RESPONSES, layout="packed")
    bare, wrapped = make_policy()[0], make_policy()[0]
    install_logprob_forward(wrapped, dtype)
    wrapped = wrap(wrapped)
    with autocast(bare.device, dtype):
        expected = response_logprobs(bare, batch, temperature=0.7, with_entropy=True)
    found = response_logprobs(wrapped, batch, temperature=0.7, with_entropy=True)
    assert found.logprobs.dtype == torch.float32
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    for scored in (found, expected):
        (scored.logprobs.sum() + scored.entropy.sum()).backward()
    for (name, a), b in zip(wrapped.named_parameters(), bare.parameters(), strict=True):
        gradient = a.grad.full_tensor() if isinstance(a.grad, DTensor) else a.grad
        torch.testing.assert_close(gradient, b.grad, msg=name)
    if wrap is with_fsdp2:
        assert isinstance(unwrap(wrapped), FSDPModule)
    ids = torch.tensor([PROMPTS[0]])
    torch.testing.assert_close(wrapped(ids).logits, bare(ids).logits)


def test_an_adapter_is_scored_through_its_wrapper() -> None:
    batch = make_batch(PROMPTS, RESPONSES)
    policy, _ = make_policy()
    install_logprob_forward(policy)
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    found = response_logprobs(adapted, batch, temperature=1.0)
    found.logprobs.sum().backward()
    assert all(p.grad is not None for name, p in adapted.named_parameters() if "lora" in name)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(found.logprobs, response_logprobs(merged, batch, temperature=1.0).logprobs)


def test_a_head_that_is_not_linear_is_refused() -> None:
    policy, _ = make_policy()
    policy.lm_head = torch.nn.Identity()
    with pytest.raises(ConfigError, match="linear output head"):
        install_logprob_forward(policy)


def test_full_vocabulary_kl_is_exact_and_gives_both_logprobs(monkeypatch) -> None:
    monkeypatch.setattr(head, "_CHUNK_CPU", 3 * 22)
    p, q = make_policy(0)[0], make_policy(1)[0]
    batch = make_batch(PROMPTS, RESPONSES)
    compared = full_vocabulary_kl(p, q, batch)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        ids = torch.tensor([prompt + response])
        log_p, log_q = (torch.log_softmax(m(ids).logits[0, len(prompt) - 1 : -1], -1) for m in (p, q))
        torch.testing.assert_close(compared.kl[row, : len(response)], (log_p.exp() * (log_p - log_q)).sum(-1))
    scored = response_logprobs(p, batch, temperature=1.0, with_entropy=True)
    torch.testing.assert_close(compared.logprobs_p, scored.logprobs)
    torch.testing.assert_close(compared.entropy, scored.entropy)
    torch.testing.assert_close(compared.logprobs_q, response_logprobs(q, batch, temperature=1.0).logprobs)
    assert not full_vocabulary_kl(p, p, batch).kl.any()


def test_kl_estimators_are_unbiased_over_p() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.5, 0.3]).log()
    exact = (p.exp() * (p - q)).sum()
    torch.testing.assert_close((p.exp() * kl_k1(p, q)).sum(), exact)
    torch.testing.assert_close((p.exp() * kl_k3(p, q)).sum(), exact)
    assert (kl_k3(p, q) >= 0).all()
    assert torch.isfinite(kl_k3(torch.tensor(-200.0), torch.tensor(0.0)))


def test_masked_mean() -> None:
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[True, True], [True, False]])
    assert masked_mean(values, mask) == 3
    assert masked_mean(values, mask, axis=-1).tolist() == [2, 5]
    assert masked_mean(values, torch.zeros_like(mask)) == 0
