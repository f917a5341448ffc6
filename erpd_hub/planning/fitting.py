"""Whether a stage fits on a GPU: what refuses it early, with the sum and the change that would help."""

from typing import Any, NamedTuple

from erpd_hub.config import Dtype
from erpd_hub.errors import StageError
from erpd_hub.planning.facts import ModelFacts
from erpd_hub.planning.memory import Memory, scoring_memory, training_memory


class Comparing(NamedTuple):
    """How a policy is compared with others on its own samples."""

    together: bool
    """Two models at once, which the exact KL takes; else one after the other."""
    memory: Memory


def comparing_memory(facts: ModelFacts, available: float, *, tokens: int, dtype: Dtype = "bfloat16") -> Comparing:
    """What a probe holds when it has drawn its samples: two models where they fit, else one.

    Args:
        available: GB a process may use.
    """
    both = scoring_memory(facts, tokens=tokens, dtype=dtype, models=2)
    if both.total <= available:
        return Comparing(True, both)
    return Comparing(False, scoring_memory(facts, tokens=tokens, dtype=dtype))


def require_comparable(where: str, facts: ModelFacts, available: float, *, tokens: int, dtype: Dtype) -> Comparing:
    """`comparing_memory`, if even one model fits.

    Raises:
        StageError: it does not; the message has the arithmetic.
    """
    found = comparing_memory(facts, available, tokens=tokens, dtype=dtype)
    if found.memory.total > available:
        raise StageError(
            f"{where}: expected at most {available:.1f} GB, got {found.memory.arithmetic}; set a smaller "
            "micro_batch_tokens or max_new_tokens, or use a GPU with more memory"
        )
    return found


def require_fit(where: str, facts: ModelFacts, available: float, **layout: Any) -> Memory:
    """The training's memory, if it fits.

    Args:
        available: GB a process may use.
        layout: As for `training_memory`.

    Raises:
        StageError: it does not; the message has the arithmetic and the first change that would help.
    """
    memory = training_memory(facts, **layout)
    if memory.total > available:
        raise StageError(
            f"{where}: expected at most {available:.1f} GB a GPU, got {memory.arithmetic}; "
            f"{training_remedy(facts, available, **layout)}"
        )
    return memory


def training_remedy(facts: ModelFacts, available: float, **layout: Any) -> str:
    """The least change under which the training fits, in the words of a recipe."""
    gpus = layout.get("gpus", 1)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("gradient_checkpointing=true", {"gradient_checkpointing": True}),
        *([("parallel=fsdp2", {"strategy": "fsdp2"})] if gpus > 1 else []),
        ("activation_offload=true", {"gradient_checkpointing": True, "offload": True}),
    ]
    tried: dict[str, Any] = dict(layout)
    said: list[str] = []
    for words, change in changes:
        if all(tried.get(name) == value for name, value in change.items()):
            continue
        tried |= change
        said.append(words)
        if training_memory(facts, **tried).total <= available:
            return f"set {' '.join(said)}"
    for more in (2, 4, 8, 16, 32, 64):
        if more > gpus and training_memory(facts, **tried | {"gpus": more, "strategy": "fsdp2"}).total <= available:
            return f"set {' '.join(dict.fromkeys([*said, 'parallel=fsdp2']))} on {more} GPUs"
    if training_memory(facts, **tried | {"lora_rank": 16}).total <= available:
        return f"set {' '.join([*said, 'lora.r=16'])}"
    return "use shorter responses, or GPUs with more memory"
