"""What .gitignore and .gitattributes say of paths: which are left out of an upload, and which go through LFS."""

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

MAX_RULES = 1000
MAX_RULE_CHARS = 1024
"""As long as a path may be."""
MAX_JUMPS = 3
"""`**` in one pattern, as each but a last one multiplies the time it may take by the folders of a path."""
MAX_STEPS = 500_000_000
"""Of one request, as `steps` counts them: a second. The longest of the common .gitignore templates and as many files
as clients ask for at a time take a tenth of it."""


class Ignored:
    """Which paths a .gitignore at the root ignores: the last pattern that matches one, or a folder above, decides."""

    def __init__(self, gitignore: str) -> None:
        self._rules = [rule for line in gitignore.splitlines()[:MAX_RULES] if (rule := _rule(line))]
        self._chars = [
            sum(rule.chars for rule in self._rules if max(rule.jumps, 1) == jumps) for jumps in range(1, MAX_JUMPS + 1)
        ]

    def __call__(self, path: str) -> bool:
        return next((rule.ignores for rule in reversed(self._rules) if rule.pattern.match(path)), False)

    def steps(self, paths: Iterable[str]) -> int:
        """At most what matching these paths takes: each character of a rule against each of a path, from each of its
        folders for every jump after the first."""
        return sum(
            chars * len(path) * (path.count("/") + 1) ** more
            for path in paths
            for more, chars in enumerate(self._chars)
            if chars
        )


class _Rule(NamedTuple):
    ignores: bool
    pattern: re.Pattern[str]
    chars: int
    jumps: int


class LargeFiles:
    """Which paths a .gitattributes sends through LFS; a pattern without a slash matches the file's name."""

    def __init__(self, gitattributes: bytes) -> None:
        lines = [line.split() for line in gitattributes.decode("utf-8", "replace").splitlines()]
        patterns = [words[0] for words in lines if "filter=lfs" in words[1:] and not words[0].startswith("#")]
        any_of = {
            deep: [translate(text.lstrip("/")) for text in patterns if ("/" in text) == deep] for deep in (True, False)
        }
        self._by_path, self._by_name = (re.compile("|".join(any_of[deep]) or r"(?!)") for deep in (True, False))
        self._chars = sum(map(len, patterns))

    def __call__(self, path: str) -> bool:
        return bool(self._by_name.match(path.rsplit("/", 1)[-1]) or self._by_path.match(path))

    def steps(self, paths: Iterable[str]) -> int:
        """At most what matching these paths takes: each character of a pattern against each of a path."""
        return self._chars * sum(map(len, paths))


ignore_rule = lru_cache(maxsize=64)(Ignored)
lfs_rule = lru_cache(maxsize=64)(LargeFiles)


def _rule(line: str) -> _Rule | None:
    text = line.rstrip()
    if not text or text.startswith("#"):
        return None
    ignores = not text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folder_only = text.endswith("/")
    text = text.rstrip("/")
    jumps = text.removesuffix("/**").count("**")
    if not text or len(text) > MAX_RULE_CHARS or jumps > MAX_JUMPS:
        return None
    anywhere = "/" not in text
    below = "/.*" if folder_only else "(?:/.*)?"
    body = "/".join(map(_segment, text.lstrip("/").split("/"))).replace("\0/", "(?:.*/)?").replace("\0", ".*")
    pattern = re.compile(f"(?:.*/)?{body}{below}\\Z" if anywhere else f"{body}{below}\\Z", re.DOTALL)
    return _Rule(ignores, pattern, len(text), jumps)


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
