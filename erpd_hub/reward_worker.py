"""The child process that calls a user's reward function: `python -m erpd_hub.reward_worker PATH SHA256`.

One JSON object a line comes in: the call's keyword arguments and its seconds. One goes out: `ready` after the import,
then for each call `rewards` or `error`. What the function prints goes to stderr.
"""

import asyncio
import inspect
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from erpd_hub import plugins
from erpd_hub.errors import ErpdError

_ORPHAN_SECONDS = 5  # past the deadline a worker whose parent died kills itself


def main() -> None:
    """Serve calls until standard input ends."""
    path, expected = sys.argv[1:]
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        plugins.expect({path: expected})
        function = plugins.load(path)
    except ErpdError as error:
        _say(channel, error=str(error))
        return
    _say(channel, ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.alarm(math.ceil(request.pop("seconds")) + _ORPHAN_SECONDS)  # the default action ends the process
        try:
            _say(channel, rewards=call(function, request))
        except Exception as error:  # the user's code runs here, so whatever it raises is news for the user
            frame = traceback.extract_tb(error.__traceback__)[-1]
            _say(channel, error=f"{type(error).__name__}: {error} (in {frame.name}, line {frame.lineno})")
        signal.alarm(0)


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> list[float | None]:
    """Rewards as TRL's GRPOTrainer gets them: the keyword arguments `prompts`, `completions`, `completion_ids`, every
    column, and those of its own that a trainer has; NaN is None.

    Raises:
        ValueError: not one reward for each completion.
    """
    extra = {"trainer_state": None, "log_extra": lambda *_: None, "log_metric": lambda *_: None}
    found = function(**arguments, **extra)
    if inspect.isawaitable(found):
        found = asyncio.run(_awaited(found))
    rewards = [None if reward is None or math.isnan(reward) else float(reward) for reward in found]
    if len(rewards) != len(arguments["completions"]):
        raise ValueError(f"expected {len(arguments['completions'])} rewards, got {len(rewards)}")
    return rewards


async def _awaited(found: Any) -> Any:
    return await found


def _say(channel: TextIO, **reply: Any) -> None:
    print(json.dumps(reply), file=channel)


if __name__ == "__main__":
    main()
