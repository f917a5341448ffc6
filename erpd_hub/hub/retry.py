"""Requests to a Hub, carried out again where that can help, and failures turned into one line for people."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from erpd_hub.errors import HubError

logger = logging.getLogger(__name__)

T = TypeVar("T")
BACK_OFF = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries of a request that may succeed later."""


class NotOnHub(HubError):
    """No such repository, revision or file (or none that this token may see)."""


def with_retries(
    request: Callable[[], T], endpoint: str, *, revive: Callable[[], None], back_off: Sequence[float] | None = None
) -> T:
    """Carry out a request; after a failure that may pass, wait as `back_off` says, call `revive` and try again.

    Raises:
        NotOnHub: what was asked for is not there.
        HubError: the endpoint refused for good, or stayed away.
    """
    back_off = BACK_OFF if back_off is None else back_off
    for pause in (*back_off, None):
        try:
            return request()
        except Exception as error:
            kind = _kind(error)
            if kind == "missing":
                raise NotOnHub(f"{endpoint}: {_first_line(error)}") from error
            if kind == "refused":
                raise HubError(f"{endpoint}: {_first_line(error)}; {_remedy(_status(error))}") from error
            if kind == "not ours":
                raise
            if pause is None:
                tries = len(back_off) + 1
                after = f" after {tries} tries" if back_off else ""
                raise HubError(f"{endpoint}: not reachable{after}: {_first_line(error)}") from error
            logger.warning("%s: %s; trying again in %.1f s", endpoint, _first_line(error), pause)
            time.sleep(pause)
            revive()
    raise AssertionError("unreachable")


def _kind(error: Exception) -> str:
    """`missing`, `transient`, `refused`, or `not ours` for what is no failure of the Hub."""
    from huggingface_hub import errors

    names = {base.__name__ for base in type(error).__mro__}
    status = _status(error)
    # Raised for a dead connection as well, although its base class says the entry is absent.
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "transient"
    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)
    if isinstance(error, absent) and not isinstance(error, errors.GatedRepoError) and status != 401:
        return "missing"
    if status in (408, 412, 429) or (status is not None and status >= 500):
        return "transient"
    if status is not None:
        return "refused"
    # huggingface_hub 1.x raises httpx's errors, 2.x those of httpx2; neither is imported here for it.
    connection = {"TransportError", "ConnectionError", "TimeoutException", "RemoteProtocolError"}
    return "transient" if names & connection else "not ours"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _remedy(status: int | None) -> str:
    remedies = {401: "check the token", 403: "the token has no right to do this", 507: "free space on its disk"}
    return remedies.get(status or 0, "nothing was lost")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
