"""Which names are allowed: repository ids, refs and paths inside a repository.

Nothing here ever becomes a path of the host; the rules keep a repository checkable out on any client's disk.
"""

import re

from erpd_hub.hub.server.errors import bad_request, unprocessable

MAX_PATH_BYTES = 1024
MAX_SEGMENT_BYTES = 255
MAX_DEPTH = 64
MAX_REF_CHARS = 200

_REPO_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+=-]*")
_HEX = re.compile(r"[0-9a-f]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES_WINDOWS = re.compile(r"(?:\.\.)?\\|[A-Za-z]:\\")
_RESERVED_NAMESPACES = frozenset({"api", "collections", "datasets", "lfs-upload", "models", "spaces", "xet"})
# A second path segment that would make `/{namespace}/resolve/...` ambiguous.
_RESERVED_NAMES = frozenset({"resolve", "revision", "tree", "commits", "commit", "preupload"})


def is_hex(text: str, length: int) -> bool:
    return len(text) == length and _HEX.fullmatch(text) is not None


def is_short_sha(text: str) -> bool:
    return 7 <= len(text) <= 40 and _HEX.fullmatch(text) is not None


def is_repo_part(text: str) -> bool:
    """Whether `text` may be a namespace or the name of a repository."""
    return _REPO_PART.fullmatch(text) is not None and "--" not in text and ".." not in text


def is_namespace(text: str) -> bool:
    """Whether `text` may be the name of a user or an organization."""
    return is_repo_part(text) and text.lower() not in _RESERVED_NAMESPACES


def check_repo_id(namespace: str, name: str) -> None:
    """Raise a 400 for an id that may not be created."""
    if not is_namespace(namespace) or not is_repo_part(name):
        raise bad_request(f"Invalid repository id: {namespace}/{name}")
    if name in _RESERVED_NAMES or name.endswith((".git", ".ipynb")):
        raise bad_request(f"Reserved repository name: {name}")


def check_ref_name(name: str) -> None:
    """Raise a 400 for a branch or tag name that git would refuse or that reads as a commit id."""
    bad = (
        _REF.fullmatch(name) is None
        or len(name) > MAX_REF_CHARS
        or name.startswith("refs/")
        or name.endswith((".", "/", ".lock"))
        or any(part in name for part in ("..", "//", "/."))
        or is_hex(name, 40)
    )
    if bad:
        raise bad_request(f"Invalid reference name: {name}")


def split_path(path: str) -> tuple[str, ...]:
    """The segments of a path inside a repository; raises a 422 for one that could leave it."""
    parts = tuple(path.split("/"))
    if (
        _ESCAPES_WINDOWS.match(path)
        or len(parts) > MAX_DEPTH
        or _CONTROL.search(path)
        or not all(map(_is_segment, parts))
    ):
        raise unprocessable(f"Invalid path in repository: {path[:200]!r}")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise unprocessable(f"Path in repository is longer than {MAX_PATH_BYTES} bytes")
    return parts


def _is_segment(part: str) -> bool:
    if part in ("", ".", "..") or part.casefold() == ".git":
        return False
    try:
        return len(part.encode()) <= MAX_SEGMENT_BYTES
    except UnicodeEncodeError:  # a lone surrogate, smuggled in through JSON
        return False
