"""Whether a problem is one of a benchmark's: equal texts, or half of the benchmark problem's telling word runs. Pure.

Texts are compared as words: how formulas are typeset does not count, and every variable, name of a point and Greek
letter is the same word, so that a benchmark that renamed the letters of an old problem still matches it. A run of 5
words tells something unless two different benchmark problems have it: "where m and n are relatively prime positive
integers" stands in dozens of contest problems. It is the share of the benchmark problem's runs that counts, as in
PaLM's rule (70 % of 8-grams) and Tulu 3's (half of the words by 8-grams), and not any one run, as in GPT-3's (13-grams
without the common ones); shorter runs survive more edits. Leaves out: problems that were reworded throughout.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from erpd_hub.prompts import Problem, normalise_problem

RULE = "5-word runs, half of them"
"""Part of the identity of prompt sets that are searched by it; changed with whatever changes what is found."""

_RUN = 5  # words
_SHARE = 0.5  # of a benchmark problem's telling runs
_FEWEST = 4  # runs shared, or all where a problem has fewer
_SAME_PROBLEM = 0.7  # of the runs of the shorter: two benchmarks have this problem, and its runs stay telling
_COMMON = 20  # different problems with a run, beyond which it is not asked whether they are the same

_GREEK = re.compile(
    "alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau"
    "|upsilon|(?:var)?phi|chi|psi|omega",
    re.IGNORECASE,
)
_TYPESETTING = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|q?quad|text(?:bf|it)?|math(?:rm|bf|it|bb|cal)|operatorname|overline"
    r"|begin|end|times|[cl]?dots?|circ|sqrt)(?![a-zA-Z])|\\[,;:!> ]|[~$]"
)
_FRACTION = re.compile(r"\\[dtc]frac")
_SEPARATOR = re.compile(r"(?<=\d)(?:,|\{,\}|\\[,!])+(?=\d{3}(?!\d))")
_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # written without spaces: a character is a word
_WORD = re.compile(rf"\d+|[{_CJK}]|[^\W\d_{_CJK}]+")
_LONGEST_NAME = 5  # capital letters that may name points: ABCDE


class Hit(NamedTuple):
    """A problem that overlaps a benchmark's; the one with the largest share."""

    problem_id: str
    benchmark: str
    benchmark_problem_id: str
    matched: str
    """The whole normalised text, or the longest run of shared words, with `v` for variables."""
    share: float | None
    """Of the benchmark problem's telling runs; None for equal texts."""


class OverlapIndex:
    """The texts and telling runs of benchmark problems; of equal texts the first problem owns them."""

    def __init__(self, known: Iterable[Problem]) -> None:
        self._equal: dict[str, Problem] = {}
        texts: dict[tuple[str, ...], Problem] = {}
        for problem in known:
            self._equal.setdefault(normalise_problem(problem.problem), problem)
            texts.setdefault(_words(problem.problem), problem)
        self._problems = list(texts.values())
        self._words = list(texts)
        runs = [_runs(words) for words in texts]
        owners = _owners(runs)
        same = _same_problems(runs, owners)
        self._owners = {run: who for run, who in owners.items() if _is_telling(who, same)}
        self._sizes = [sum(run in self._owners for run in own) for own in runs]

    def find(self, problem: Problem) -> Hit | None:
        """The benchmark problem that this one overlaps most, if any."""
        text = normalise_problem(problem.problem)
        if owner := self._equal.get(text):
            return Hit(problem.problem_id, owner.source, owner.problem_id, text, None)
        shared = _runs(_words(problem.problem)) & self._owners.keys()
        counts = Counter(owner for run in shared for owner in self._owners[run])
        shares = {index: count / self._sizes[index] for index, count in counts.items() if self._is_enough(index, count)}
        if not shares:
            return None
        best = max(shares, key=lambda index: (shares[index], -index))
        owner, matched = self._problems[best], _longest_shared(self._words[best], shared)
        return Hit(problem.problem_id, owner.source, owner.problem_id, matched, round(shares[best], 3))

    def _is_enough(self, index: int, shared: int) -> bool:
        return shared >= _SHARE * self._sizes[index] and shared >= min(_FEWEST, self._sizes[index])


def _words(text: str) -> tuple[str, ...]:
    """Numbers, words, and `v` for variables, however many stand together."""
    plain = _SEPARATOR.sub("", unicodedata.normalize("NFKC", text))
    plain = _FRACTION.sub(" frac", _TYPESETTING.sub(" ", plain))
    words: list[str] = []
    for word in _WORD.findall(plain):
        told = "v" if _is_variable(word) else word.casefold()
        if told != "v" or words[-1:] != ["v"]:  # `A B C` and `ABC` are the same
            words.append(told)
    return tuple(words)


def _is_variable(word: str) -> bool:
    if word.isdigit() or re.match(rf"[{_CJK}]", word):
        return False
    return len(word) == 1 or (word.isupper() and len(word) <= _LONGEST_NAME) or bool(_GREEK.fullmatch(word))


def _runs(words: Sequence[str]) -> set[str]:
    return {" ".join(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)}


def _owners(runs: Iterable[set[str]]) -> dict[str, list[int]]:
    """Who has a run, by their numbers in order."""
    owners: dict[str, list[int]] = defaultdict(list)
    for index, own in enumerate(runs):
        for run in own:
            owners[run].append(index)
    return dict(owners)


def _same_problems(runs: Sequence[set[str]], owners: Mapping[str, Sequence[int]]) -> dict[int, int]:
    """For problems that stand in two benchmarks in nearly the same words, the first of them."""
    shared: Counter[tuple[int, int]] = Counter()
    for who in owners.values():
        if len(who) <= _COMMON:
            shared.update((one, other) for at, other in enumerate(who) for one in who[:at])
    first: dict[int, int] = {}
    for (one, other), count in sorted(shared.items()):
        if count >= _SAME_PROBLEM * min(len(runs[one]), len(runs[other])):
            first.setdefault(other, first.get(one, one))
    return first


def _is_telling(who: Sequence[int], same: Mapping[int, int]) -> bool:
    return len(who) <= _COMMON and len({same.get(index, index) for index in who}) == 1


def _longest_shared(words: Sequence[str], shared: set[str]) -> str:
    """The longest stretch of a benchmark problem whose runs are all shared."""
    best, start = (0, 0), 0
    for at in range(len(words) - _RUN + 1):
        if " ".join(words[at : at + _RUN]) not in shared:
            start = at + 1
        elif at + _RUN - start > best[1] - best[0]:
            best = (start, at + _RUN)
    return " ".join(words[best[0] : best[1]])
