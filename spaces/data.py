"""What the pages read of one namespace: the leaderboard, samples, records, curves and signals.

Knows nothing of Gradio and nothing of `erpd_hub`, only the published names of columns and files. What is missing (a
dataset, a column, a shard) or too large to read is said in `missing`, and everything else is still shown.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import HfApi

from places import Place, Row, inputs_of, is_record, score_of
from reading import UNREADABLE, NotNowError, Rows, kept, reason, small_file, status_of
from shards import Index, Shards

LEADERBOARD = "erpd-leaderboard"
MOST_SCORES = 20_000
SAMPLE_COLUMNS = ("problem_id", "k", "text", "gold", "extracted", "verdict", "label", "finish_reason", "judge",
                  "response_ids", "num_tokens")  # fmt: skip
SIGNAL_COLUMNS = ("problem_id", "k", "label", "numerator", "denominator", "old", "signal")
LARGEST_RECORD = 16 * 2**20
"""Bytes of a JSON file that is read; nothing that a run publishes comes near."""
LARGEST_TOKENIZER = 64 * 2**20


@dataclass(frozen=True)
class Published:
    """A repository of the namespace as its listing tells."""

    place: Place
    """At the last commit of main."""
    stage: str
    run: str
    files: tuple[str, ...]


class Source:
    """One namespace at one endpoint. What is addressed by a commit is kept once read."""

    def __init__(self, api: HfApi, namespace: str, run: str | None = None) -> None:
        self.api = api
        self.namespace = namespace
        self.run = run
        self._shards = Shards(api)
        self.index: Callable[[Place], Index] = self._shards.index
        self.json: Callable[[Place, str], Rows] = kept(4096, partial(self._lines, whole=True))
        self.lines: Callable[[Place, str], Rows] = kept(256, self._lines)
        self.samples: Callable[[Place, str], Rows] = kept(16, self._samples)
        self.signal_row: Callable[[Place, str, int], Rows] = kept(16, self._signal_row)
        self.tokens: Callable[[Place, str, int], list[int] | None] = kept(16, self._tokens)
        self.prompts: Callable[[Place, tuple[str, ...]], dict[str, list[int] | None]] = kept(32, self._prompts)

    @classmethod
    def from_environment(cls) -> "Source":
        """The namespace set, or the owner of the Space it runs in; endpoint and token as for the Hub's client."""
        owner = os.environ.get("SPACE_AUTHOR_NAME") or "local"
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN") or None)
        return cls(api, os.environ.get("ERPD_SPACE_NAMESPACE") or owner, os.environ.get("ERPD_SPACE_RUN") or None)

    def leaderboard(self) -> Rows:
        """All published scores, or those of one run, in the order of their files."""
        repo_id = f"{self.namespace}/{LEADERBOARD}"
        try:
            commit = self.api.repo_info(repo_id, repo_type="dataset").sha
        except UNREADABLE as error:
            return Rows(missing=[f"dataset {repo_id}: {reason(error)}"])
        place = Place("dataset", repo_id, commit)
        shards, missing = self._shards.names(place, "data")
        tables = (table for shard in shards for _, table in self._shards.groups(place, shard, missing))
        rows = list(islice((row for table in tables for row in table.to_pylist()), MOST_SCORES + 1))
        if len(rows) > MOST_SCORES:
            missing.append(f"the leaderboard of {self.namespace} has over {MOST_SCORES:,} scores: the first are here")
        chosen = [score_of(row) for row in rows[:MOST_SCORES] if self.run in (None, row.get("run"))]
        if rows and not chosen:
            missing.append(f"the leaderboard of {self.namespace} has no row of the run {self.run}")
        return Rows(chosen, missing)

    def row_groups(self, place: Place, columns: Sequence[str], missing: list[str]) -> Iterator[pa.Table]:
        """An artifact's row groups with just these columns, one at a time, so that a reader may stop early."""
        shards, absent = self._shards.names(place, place.path("data"))
        missing += absent
        for shard in shards:
            for _, table in self._shards.groups(place, shard, missing, columns):
                yield table

    def published(self, kind: str, most: int, *, run: str | None = None, stage: str | None = None) -> list[Published]:
        """Up to `most` repositories of our artifacts, the last changed first; `kind` is model or dataset.

        Raises:
            UNREADABLE: the Hub does not list them.
        """
        tags = [f"erpd-{name}:{value}" for name, value in (("stage", stage), ("run", run)) if value] or ["erpd"]
        listed = self.api.list_models if kind == "model" else self.api.list_datasets
        found = listed(author=self.namespace, filter=tags, sort="last_modified", limit=most, full=True)
        return [
            Published(
                place=Place(kind, item.id, item.sha),
                stage=_tagged(item.tags, "erpd-stage:"),
                run=_tagged(item.tags, "erpd-run:"),
                files=tuple(file.rfilename for file in item.siblings or ()),
            )
            for item in found
        ]

    def record(self, place: Place) -> Row | None:
        """An artifact's lineage record; None where there is none, or none that tells what the pages show."""
        found = next(iter(self.json(place, "lineage.json").rows), None)
        return found if found is not None and is_record(found) else None

    def records(self, places: Sequence[Place]) -> list[Row | None]:
        """Several records at once."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.record, places))

    def closure(self, places: Sequence[Place], most: int) -> dict[Place, Row | None]:
        """These artifacts and all that they come from: their records, None for what has none. Stops beyond `most`."""
        found: dict[Place, Row | None] = {}
        while pending := [place for place in dict.fromkeys(places) if place not in found][: most + 1 - len(found)]:
            found |= zip(pending, self.records(pending), strict=True)
            places = [above for place in pending for _, above in inputs_of(found[place]) if above is not None]
        return found

    def tokenizer_file(self, place: Place) -> Path | None:
        """The tokenizer of a checkpoint in the client's cache; None where it is not there, or too large."""
        try:
            return small_file(self.api, place, "tokenizer.json", LARGEST_TOKENIZER)
        except UNREADABLE:
            return None

    def link(self, place: Place) -> str:
        """The artifact's page."""
        return f"{self.api.endpoint}/{place.repo_path}/tree/{place.revision or 'main'}/{place.folder}".rstrip("/")

    def _samples(self, place: Place, problem_id: str) -> Rows:
        """All samples of one problem by k, with their texts, and as `response_ids` how many there are."""
        table = self.index(place).table
        wanted = table.filter(pc.equal(table["problem_id"], problem_id))
        return _now(self._shards.rows(place, wanted, SAMPLE_COLUMNS, lengths=("response_ids",)))

    def _tokens(self, place: Place, problem_id: str, k: int) -> list[int] | None:
        """The token ids of one response."""
        found = self._sample(place, problem_id, k, ("problem_id", "k", "response_ids"))
        ids = found.rows[0]["response_ids"] if found.rows else None
        if found.missing:
            raise NotNowError(ids)
        return ids

    def _signal_row(self, place: Place, problem_id: str, k: int) -> Rows:
        """One sample's log-probs and signal, one number for each response token."""
        return _now(self._sample(place, problem_id, k, SIGNAL_COLUMNS))

    def _sample(self, place: Place, problem_id: str, k: int, columns: Sequence[str]) -> Rows:
        table = self.index(place).table
        of_sample = pc.and_(pc.equal(table["problem_id"], problem_id), pc.equal(table["k"], k))
        return self._shards.rows(place, table.filter(of_sample), columns)

    def _prompts(self, place: Place, problems: tuple[str, ...]) -> dict[str, list[int] | None]:
        """The prompt's token ids of these problems, of each its first sample's; none for what cannot be read."""
        table = self.index(place).table
        wanted = table.filter(pc.is_in(table["problem_id"], pa.array(problems, pa.string())))
        rest = ("k", "shard", "group")
        firsts = wanted.group_by("problem_id", use_threads=False).aggregate([(name, "first") for name in rest])
        one_each = pa.table({"problem_id": firsts["problem_id"], **{name: firsts[f"{name}_first"] for name in rest}})
        found = self._shards.rows(place, one_each, ("problem_id", "k", "prompt_ids"))
        told = {row["problem_id"]: row["prompt_ids"] for row in found.rows}
        if found.missing:
            raise NotNowError(told)
        return told

    def _lines(self, place: Place, name: str, *, whole: bool = False) -> Rows:
        """The objects of a JSON-lines file, or of a file that is one."""
        try:
            path = small_file(self.api, place, name, LARGEST_RECORD)
        except UNREADABLE as error:
            instead = Rows(missing=[f"{place}: {name}: {reason(error)}"])
            if status_of(error) == 404:
                return instead
            raise NotNowError(instead) from error
        try:
            text = path.read_text("utf-8")
            rows = [json.loads(part) for part in ([text] if whole else text.splitlines()) if part.strip()]
        except (ValueError, RecursionError):
            return Rows(missing=[f"{place}: {name}: not readable as JSON"])
        return Rows([row for row in rows if isinstance(row, dict)])


def _now(found: Rows) -> Rows:
    if found.missing:
        raise NotNowError(found)
    return found


def _tagged(tags: Sequence[Any] | None, prefix: str) -> str:
    """What follows the prefix in the first tag that has it."""
    return next((tag.removeprefix(prefix) for tag in tags or () if tag.startswith(prefix)), "")
