"""Requests to a Hub, carried out again where that can help, and failures turned into one line for people."""

import logging
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import TypeVar

from erpd_hub.errors import HubError
from erpd_hub.hub.sessions import longest_silence
from erpd_hub.hub.tokens import token_advice

logger = logging.getLogger(__name__)

T = TypeVar("T")
BACK_OFF = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries of a request that may succeed later."""
MAX_SILENCES = 2
"""How often `sessions.longest_silence` is waited; the client's own tries, of some requests six, count too."""
LONGEST_WAIT = 900.0
"""Seconds that are waited for an endpoint that says when to come back; a later hour is the user's to choose."""
_LATER = "run the same command again later"
FULL = 507
"""Status of an endpoint whose disk is full, which no waiting mends."""
LONGEST_REASON = 300
"""Characters of what an endpoint says that an error repeats."""


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
    started = time.monotonic()
    for pause in (*back_off, None):
        try:
            return request()
        except Exception as raised:
            error = _failure(raised)
            kind = _kind(error)
            if kind == "missing":
                raise NotOnHub(f"{endpoint}: {_first_line(error)}") from error
            if kind == "refused":
                raise HubError(f"{endpoint}: {_reason(error)}; {_remedy(_status(error), endpoint)}") from error
            if kind == "not ours":
                raise
            if kind == "silent" and time.monotonic() - started >= MAX_SILENCES * longest_silence():
                raise HubError(f"{endpoint}: accepts connections and does not answer; {_LATER}") from error
            if pause is None:
                tries = len(back_off) + 1
                after = f" after {tries} tries" if back_off else ""
                raise HubError(f"{endpoint}: not reachable{after}: {_first_line(error)}; {_LATER}") from error
            asked = _retry_after(error)
            if asked > LONGEST_WAIT:
                raise HubError(f"{endpoint}: asks to wait {asked:.0f} s; {_LATER}") from error
            pause = max(pause, asked)
            logger.warning("%s: %s; trying again in %.1f s", endpoint, _first_line(error), pause)
            time.sleep(pause)
            revive()
    raise AssertionError("unreachable")


def _failure(error: Exception) -> Exception:
    """What failed; of an upload the client raises a RuntimeError above it that names the file only."""
    return error.__cause__ if type(error) is RuntimeError and isinstance(error.__cause__, Exception) else error


def _kind(error: Exception) -> str:
    """`missing`, `transient`, `silent`, `refused`, or `not ours` for what is no failure of the Hub."""
    from huggingface_hub import errors

    names = {base.__name__ for base in type(error).__mro__}
    status = _status(error)
    # Raised for a dead connection as well, although its base class says the entry is absent.
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "silent" if _is_silence(error.__cause__) else "transient"
    absent = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError)
    if isinstance(error, absent) and not isinstance(error, errors.GatedRepoError) and status != 401:
        return "missing"
    if status in (408, 412, 429) or (status is not None and status >= 500 and status != FULL):
        return "transient"
    if status is not None:
        return "refused"
    # huggingface_hub 1.x raises httpx's errors, 2.x those of httpx2; neither is imported here for it.
    if _is_silence(error):
        return "silent"
    connection = {"TransportError", "ConnectionError", "TimeoutException", "RemoteProtocolError"}
    return "transient" if names & connection else "not ours"


def _is_silence(error: BaseException | None) -> bool:
    return type(error).__name__ in ("ReadTimeout", "WriteTimeout")


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _retry_after(error: Exception) -> float:
    """Seconds to wait, as the endpoint's Retry-After says it, in seconds or as a date; 0 where it says nothing."""
    value = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _remedy(status: int | None, endpoint: str) -> str:
    remedies = {401: token_advice(endpoint), 403: "the token has no right to do this", FULL: "free space on its disk"}
    return remedies.get(status or 0, "nothing was lost")


def _reason(error: Exception) -> str:
    """The endpoint's own words where it has some, which the client hides below lines of its own."""
    words = (getattr(error, "server_message", None) or "").strip().splitlines()
    return f"HTTP {_status(error)}: {words[0][:LONGEST_REASON]}" if words else _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
