"""Which paths a .gitignore leaves out of an upload."""

import re
from collections.abc import Callable
from functools import lru_cache

MAX_RULES = 1000
MAX_RULE_CHARS = 1024
"""As long as a path may be."""
MAX_JUMPS = 3
"""`**` in one pattern, as each multiplies the time it may take."""


@lru_cache(maxsize=64)
def ignore_rule(gitignore: str) -> Callable[[str], bool]:
    """Whether a .gitignore at the root ignores a file's path: the last pattern that matches it or a folder above."""
    rules = [rule for line in gitignore.splitlines()[:MAX_RULES] if (rule := _rule(line))]

    def is_ignored(path: str) -> bool:
        return next((ignores for ignores, pattern in reversed(rules) if pattern.match(path)), False)

    return is_ignored


def _rule(line: str) -> tuple[bool, re.Pattern[str]] | None:
    text = line.rstrip()
    if not text or text.startswith("#"):
        return None
    ignores = not text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folder_only = text.endswith("/")
    text = text.rstrip("/")
    if not text or len(text) > MAX_RULE_CHARS or text.count("**") > MAX_JUMPS:
        return None
    anywhere = "/" not in text
    below = "/.*" if folder_only else "(?:/.*)?"
    body = "/".join(map(_segment, text.lstrip("/").split("/"))).replace("\0/", "(?:.*/)?").replace("\0", ".*")
    return ignores, re.compile(f"(?:.*/)?{body}{below}\\Z" if anywhere else f"{body}{below}\\Z", re.DOTALL)


def _segment(glob: str) -> str:
    """A path segment's pattern; `**` becomes a NUL that stands for any number of segments.

    What follows a star is taken at its first place, once and for all: trying them all could take for ever.
    """
    if glob == "**":
        return "\0"
    first, *rest = (re.escape(part).replace(r"\?", "[^/]") for part in re.split(r"\*+", glob))
    if not rest:
        return first
    return first + "".join(f"(?>[^/]*?{part})" for part in rest[:-1]) + f"[^/]*{rest[-1]}"
