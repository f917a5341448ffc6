"""What each stage of a plan costs: memory, time, storage. `bill` adds it up and says what it was reckoned with."""

from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.nodes import Node, Plan
from erpd_hub.planning.draws import Draw, draw_of, micro_round
from erpd_hub.planning.durations import Sampling, sampling_time, scoring_time, training_time, weighted_length
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.fitting import comparing_memory, training_remedy
from erpd_hub.planning.items import Item, Setting
from erpd_hub.planning.layouts import planned_strategy, training_layout
from erpd_hub.planning.memory import scoring_memory, training_memory
from erpd_hub.planning.storage import checkpoint_storage, logprob_storage, rollout_storage, work_storage
from erpd_hub.planning.tokens import CONTINUED_SHARE, Tokens

HUB_RATE = 0.1
"""GB/s of a push [I]; `doctor --live` measures it."""
IO_RATE = 0.2
"""GB/s at which columns are joined and written [I]."""


class Clerk:
    """Makes out the items of one plan of a model whose shape is known."""

    def __init__(self, plan: Plan, setting: Setting, facts: ModelFacts) -> None:
        self.plan, self.setting, self.facts = plan, setting, facts
        self.tokens = Tokens(plan, setting, facts)

    def item(self, node: Node) -> Item:
        config = node.config
        item = Item(node.name, config.stage, *self.tokens.of(node))
        if (draw := draw_of(self.plan, node)) is not None:
            return self._sampling(item, node, draw) if item.tokens and item.tokens_upper else item
        if isinstance(config, c.TrainingConfig):
            return self._training(item, node, config)
        if isinstance(config, c.ScoreConfig):
            return self._scoring(item, node, config) if item.tokens and item.tokens_upper else item
        return self._plain(item, node)

    # ------------------------------------------------------------------------------------------ stages

    def _sampling(self, item: Item, node: Node, draw: Draw) -> Item:
        expected, upper = item.tokens, item.tokens_upper
        assert expected and upper and draw.samples
        storage = rollout_storage(expected)
        if isinstance(node.config, c.SelectConfig):
            storage += checkpoint_storage(self.facts, self._push_dtype(node), pushed=1)
        if isinstance(draw.engine, c.ServerEngine):
            item = replace(item, remedy="on its servers", storage_gb=storage)
            return self._comparing(item, node.config) if isinstance(node.config, c.ProbeConfig) else item
        samples = max(1, int(draw.samples * CONTINUED_SHARE)) if draw.continued else draw.samples
        found = self._sampled(draw, samples, expected / samples)
        cards = getattr(draw.engine, "tensor_parallel", 1)
        room = self.setting.device.memory * self.setting.assume.engine_memory - self.setting.assume.engine_reserve
        fits = found.memory.weights / cards < 0.9 * room if self._on_gpu else None
        item = replace(item, gb=found.memory.total, fits=fits, arithmetic=found.memory.arithmetic, storage_gb=storage,
                       remedy=f"{found.concurrency} at once a GPU" if fits is not False
                       else f"set {node.step}.engine.tensor_parallel={2 * cards}")  # fmt: skip
        if isinstance(node.config, c.ProbeConfig):
            item = self._comparing(item, node.config)
        return self._timed(
            item,
            found.seconds + self._probe_scoring(node, expected),
            self._sampled(draw, draw.most or draw.samples, upper / (draw.most or draw.samples)).seconds
            + self._probe_scoring(node, upper),
        )

    def _comparing(self, item: Item, config: c.ProbeConfig) -> Item:
        """A probe with the models that it scores its samples under, after these have been drawn."""
        tokens = max(config.micro_batch_tokens, config.max_new_tokens + self.setting.assume.prompt_tokens)
        usable = self.setting.device.usable
        together, memory = comparing_memory(self.facts, usable, tokens=tokens, dtype=config.dtype)
        if memory.total > (item.gb or 0.0):
            item = replace(item, gb=memory.total, arithmetic=memory.arithmetic)
        if memory.total > usable:
            return replace(item, fits=False, remedy="use GPUs with more memory")
        return item if together or item.fits is False else replace(item, remedy="one model at a time: no exact KL")

    def _sampled(self, draw: Draw, samples: int, mean: float) -> Sampling:
        return sampling_time(
            self.facts,
            self.setting.device,
            samples=samples,
            mean_tokens=mean,
            longest=draw.limit,
            gpus=self.setting.gpus if draw.most is None else 1,  # a race goes on by itself: see Launch.groups
            engine=draw.engine.type,
            batch_tokens=getattr(draw.engine, "batch_tokens", None),
            assume=self.setting.assume,
        )

    def _probe_scoring(self, node: Node, tokens: int) -> float:
        """A probe scores its samples under the checkpoint, the base and the round's start."""
        if not isinstance(node.config, c.ProbeConfig):
            return 0.0
        return 3 * self._score_seconds(tokens, node.config.max_new_tokens)

    def _training(self, item: Item, node: Node, config: c.TrainingConfig) -> Item:
        tokens = self.tokens.largest_batch(node, config.micro_batch_tokens)
        usable = self.setting.device.usable
        layout = training_layout(config, tokens=tokens, gpus=self.setting.gpus)
        layout["strategy"] = planned_strategy(config, self.facts, usable, layout)
        memory = training_memory(self.facts, **layout)
        fits = memory.total <= usable
        words = layout["strategy"] if fits else f"{node.step}: " + training_remedy(self.facts, usable, **layout)
        rank = config.lora.r if config.lora else None
        pushed = max(1, len(node.pushed_steps))
        storage = checkpoint_storage(self.facts, config.push_dtype, pushed=pushed, lora_rank=rank)
        if isinstance(config, c.CriticConfig):
            storage += pushed * logprob_storage(self.tokens.held(node)[0] or 0, "critic")
        work = work_storage(self.facts, config.push_dtype, saved=len(config.kept_steps), lora_rank=rank)
        item = replace(item, gb=memory.total, fits=fits, remedy=words, arithmetic=memory.arithmetic,
                       storage_gb=storage, work_gb=work)  # fmt: skip
        if item.tokens is None or item.tokens_upper is None:
            return item
        limit, valued = self.tokens.limit(node), self._valuing(node, config)
        return self._timed(
            item,
            self._train_seconds(item.tokens, self._weighted(limit))
            + self._micro_rounds(config, item.tokens)
            + valued[0],
            self._train_seconds(item.tokens_upper, limit) + self._micro_rounds(config, item.tokens_upper) + valued[1],
        )

    def _valuing(self, node: Node, config: c.TrainingConfig) -> tuple[float, float]:
        """(expected, at most) seconds in which each kept step of a critic values the whole rollouts."""
        if not isinstance(config, c.CriticConfig):
            return 0.0, 0.0
        limit, kept = self.tokens.limit(node), len(config.kept_steps)
        expected, upper = self.tokens.held(node)
        return (
            kept * self._score_seconds(expected or 0, limit),
            kept * self._score_seconds(upper or 0, limit, weighted=False),
        )

    def _micro_rounds(self, config: c.TrainingConfig, tokens: int) -> float:
        """Seconds in which an online training samples these tokens, its engine started anew at each step."""
        if not isinstance(config, c.OnlineConfig):
            return 0.0
        draw = micro_round(config)
        assert draw.samples
        start = self.setting.assume.start_seconds if isinstance(config.engine, c.VLLMEngine) else 0.0
        mean = tokens / (draw.samples * config.steps)
        return config.steps * (self._sampled(draw, draw.samples, mean).seconds + start)

    def _train_seconds(self, tokens: int, length: float) -> float:
        device, gpus, assume = self.setting.device, self.setting.gpus, self.setting.assume
        return training_time(self.facts, device, tokens=tokens, length=length, gpus=gpus, assume=assume)

    def _scoring(self, item: Item, node: Node, config: c.ScoreConfig) -> Item:
        tokens, upper = item.tokens or 0, item.tokens_upper or 0
        memory = scoring_memory(
            self.facts, tokens=self.tokens.largest_batch(node, config.micro_batch_tokens), dtype=config.dtype
        )
        fits = memory.total <= self.setting.device.usable
        item = replace(item, gb=memory.total, fits=fits, remedy="" if fits else "use GPUs with more memory",
                       arithmetic=memory.arithmetic, storage_gb=logprob_storage(tokens, "score"))  # fmt: skip
        limit = self.tokens.limit(node)
        seconds = self._score_seconds(tokens, limit)
        return self._timed(item, seconds, self._score_seconds(upper, limit, weighted=False))

    def _score_seconds(self, tokens: int, limit: int, *, weighted: bool = True) -> float:
        length = self._weighted(limit) if weighted else float(limit)
        device, gpus, assume = self.setting.device, self.setting.gpus, self.setting.assume
        return scoring_time(self.facts, device, tokens=tokens, length=length, gpus=gpus, assume=assume)

    def _plain(self, item: Item, node: Node) -> Item:
        """Stages that no GPU works on: base, prompts, unlearned, signal."""
        storage = 0.01
        if isinstance(node.config, c.ImportBase | c.TinyBase):
            storage = checkpoint_storage(self.facts, "float32", pushed=1)
        elif isinstance(node.config, c.UnlearnedConfig):
            storage = checkpoint_storage(self.facts, self._push_dtype(node), pushed=1)
        elif isinstance(node.config, c.SignalConfig):
            tokens = self.tokens.held(node)[0]
            if tokens is None:
                return item
            storage = logprob_storage(tokens, "signal")
        seconds = storage / HUB_RATE + storage / IO_RATE
        return replace(item, seconds=seconds, seconds_upper=seconds, storage_gb=storage)

    def _push_dtype(self, node: Node) -> c.Dtype:
        source = next((edge.source for edge in node.inputs if edge.role in ("teacher", "candidates:0")), None)
        config = self.plan.node(source).config if isinstance(source, str) else None
        return config.push_dtype if isinstance(config, c.TrainingConfig) else "float32"

    # ------------------------------------------------------------------------------------------ shared

    @property
    def _on_gpu(self) -> bool:
        return self.setting.device.name != "cpu"

    def _weighted(self, limit: int) -> float:
        return weighted_length(self.tokens.length(limit), self.setting.assume.length_spread, limit)

    def _timed(self, item: Item, seconds: float, upper: float) -> Item:
        """With the work's time, or the measured rate in its place, and what every stage spends around it."""
        rate = self.setting.rates.get(item.stage)
        measured = item.tokens / (rate * self.setting.gpus) if rate and item.tokens else None
        if measured is not None and item.tokens and item.tokens_upper:
            seconds, upper = measured, measured * item.tokens_upper / item.tokens
        around = (self.setting.assume.start_seconds if self._on_gpu else 5.0) + (item.storage_gb or 0.0) / HUB_RATE
        return replace(item, seconds=seconds + around, seconds_upper=max(seconds, upper) + around,
                       gpus=self.setting.gpus, measured=measured is not None)  # fmt: skip
