"""A shape with random weights and its optimizer on one device: what the step benchmarks run.

The weights are fp32 masters with fp32 Adam state, the products bf16 under autocast, one sequence a row: what
`PolicyTrainer` does in a training step, through the same functions. Needs torch and transformers alone.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # lengths differ: fixed segments break up

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from erpd_hub.benchmarks.shapes import Shape, random_model, shape_named
from erpd_hub.benchmarks.timing import Clock, held_bytes, synchronize
from erpd_hub.logprobs import Dtype, install_logprob_forward, response_logprobs
from erpd_hub.losses import ce_loss, clip_loss
from erpd_hub.training.activations import checkpoint_activations
from erpd_hub.training.batches import Denominators, Trajectory, collate, share
from erpd_hub.training.step import Loss, forward_backward

_PROMPT = 512
GB = 1e9
_MAX_GRAD_NORM = 1.0
_LEARNING_RATE = 1e-6

Attention = Literal["sdpa", "flash_attention_2", "flash_attention_3", "eager"]
SDPA = Literal["auto", "cudnn", "flash"]
Part = Literal["teacher", "score", "distill"]
PARTS: tuple[Part, ...] = get_args(Part)
_BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


@dataclass(frozen=True)
class StepBench:
    """What is measured. The defaults are those of a training stage on a GPU."""

    shape: str = "qwen3-4b"
    lengths: tuple[int, ...] = (32768, 81920)
    """Tokens of the one sequence, its prompt of 512 (or half, if that is less) among them."""
    dtype: Dtype = "bfloat16"
    attn: Attention = "sdpa"
    sdpa: SDPA = "auto"
    """Which kernel SDPA tries first; `auto` is torch's choice."""
    checkpointing: bool = True
    keep_attention: bool = False
    """With checkpointing: keep what attention returned instead of computing it again."""
    offload: bool = False
    compile: bool = False
    """Compile each decoder layer, to see what fused elementwise kernels would bring; no stage does."""
    steps: int = 3
    """Timed runs, after one that warms up; the median counts."""
    profile: bool = True
    parts: tuple[Part, ...] = PARTS
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")


class Bench:
    """A model with its optimizer, and what is run on it."""

    def __init__(self, options: StepBench) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.shape = shape_named(options.shape)
        self.clock = Clock(self.device)
        self.before = held_bytes(self.device)
        """Of a process without the model: on a CPU the interpreter and its libraries."""
        self.model = _model(options, self.shape, self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.weight_bytes = sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    def numerics(self) -> AbstractContextManager[object]:
        """The attention kernel asked for; autocast is entered where a training step enters it."""
        if self.options.sdpa == "auto":
            return nullcontext()
        first = _BACKENDS[self.options.sdpa]
        rest = [backend for backend in (*_BACKENDS.values(), SDPBackend.EFFICIENT_ATTENTION) if backend is not first]
        return sdpa_kernel([first, *rest, SDPBackend.MATH], set_priority=True)

    def train(self, row: Trajectory, loss: Loss) -> float:
        """One optimizer step; the seconds that clipping and the optimizer took."""
        self.model.train()
        with self.numerics():
            sums = forward_backward(
                self.model, share([row], budget=len(row)), loss, Denominators.of([row]),
                temperature=1.0, device=self.device,
            )  # fmt: skip
        start = self.clock.stamp()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _MAX_GRAD_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        stop = self.clock.stamp()
        synchronize(self.device)
        assert sums.loss == sums.loss, "the loss is not a number"
        return self.clock.seconds(start, stop)

    @torch.no_grad()
    def score(self, row: Trajectory) -> Tensor:
        """(1, T) log-probs of the response, as the score stage computes them."""
        self.model.eval()
        with self.numerics():
            scored = response_logprobs(self.model, collate([row], self.device), temperature=1.0)
        return scored.logprobs


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def make_row(shape: Shape, length: int) -> Trajectory:
    """A sequence of random tokens with a plausible signal: log-probs near those of a uniform policy."""
    generator = torch.Generator().manual_seed(0)
    prompt = min(_PROMPT, length // 2)
    ids = torch.randint(shape.vocab, (length,), generator=generator)
    logprobs = torch.full((length - prompt,), -float(torch.tensor(float(shape.vocab)).log()))
    advantages = torch.randn(length - prompt, generator=generator)
    return Trajectory("random", 0, ids[:prompt], ids[prompt:], 1.0, old_logprobs=logprobs, advantages=advantages)


def _model(options: StepBench, shape: Shape, device: torch.device) -> PreTrainedModel:
    model = random_model(shape, device, attention=options.attn)
    if options.checkpointing:
        checkpoint_activations(model, offload=options.offload, keep_attention=options.keep_attention)
    if options.compile:
        for layer in model.base_model.layers:
            layer.compile()
    install_logprob_forward(model, options.dtype)
    return model


def loss_of(part: str) -> Loss:
    """That of a teacher step, or of a distillation step."""
    if part == "teacher":
        return partial(ce_loss, beta=0.05, aggregate="mean")
    return partial(clip_loss, clip_low=0.2, clip_high=0.28, kl_weight=0.0, entropy_weight=0.0)
