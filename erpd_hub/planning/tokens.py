"""How many response tokens each stage of a plan draws, scores or trains on: expected, and at most.

Expected figures go by the length of a mean response, upper ones by every response running to its limit.
"""

from dataclasses import replace

from erpd_hub import config as c
from erpd_hub.nodes import Node, Plan
from erpd_hub.planning.draws import Draw, draw_of, micro_round, rollout_prompts
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.items import Setting

MEAN_SHARE = 0.5
"""[I] Mean length over the limit where nothing is known of the model's answers."""
CONTINUED_SHARE = 0.15
"""[I] Share of samples that end by length, and are continued by `extend_to`."""


def mean_length(plan: Plan, setting: Setting, facts: ModelFacts | None) -> tuple[int | None, str]:
    """Tokens of a mean response and where the figure is from; None where it goes by the limit."""
    if setting.mean_length is not None:
        return setting.mean_length, "--mean-length"
    if plan.recipe.facts.mean_length is not None:
        return plan.recipe.facts.mean_length, "the recipe's facts.mean_length"
    if facts is not None and facts.mean_response is not None:
        return facts.mean_response, f"{facts.name} on AIME 2024, the paper's Table 10"
    return None, f"{MEAN_SHARE:g} of each limit, for want of a source"


class Tokens:
    """The tokens of one plan's stages."""

    def __init__(self, plan: Plan, setting: Setting, facts: ModelFacts | None) -> None:
        self.plan, self.prompt_tokens = plan, setting.assume.prompt_tokens
        self.mean = mean_length(plan, setting, facts)[0]

    def of(self, node: Node) -> tuple[int | None, int | None]:
        """(expected, at most) tokens that a node samples, trains on or scores."""
        if (draw := draw_of(self.plan, node)) is not None:
            return self.drawn(draw)
        if isinstance(node.config, c.TrainingConfig):
            return self.trained_on(node, node.config)
        return self.held(node) if isinstance(node.config, c.ScoreConfig) else (None, None)

    def length(self, limit: int) -> float:
        """Of a mean response under a limit, which cuts the long ones."""
        return min(float(self.mean), 0.95 * limit) if self.mean is not None else MEAN_SHARE * limit

    def drawn(self, draw: Draw) -> tuple[int | None, int | None]:
        """(expected, at most) tokens that a stage samples."""
        if draw.samples is None:
            return None, None
        if draw.continued:
            return int(draw.samples * CONTINUED_SHARE * draw.fresh / 2), draw.samples * draw.fresh
        return int(draw.samples * self.length(draw.limit)), (draw.most or draw.samples) * draw.limit

    def held(self, node: Node) -> tuple[int | None, int | None]:
        """(expected, at most) response tokens of the rollouts a node works on, those they took over included."""
        rollouts = self.rollouts(node)
        draw = draw_of(self.plan, rollouts) if rollouts is not None else None
        return self.drawn(replace(draw, continued=False)) if draw is not None else (None, None)

    def trained_on(self, node: Node, config: c.TrainingConfig) -> tuple[int | None, int | None]:
        if isinstance(config, c.OnlineConfig):
            expected, upper = self.drawn(micro_round(config))
            return (expected or 0) * config.steps, (upper or 0) * config.steps
        rollouts = self.rollouts(node)
        expected, upper = self.held(node)
        prompts = rollout_prompts(self.plan, rollouts) if rollouts is not None else None
        if not prompts or expected is None or upper is None:
            return None, None
        share = min(config.prompts_per_step, prompts) * config.steps / prompts
        return int(expected * share), int(upper * share)

    def rollouts(self, node: Node) -> Node | None:
        """The rollouts a node works on; a signal's are those of its log-probs."""
        for edge in node.inputs:
            if edge.role == "rollouts" and isinstance(edge.source, str):
                return self.plan.node(edge.source)
        scores = [x.source for x in node.inputs if x.kinds == ("logprobs",) and isinstance(x.source, str)]
        return self.rollouts(self.plan.node(scores[0])) if scores else None

    def limit(self, node: Node) -> int:
        """Tokens that a response of the node's rollouts may have; 0 where the recipe does not say."""
        if isinstance(node.config, c.OnlineConfig):
            return node.config.decoding.max_new_tokens
        rollouts = self.rollouts(node)
        draw = draw_of(self.plan, rollouts) if rollouts is not None else None
        return draw.limit if draw is not None else 0

    def largest_batch(self, node: Node, budget: int) -> int:
        """Tokens of the largest micro-batch: the budget, or the longest sequence there can be."""
        limit = self.limit(node)
        return max(budget, limit + self.prompt_tokens if limit else 0)
