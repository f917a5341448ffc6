"""Exact sampling with a transformers model: Gumbel noise from a generator of each sample's own.

argmax(log p + Gumbel noise) is a draw from p, so a sample is a function of its prompt and seed; which other samples
are drawn beside it, or how many, changes no more than the rounding of its logits. Finished rows leave the batch.

transformers' continuous batching is not used: it draws all requests from one global generator, so a sample would depend
on its company and on the schedule, and neither a resumed nor a continued rollout would be the same rollout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from erpd_hub.config import Decoding
from erpd_hub.models import stop_ids
from erpd_hub.samples import FinishReason
from erpd_hub.sampling.engine import Completion, Request
from erpd_hub.sampling.stopping import StopRule

_COMPACT_BELOW = 0.75
"""Share of unfinished rows at which the finished ones are dropped: each drop copies the cache."""
_NOISE_BLOCK = 4096
"""Noise values drawn at once for a row: many steps of a tiny vocabulary, one step of a large one."""
_SKIP_BLOCK = 1 << 22
"""Noise values of a continued sample's past that are drawn and dropped at once: 32 MB."""


@dataclass
class _Row:
    index: int
    generator: torch.Generator
    response_ids: list[int]
    continued: int
    """Tokens it starts with."""
    limit: int
    """Tokens it may have."""
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"


class LocalEngine:
    """Generates with a model in this process; every call is one batch, given back when its last row is done."""

    reproducible = True
    unseeded = False

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids(model, tokenizer)

    def generate(
        self, requests: Sequence[Request], decoding: Decoding, stop: Sequence[str]
    ) -> Iterator[tuple[int, Completion]]:
        """See `Engine`: a continued sample is the one that a single run with the longer limit draws."""
        rule = StopRule(self.tokenizer, stop)
        for row in self._draw(requests, decoding, rule):
            text = rule.text(row.response_ids)
            yield row.index, Completion(row.response_ids, row.logprobs, row.finish_reason, text)

    def close(self) -> None:
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _draw(self, requests: Sequence[Request], decoding: Decoding, rule: StopRule) -> list[_Row]:
        rows = [
            _Row(index, torch.Generator().manual_seed(r.seed), list(r.response_ids), len(r.response_ids),
                 r.limit(decoding))
            for index, r in enumerate(requests)
        ]  # fmt: skip
        active = [row for row in rows if row.continued < row.limit]
        if not active:
            return rows
        decoder = Decoder(self.model, [(*requests[r.index].prompt_ids, *r.response_ids) for r in active])
        noise = _Noise(self.model.get_output_embeddings().weight.shape[0], self.model.device)
        penalty = _Penalty(active, decoding.presence_penalty, noise) if decoding.presence_penalty else None
        greedy = decoding.temperature == 0
        if not greedy:
            noise.skip(active)
        finished: set[int] = set()
        for step in range(max(row.limit for row in active)):
            log_p = sampler_logprobs(decoder.logits - penalty.taken if penalty else decoder.logits, decoding)
            scores = log_p if greedy else log_p + noise.take(active, step)
            tokens = scores.argmax(-1)
            taken = log_p.gather(-1, tokens[:, None])[:, 0]
            for row, token, logprob in zip(active, tokens.tolist(), taken.tolist(), strict=True):
                if row.index not in finished and self._append(row, token, logprob, rule):
                    finished.add(row.index)
            kept = [place for place, row in enumerate(active) if row.index not in finished]
            if not kept:
                break
            if len(kept) <= _COMPACT_BELOW * len(active):
                active = [active[place] for place in kept]
                tokens = tokens[kept]
                decoder.keep(kept)
                if not greedy:
                    noise.keep(kept)
                if penalty:
                    penalty.keep(kept)
            if penalty:
                penalty.add(tokens)
            decoder.advance(tokens)
        return rows

    def _append(self, row: _Row, token: int, logprob: float, rule: StopRule) -> bool:
        """Add a token to a row; whether it was the last."""
        row.response_ids.append(token)
        row.logprobs.append(logprob)
        if token in self.stop_ids or rule.completed_by_last(row.response_ids):
            row.finish_reason = "stop"
        return row.finish_reason == "stop" or len(row.response_ids) == row.limit


def sampler_logprobs(logits: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs of what is sampled from: (R, V) logits after temperature, top-k, then top-p; -inf where cut off.

    Temperature 0 (greedy) leaves the model's own distribution.
    """
    if decoding.temperature == 0:
        return torch.log_softmax(logits, dim=-1)
    logits = logits / decoding.temperature
    if 0 < decoding.top_k < logits.shape[-1]:
        smallest = logits.topk(decoding.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if decoding.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= decoding.top_p  # the first token always stays
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return torch.log_softmax(logits, dim=-1)


class _GrowingLayer(DynamicLayer):
    """A layer's keys and values as views of buffers with room to spare, so that a token is written and not all of them
    copied (`erpd-hub bench cache`)."""

    keys: Tensor
    values: Tensor
    _buffers: Sequence[Tensor] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """See `DynamicLayer`: takes (R, heads, new tokens, width) and gives back those of all tokens so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        new = (key_states, value_states)
        if not self._buffers or self._buffers[0].shape[-2] < end:
            so_far = (self.keys, self.values)
            self._buffers = [_with_room(states, old, start) for states, old in zip(new, so_far, strict=True)]
        for buffer, states in zip(self._buffers, new, strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = ()


def _with_room(new: Tensor, old: Tensor, length: int) -> Tensor:
    """A buffer of twice the tokens that there are with the new ones, the old ones at its beginning."""
    buffer = new.new_empty((*new.shape[:-2], 2 * (length + new.shape[-2]), new.shape[-1]))
    if length:
        buffer[..., :length, :] = old
    return buffer


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """The model's cache; layers of another kind (sliding windows, states) stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [_GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class Decoder:
    """A left-padded batch with its key-value cache, `growing_cache` without another; `logits` (R, V) are those of the
    next token, in fp32."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], cache: DynamicCache | None = None
    ) -> None:
        self.model = model
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        padding = width - lengths
        self.mask = torch.arange(width, device=model.device)[None, :] >= padding[:, None]
        self.cache = growing_cache(model.config) if cache is None else cache
        self.positions = lengths
        self._forward(ids, (self.mask.cumsum(-1) - 1).clamp(min=0))

    def advance(self, tokens: Tensor) -> None:
        """Feed the (R,) sampled tokens."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=-1)
        self._forward(tokens[:, None], self.positions[:, None])
        self.positions = self.positions + 1

    def keep(self, rows: list[int]) -> None:
        chosen = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(chosen)
        self.mask, self.positions = self.mask[chosen], self.positions[chosen]

    def _forward(self, ids: Tensor, positions: Tensor) -> None:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask.long(),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits = output.logits[:, -1].float()


class _Noise:
    """Standard Gumbel noise, row by row from the row's own generator.

    Drawn in fp64: the largest fp32 number below 1 is 1 - 2^-24, so Gumbel noise made from it ends at 16.6.
    """

    def __init__(self, vocabulary: int, device: torch.device) -> None:
        self.vocabulary = vocabulary
        self.steps = max(1, _NOISE_BLOCK // vocabulary)
        self.device = device
        self.block = torch.empty(0)

    def take(self, rows: Sequence[_Row], step: int) -> Tensor:
        """(R, V) noise of one step; steps come in order."""
        if step % self.steps == 0:
            shape = (self.steps, self.vocabulary)
            uniform = torch.stack([torch.rand(shape, generator=row.generator, dtype=torch.float64) for row in rows])
            exponential = -torch.log(uniform.clamp_(min=torch.finfo(torch.float64).tiny))
            self.block = -torch.log(exponential.float()).to(self.device)
        return self.block[:, step % self.steps]

    def skip(self, rows: Sequence[_Row]) -> None:
        """Take continued rows to where they stopped: a value of noise was spent on each token of the vocabulary."""
        for row in rows:
            left = row.continued * self.vocabulary
            while left:
                count = min(left, _SKIP_BLOCK)
                torch.rand(count, generator=row.generator, dtype=torch.float64)
                left -= count

    def keep(self, rows: list[int]) -> None:
        if self.block.numel():  # a greedy batch has drawn none
            self.block = self.block[rows]


class _Penalty:
    """What the presence penalty takes off each logit, `taken` (R, V): before the temperature, and not for tokens of the
    prompt, as in vLLM."""

    def __init__(self, rows: Sequence[_Row], amount: float, like: _Noise) -> None:
        self.amount = amount
        self.taken = torch.zeros(len(rows), like.vocabulary, device=like.device)
        for place, row in enumerate(rows):
            self.taken[place, row.response_ids] = amount

    def add(self, tokens: Tensor) -> None:
        """The (R,) sampled tokens stand in the responses from now on."""
        self.taken.scatter_(1, tokens[:, None], self.amount)

    def keep(self, rows: list[int]) -> None:
        self.taken = self.taken[rows]
