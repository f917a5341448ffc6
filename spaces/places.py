"""Where artifacts are, as rows of the leaderboard and lineage records name them. Pure."""

from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Query = dict[str, list[str]]
"""What the page's address asks for."""

LARGEST = 1e100
TEXTS = ("run", "role", "checkpoint", "checkpoint_repo", "checkpoint_revision", "benchmark", "details_repo",
         "details_folder", "details_revision", "base_repo", "base_revision", "teacher_repo", "loss", "judge",
         "canaries_problem", "problems_state", "benchmark_definition", "harness", "taken_over_otherwise", "probe_repo",
         "probe_folder", "probe_revision")  # fmt: skip
NUMBERS = ("step", "version", "avg", "stderr", "k", "n", "n_graded", "coverage", "mean_length", "truncated",
           "no_answer", "kl_checkpoint_to_base", "entropy", "strategy", "avg_judged", "judge_share",
           "canary_acceptance", "temperature", "top_p", "max_new_tokens", "max_sequence_tokens", "limit",
           "cut_short")  # fmt: skip
"""Columns of the leaderboard that the pages calculate with or write."""


@dataclass(frozen=True)
class Place:
    """An artifact: a repository, a commit, a folder in it."""

    repo_type: str
    repo_id: str
    revision: str | None
    folder: str = ""

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def repo_path(self) -> str:
        """The repository as the Hub's addresses and its file system name it."""
        return f"{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo_id}"

    def __str__(self) -> str:
        return f"{self.repo_id}{'/' + self.folder if self.folder else ''}"


def score_of(row: Row) -> Row:
    """A row of the leaderboard as its schema has it: null where a Hub holds something else under a column's name."""
    numbers = {name: row[name] if is_number(row.get(name)) else None for name in NUMBERS if name in row}
    texts = {name: row[name] if isinstance(row[name], str) else None for name in TEXTS if name in row}
    found = row.get("interval")
    is_interval = isinstance(found, list) and len(found) == 2 and all(map(is_number, found))
    return {**row, **texts, **numbers, "interval": found if is_interval else None}


def is_number(value: object) -> bool:
    """Whether a number of a file is one to calculate with: JSON has integers of any length, and NaN."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def details_place(score: Row) -> Place | None:
    """Where the samples behind a row of the leaderboard are; None where the row does not say."""
    if not score.get("details_repo"):
        return None
    return Place("dataset", score["details_repo"], score.get("details_revision"), score.get("details_folder") or "")


def checkpoint_place(score: Row) -> Place | None:
    """Where a row's checkpoint is; None for an endpoint."""
    if "/" not in (score.get("checkpoint_repo") or ""):
        return None
    return Place("model", score["checkpoint_repo"], score.get("checkpoint_revision"))


def inputs_of(record: Row | None) -> list[tuple[str, Place | None]]:
    """(role, artifact) of a record's inputs; None for one that is in no repository."""
    return [
        (item["role"], Place(item["repo_type"], item["repo_id"], item.get("revision"), item.get("folder") or ""))
        if item.get("repo_id") and item.get("repo_type")
        else (item["role"], None)
        for item in (record or {}).get("inputs", ())
    ]


def is_record(record: Row) -> bool:
    """Whether a lineage record is one, as far as the pages read it; a Hub may hold anything under its name."""
    inputs, files = record.get("inputs", []), record.get("files") or {}
    return (
        isinstance(record.get("stage"), str)
        and isinstance(inputs, list)
        and all(map(_is_input, inputs))
        and isinstance(files, dict)
        and all(isinstance(file, dict) and isinstance(file.get("sha256"), str) for file in files.values())
        and all(isinstance(file.get("size"), int) for file in files.values())
    )


def _is_input(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        return False
    if not (item.get("repo_id") and item.get("repo_type")):
        return True
    texts = (item["repo_id"], item.get("revision") or "", item.get("folder") or "")
    return item["repo_type"] in ("model", "dataset") and all(isinstance(text, str) for text in texts)


def input_of(record: Row | None, role: str) -> Place | None:
    """The first input of that role that is in a repository."""
    return next((place for name, place in inputs_of(record) if name == role and place is not None), None)
