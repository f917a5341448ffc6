"""What a file of another program's rollouts says of a sample: right, wrong, or nothing."""

from erpd_hub.config import ImportedRollouts
from erpd_hub.errors import StageError
from erpd_hub.rollout_formats import BadRow, Drawn


def check_outcome(where: str, config: ImportedRollouts, drawn: Drawn) -> None:
    """Whether there is something to say what the response is worth.

    Raises:
        BadRow: there is not.
        StageError: a file of scores. To leave out the rows whose score is no outcome would choose samples by outcome.
    """
    if config.regrade and drawn.gold:
        return
    if drawn.reward is None:
        raise BadRow("neither a gold answer nor a reward")
    if config.reward_above is None and drawn.reward not in (0, 1):
        raise StageError(
            f"source: {where}: reward: expected 0 or 1, got {drawn.reward:g}; say with reward_above=NUMBER above what "
            "a response is right (reward_above=0 where wrong ones have 0 or less)"
        )


def outcome_of(config: ImportedRollouts, drawn: Drawn) -> int | None:
    """What the file says of a sample."""
    if drawn.reward is None:
        return None
    if config.reward_above is not None:
        return int(drawn.reward > config.reward_above)
    return int(drawn.reward) if drawn.reward in (0, 1) else None
