"""Log-probs and entropy of taken tokens from hidden states, in value and gradient, without the (N, V) logits.

    z = softcap(scale (W h + b)) / temperature,  log pi(t) = z_t - logsumexp(z),  H = -sum_v pi_v log pi_v

Tokens go through in chunks with the whole vocabulary at once; the backward pass computes a chunk's logits anew. The
products are fp32 whatever the dtype of hidden states and weights: on CUDA they run on tensor cores, each fp32 operand
being a sum of bf16 parts, `(a0 + a1 + a2)(b0 + b1 + b2)` without its negligible terms. Needs torch alone.

N response tokens, V vocabulary, H hidden size.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

_CHUNK_CPU = 1 << 24
"""Logits held at once, 64 MB in fp32: a quarter of it takes twice the time, twice as much gains nothing."""
_CHUNK_CUDA = 1 << 28
"""1 GB in fp32, some 1,800 tokens of Qwen3's vocabulary: a gradient of W that is added up often costs bandwidth."""
_ALIGNED = 64
"""Rows of a chunk, for the tiles of matrix products."""
_PARTS_EXACT = 3
"""bf16 parts of an fp32 operand in fp32 models: 24 bits. Against fp64 the products err half as much as fp32 ones."""
_PARTS_AUTOCAST = 2
"""In models computed in bf16: 16 bits. The products err 16 times as much as fp32 ones, 4.5e-6 of a logit's size, where
the hidden states themselves carry 1e-3."""

Parts = tuple[Tensor, ...]


class Transform(NamedTuple):
    """What happens to logits before the softmax."""

    temperature: float = 1.0
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """In place."""
        if self.softcap is None:
            factor = self.scale / self.temperature
            return logits if factor == 1 else logits.mul_(factor)
        return logits.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap / self.temperature)

    def applied(self, logits: Tensor) -> Tensor:
        """Not in place, for autograd."""
        if self.softcap is None:
            return logits * (self.scale / self.temperature)
        return torch.tanh(logits * (self.scale / self.softcap)) * (self.softcap / self.temperature)

    def chain(self, gradient: Tensor, squashed: Tensor | None) -> Tensor:
        """Gradient wrt the raw logits, in place; `squashed` is tanh of the logits, where there is a softcap."""
        if squashed is not None:
            gradient.mul_(squashed.square_().neg_().add_(1))
        factor = self.scale / self.temperature
        return gradient if factor == 1 else gradient.mul_(factor)


class TokenLogprobs(NamedTuple):
    logprobs: Tensor  # (N,) nats
    entropy: Tensor | None  # (N,) nats over the whole vocabulary


class Head:
    """A linear output head whose products are fp32.

    Args:
        weight: (V, H).
        bias: (V,) or None.
        parts: bf16 parts of an fp32 operand; 0 multiplies in fp32 (fp64 if the weight is).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, transform: Transform, parts: int) -> None:
        self.transform = transform
        self.parts = parts
        self.weight = split(weight, parts)
        self.bias = None if bias is None else bias.to(_wide(weight.dtype))
        self.num_tokens = weight.shape[0]

    def logits(self, hidden: Parts) -> Tensor:
        """(N, V) transformed logits of (N, H) hidden states."""
        raw = multiply(hidden, tuple(part.T for part in self.weight))
        return self.transform(raw if self.bias is None else raw.add_(self.bias))

    def log_softmax(self, hidden: Tensor) -> Tensor:
        """(N, V) log-probs of all tokens, for a chunk of (N, H) hidden states."""
        return torch.log_softmax(self.logits(split(hidden, self.parts)), dim=-1)

    def chunks(self, num_rows: int) -> Iterator[slice]:
        """Tokens whose logits fit into a chunk together."""
        elements = _CHUNK_CUDA if self.weight[0].device.type == "cuda" else _CHUNK_CPU
        rows = max(1, elements // self.num_tokens)
        rows = rows // _ALIGNED * _ALIGNED or rows
        return (slice(start, start + rows) for start in range(0, num_rows, rows))


def token_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, transform: Transform, *, with_entropy: bool
) -> TokenLogprobs:
    """Log-probs of the targets and entropies, differentiable in hidden states, weight and bias.

    Args:
        hidden: (N, H).
        weight: (V, H); its gradient is not computed where it is frozen.
        targets: (N,) token ids.
    """
    low_precision = hidden.dtype == torch.bfloat16 or torch.is_autocast_enabled(hidden.device.type)
    return TokenLogprobs(
        *_TokenLogprobs.apply(hidden, weight, bias, targets, transform, with_entropy, low_precision)
    )  # fmt: skip


def make_head(weight: Tensor, bias: Tensor | None, transform: Transform, *, low_precision: bool) -> Head:
    return Head(weight, bias, transform, _num_parts(weight.device, low_precision))


def split(values: Tensor, parts: int) -> Parts:
    """bf16 tensors that sum to `values` up to 2^-(8 parts) of their size; with parts = 0 the values as they are, wide.

    bf16 values are their own only part.
    """
    if parts == 0:
        return (values.to(_wide(values.dtype)),)
    if values.dtype == torch.bfloat16:
        return (values,)
    found, rest = [values.bfloat16()], values
    for _ in range(parts - 1):
        rest = rest - found[-1]
        found.append(rest.bfloat16())
    return tuple(found)


def multiply(a: Parts, b: Parts, out: Tensor | None = None) -> Tensor:
    """(N, M) sum of the products of parts that matter, in fp32; added to `out` where given."""
    terms = max(len(a), len(b))
    for i, first in enumerate(a):
        for second in b[: terms - i]:
            out = _multiply_add(first, second, out)
    assert out is not None
    return out


def _multiply_add(a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
    if a.dtype == torch.bfloat16 and a.device.type == "cuda":
        if out is None:
            return torch.mm(a, b, out_dtype=torch.float32)
        return torch.addmm(out, a, b, out_dtype=torch.float32, out=out)
    a, b = a.to(_wide(a.dtype)), b.to(_wide(b.dtype))
    return torch.mm(a, b) if out is None else out.addmm_(a, b)


def _num_parts(device: torch.device, low_precision: bool) -> int:
    """0 where tensor cores cannot give fp32 sums of bf16 products."""
    if device.type != "cuda" or torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return 0
    return _PARTS_AUTOCAST if low_precision else _PARTS_EXACT


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, transform: Transform,
        with_entropy: bool, low_precision: bool,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        ctx.set_materialize_grads(False)  # an entropy that is only logged must cost nothing
        ctx.transform, ctx.low_precision = transform, low_precision
        logprobs = torch.empty(len(hidden), dtype=_wide(weight.dtype), device=hidden.device)
        normalizers, entropy = torch.empty_like(logprobs), torch.empty_like(logprobs) if with_entropy else None
        with torch.autocast(hidden.device.type, enabled=False):
            head = make_head(weight, bias, transform, low_precision=low_precision)
            for at in head.chunks(len(hidden)):
                logits, taken = head.logits(split(hidden[at], head.parts)), targets[at, None]
                log_p = torch.log_softmax(logits, dim=-1)
                logprobs[at] = log_p.gather(-1, taken)[:, 0]
                normalizers[at] = logits.gather(-1, taken)[:, 0] - logprobs[at]
                if entropy is not None:
                    entropy[at] = -torch.mul(log_p, torch.exp(log_p, out=logits), out=logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, normalizers, entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        by_logprob, by_entropy = gradients
        hidden, weight, bias, targets, normalizers, entropy = ctx.saved_tensors
        if by_logprob is None:
            by_logprob = torch.zeros_like(normalizers)
        wide = _wide(weight.dtype)
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        by_weight = torch.zeros_like(weight, dtype=wide) if ctx.needs_input_grad[1] else None
        by_bias = torch.zeros_like(bias, dtype=wide) if ctx.needs_input_grad[2] else None
        with torch.autocast(hidden.device.type, enabled=False):
            head = make_head(weight, bias, ctx.transform, low_precision=ctx.low_precision)
            # A bf16 model's other products have bf16 operands too; their sums here are still fp32.
            parts = min(head.parts, 1) if ctx.low_precision else head.parts
            for at in head.chunks(len(hidden)):
                states = split(hidden[at], head.parts)
                of_entropy = None if by_entropy is None else (by_entropy[at], entropy[at])
                by_logits = _by_logits(head, states, targets[at], normalizers[at], by_logprob[at], of_entropy)
                if by_bias is not None:
                    by_bias += by_logits.sum(0)
                factors = split(by_logits, parts)
                if by_hidden is not None:
                    by_hidden[at] = multiply(factors, head.weight[: len(factors)])
                if by_weight is not None:
                    multiply(tuple(factor.T for factor in factors), states[: len(factors)], by_weight)
        found = (by_hidden, _as(by_weight, weight), _as(by_bias, bias))
        return *found, None, None, None, None


def _by_logits(
    head: Head, hidden: Parts, targets: Tensor, normalizers: Tensor, by_logprob: Tensor,
    of_entropy: tuple[Tensor, Tensor] | None,
) -> Tensor:  # fmt: skip
    """(N, V) gradient wrt raw logits: g (1[v = t] - pi_v) - g_H pi_v (log pi_v + H) through the transform."""
    logits, transform = head.logits(hidden), head.transform
    squashed = None if transform.softcap is None else logits * (transform.temperature / transform.softcap)
    log_p = logits.sub_(normalizers[:, None])
    if of_entropy is None:
        gradient = log_p.exp_().mul_(-by_logprob[:, None])
    else:
        by_entropy, entropy = of_entropy
        p = log_p.exp()
        gradient = log_p.add_(entropy[:, None]).mul_(by_entropy[:, None]).add_(by_logprob[:, None]).mul_(p).neg_()
    gradient.scatter_add_(1, targets[:, None], by_logprob[:, None])
    return transform.chain(gradient, squashed)


def _as(gradient: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if gradient is None or like is None else gradient.to(like.dtype)
