"""How much each sampling stage of a plan draws."""

from dataclasses import dataclass

from erpd_hub import config as c
from erpd_hub.evaluation.benchmarks import get_benchmark
from erpd_hub.nodes import Node, Plan
from erpd_hub.selection import Rules


def rollout_prompts(plan: Plan, node: Node) -> int | None:
    """Prompts of a rollouts node, where the recipe says."""
    assert isinstance(node.config, c.RolloutConfig)
    source = next((edge.source for edge in node.inputs if edge.role == "prompts"), None)
    config = plan.node(source).config if isinstance(source, str) else None
    return _fewer(node.config.limit, config.count if isinstance(config, c.PromptSelection) else None)


def _fewer(limit: int | None, available: int | None) -> int | None:
    """What a limit leaves; None where neither is known."""
    return min(filter(None, (limit, available)), default=None)


@dataclass(frozen=True)
class Draw:
    """What a sampling stage draws."""

    samples: int | None
    limit: int
    """Tokens a response may have."""
    fresh: int
    """Tokens at most that are new: the rest is continued from an artifact."""
    engine: c.TransformersEngine | c.VLLMEngine | c.ServerEngine
    continued: bool = False
    most: int | None = None
    """Samples at most, where how many it takes is not known before."""


def draw_of(plan: Plan, node: Node) -> Draw | None:
    """How much a node samples; None for one that does not."""
    config = node.config
    continued = any(edge.role == "extended" for edge in node.inputs)
    if isinstance(config, c.RolloutConfig):
        count, k, decoding = rollout_prompts(plan, node), config.k, config.decoding
    elif isinstance(config, c.ProbeConfig):
        return Draw(config.num_prompts * config.k, config.max_new_tokens, config.max_new_tokens, config.engine)
    elif isinstance(config, c.EvaluateConfig):
        benchmark = get_benchmark(config.benchmarks[0], config.definitions)
        count, k = _fewer(config.limit, benchmark.num_problems), config.k or benchmark.k
        decoding = config.decoding or benchmark.decoding
    elif isinstance(config, c.SelectConfig):
        return _race(config)
    else:
        return None
    limit = decoding.max_new_tokens
    fresh = limit
    if continued and config.extend_to:
        limit, fresh = config.extend_to, config.extend_to - limit
    return Draw(count * k if count else None, limit, fresh, config.engine, continued)


def _race(config: c.SelectConfig) -> Draw:
    """A race and the winner's fresh samples; half of the candidates are taken to leave at each look [I]."""
    benchmark = get_benchmark(config.benchmark, config.definitions)
    problems, final = _fewer(config.limit, benchmark.num_problems) or 0, config.final_k or benchmark.k
    looks = len(Rules(config.k_start, config.k_max, config.alpha).schedule)
    expected = len(config.candidates) * config.k_start * (1 + (looks - 1) / 2) + final
    most = len(config.candidates) * config.k_max + final
    limit = (config.decoding or benchmark.decoding).max_new_tokens
    return Draw(int(problems * min(expected, most)), limit, limit, config.engine, most=problems * most)


def micro_round(config: c.OnlineConfig) -> Draw:
    """What one step of an online training samples."""
    limit = config.decoding.max_new_tokens
    return Draw(config.prompts_per_step * config.k, limit, limit, config.engine)
