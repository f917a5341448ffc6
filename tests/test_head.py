import pytest
import torch
from torch import Tensor
from trl.kernels import ChunkedLogProbFunction

from erpd_hub import head
from erpd_hub.head import Transform, multiply, split, token_logprobs

TRANSFORMS = [
    Transform(),
    Transform(temperature=0.6),
    Transform(temperature=1.3, scale=0.25),
    Transform(temperature=0.7, scale=2.0, softcap=3.0),
]
N, V, H = 7, 19, 5


def inputs(dtype: torch.dtype = torch.float32, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, H, generator=generator, dtype=dtype).requires_grad_() for n in (N, V))
    by_token = torch.randn(V, generator=generator, dtype=dtype).requires_grad_() if bias else None
    return hidden, weight, by_token, torch.randint(V, (N,), generator=generator)


def naive(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, transform: Transform) -> list[Tensor]:
    logits = torch.nn.functional.linear(hidden, weight, bias) * transform.scale
    if transform.softcap is not None:
        logits = transform.softcap * torch.tanh(logits / transform.softcap)
    log_p = torch.log_softmax(logits / transform.temperature, dim=-1)
    return [log_p.gather(-1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)]


def gradients(outputs: list[Tensor], of: tuple[Tensor | None, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    loss = sum((torch.randn(N, generator=generator).to(value) * value).sum() for value in outputs)
    return list(torch.autograd.grad(loss, [tensor for tensor in of if tensor is not None]))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("chunk", [1 << 20, 3 * V])
def test_values_and_gradients_are_those_of_the_logits(transform: Transform, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr(head, "_CHUNK_CPU", chunk)
    hidden, weight, bias, targets = inputs(torch.float64)
    ours = list(token_logprobs(hidden, weight, bias, targets, transform, with_entropy=True))
    expected = naive(hidden, weight, bias, targets, transform)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(gradients(ours, (hidden, weight, bias)), gradients(expected, (hidden, weight, bias)))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_trl(transform: Transform, bias: bool) -> None:
    hidden, weight, by_token, targets = inputs(bias=bias)
    ours = list(token_logprobs(hidden, weight, by_token, targets, transform, with_entropy=True))
    tile, (temperature, scale, softcap) = 8, transform
    theirs = list(
        ChunkedLogProbFunction.apply(
            hidden, weight, by_token, targets, temperature, tile, softcap, scale, ("entropy",)
        )[:2]
    )  # fmt: skip
    torch.testing.assert_close(ours, theirs)
    of = (hidden, weight, by_token)
    torch.testing.assert_close(gradients(ours, of), gradients(theirs, of), rtol=1e-4, atol=1e-5)


def test_derivatives_match_finite_differences() -> None:
    hidden, weight, bias, targets = inputs(torch.float64)

    def outputs(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(token_logprobs(*leaves, targets, TRANSFORMS[-1], with_entropy=True))

    assert torch.autograd.gradcheck(outputs, (hidden, weight, bias))


def test_an_entropy_that_is_only_logged_changes_no_gradient() -> None:
    hidden, weight, bias, targets = inputs()
    with_it = token_logprobs(hidden, weight, bias, targets, Transform(), with_entropy=True).logprobs
    without = token_logprobs(hidden, weight, bias, targets, Transform(), with_entropy=False)
    assert without.entropy is None
    of = (hidden, weight, bias)
    for a, b in zip(gradients([with_it], of), gradients([without.logprobs], of), strict=True):
        assert torch.equal(a, b)


def test_a_frozen_head_gets_no_gradient(monkeypatch) -> None:
    hidden, weight, bias, targets = inputs()
    weight.requires_grad_(False)
    products = []
    real = head.multiply
    monkeypatch.setattr(head, "multiply", lambda *args: products.append(args) or real(*args))
    scored = token_logprobs(hidden, weight, bias.detach(), targets, Transform(), with_entropy=False)
    scored.logprobs.sum().backward()
    assert hidden.grad is not None and weight.grad is None
    assert len(products) == 3  # logits twice and the gradient of the hidden states


@pytest.mark.parametrize("autocast", [False, True])
def test_the_head_is_fp32_whatever_the_body_is(autocast: bool) -> None:
    hidden, weight, bias, targets = inputs()
    half = hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        scored = token_logprobs(half, weight, bias, targets, Transform(), with_entropy=False).logprobs
    expected = naive(half.float(), weight, bias, targets, Transform())[0]
    assert scored.dtype == torch.float32
    torch.testing.assert_close(scored, expected)
    scored.sum().backward()
    assert half.grad.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32
    torch.testing.assert_close(weight.grad, torch.autograd.grad(expected.sum(), weight)[0])


def product_error(parts: int, *, left: torch.dtype = torch.float32) -> float:
    """Of a product of sums of bf16 parts, relative to the size of its terms, in units of a plain fp32 product's."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 512, generator=generator) for n in (64, 96))
    a = a.to(left).float()
    exact = a.double() @ b.double().T
    product = multiply(split(a.to(left), parts), tuple(part.T for part in split(b, parts)))
    return ((product - exact).square().mean() / (a @ b.T - exact).square().mean()).sqrt().item()


def test_three_bf16_parts_multiply_as_exactly_as_fp32() -> None:
    assert product_error(3) < 1.5  # measured: 0.5 of 2.8e-7
    assert product_error(3, left=torch.bfloat16) < 1.5
    assert product_error(2) < 50  # measured: 16
    assert product_error(1) > 1000


def test_parts_sum_to_the_value() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for parts in (1, 2, 3):
        error = (sum(part.double() for part in split(values, parts)) - values).abs() / values.abs()
        assert error.max() <= 2.0 ** (-8 * parts)
    assert all(part.dtype == torch.bfloat16 for part in split(values, 3))
    assert len(split(values.bfloat16(), 3)) == 1


def test_split_products_give_the_gradients_of_the_head(monkeypatch) -> None:
    """The way of a GPU, its products emulated."""
    monkeypatch.setattr(head, "_num_parts", lambda device, low_precision: 2 if low_precision else 3)
    hidden, weight, bias, targets = inputs()
    expected = naive(hidden, weight, bias, targets, Transform())
    wanted = gradients(expected, (hidden, weight, bias))
    for autocast, tolerance in ((False, 1e-5), (True, 2e-2)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            ours = list(token_logprobs(hidden, weight, bias, targets, Transform(), with_entropy=True))
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4 if autocast else 1e-6)
        torch.testing.assert_close(gradients(ours, (hidden, weight, bias)), wanted, rtol=tolerance, atol=tolerance)
