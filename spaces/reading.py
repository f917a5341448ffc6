"""What every reading of a Hub has in common: what may fail, how that is said, and what is kept."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from places import Place, Row

TRANSPORT_ERROR: type[Exception] = sys.modules[type(get_session()).__module__.partition(".")[0]].TransportError
"""Of httpx under huggingface_hub 1.x, of httpx2 under 2.x."""


class TooLargeError(Exception):
    """Something is larger than what is read of its kind."""


UNREADABLE = (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError, pa.ArrowException, TRANSPORT_ERROR,
              TooLargeError)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Rows, and one sentence for each thing that was not there."""

    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class NotNowError(Exception):
    """Something could not be read, now; `instead` is what there is of it."""

    def __init__(self, instead: Any) -> None:
        super().__init__("not readable now")
        self.instead = instead


def kept(count: int, read: Callable[..., Any]) -> Callable[..., Any]:
    """`read` with its last `count` results kept, but for what could not be read: the next time it may be."""
    cached = lru_cache(count)(read)

    def reading(*asked: object) -> Any:
        try:
            return cached(*asked)
        except NotNowError as error:
            return error.instead

    return reading


def small_file(api: HfApi, place: Place, name: str, most: int) -> Path:
    """A file of an artifact in the client's cache, of up to `most` bytes; the Hub is asked for the size before.

    Raises:
        TooLargeError: it is larger, or the Hub does not say.
    """
    asked = {"repo_id": place.repo_id, "filename": place.path(name), "repo_type": place.repo_type,
             "revision": place.revision}  # fmt: skip
    told = api.hf_hub_download(**asked, dry_run=True)
    if told.file_size is None or told.file_size > most:
        raise TooLargeError(name)
    path = Path(told.local_path)  # of a commit whose content is cached under another one, it is not there yet
    return path if path.exists() else Path(api.hf_hub_download(**asked))


def reason(error: Exception) -> str:
    """Why something cannot be read, without the endpoint's address."""
    if isinstance(error, TooLargeError):
        return "too large to read"
    if isinstance(error, pa.ArrowException):
        return "not a readable parquet file"
    status = status_of(error)
    reasons = {401: "not there, or not readable without a token", 403: "this token may not read it", 404: "not found"}
    return reasons.get(status, f"the Hub answered {status}") if status else "the Hub does not answer"


def status_of(error: Exception) -> int | None:
    """What the Hub answered, where it did."""
    return getattr(getattr(error, "response", None), "status_code", None)
