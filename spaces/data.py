"""What the Space shows, read from published datasets: the leaderboard, and the samples behind one of its rows.

Reading knows nothing of Gradio and nothing of `erpd_hub`, only the published column names. What is missing (a dataset,
a column, a shard) is said in `missing` and everything else is still shown.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

LEADERBOARD = "erpd-leaderboard"
ROLES = ("base", "teacher", "unlearned", "student", "control", "online")
SCORE_COLUMNS = ("run", "role", "checkpoint", "step", "benchmark", "avg", "stderr", "k", "n",
                 "kl_checkpoint_to_base", "mean_length", "truncated")  # fmt: skip
LINK_COLUMNS = ("details_repo", "details_folder", "details_revision")
SAMPLE_COLUMNS = ("problem_id", "k", "text", "gold", "extracted", "verdict", "label", "finish_reason", "response_ids")

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Rows, and one sentence for each thing that was not there."""

    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """Where the datasets are: an endpoint and a namespace on it."""

    api: HfApi
    namespace: str

    @classmethod
    def from_environment(cls) -> "Source":
        """The namespace set, or the owner of the Space it runs in; endpoint and token as for the Hub's client."""
        owner = os.environ.get("SPACE_AUTHOR_NAME") or "local"
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=os.environ.get("HF_TOKEN"))
        return cls(api, os.environ.get("ERPD_SPACE_NAMESPACE") or owner)

    def leaderboard(self) -> Rows:
        """All scores, sorted by run, benchmark, role and step."""
        paths, missing = self._pull(f"{self.namespace}/{LEADERBOARD}", "", None)
        found = read_parquet(paths, [*SCORE_COLUMNS, *LINK_COLUMNS])
        return Rows(sorted(found.rows, key=_order), missing + found.missing)

    def samples(self, score: Row) -> Rows:
        """The samples behind one row of the leaderboard."""
        if not score.get("details_repo"):
            return Rows(missing=[f"{label(score)}: the leaderboard names no details dataset for it"])
        paths, missing = self._pull(
            score["details_repo"], score.get("details_folder") or "", score.get("details_revision")
        )
        found = read_parquet(paths, SAMPLE_COLUMNS)
        return Rows([_with_length(row) for row in found.rows], missing + found.missing)

    def _pull(self, repo_id: str, folder: str, revision: str | None) -> tuple[list[Path], list[str]]:
        """Download `folder/data/*.parquet` of a dataset; the client's cache makes a second call cheap."""
        pattern = f"{folder}/data/*.parquet".lstrip("/")
        try:
            root = self.api.snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=pattern)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            return [], [f"dataset {repo_id}: {_reason(error)}"]
        paths = sorted(Path(root).glob(pattern))
        return paths, [] if paths else [f"dataset {repo_id}: no {pattern} in it"]


def read_parquet(paths: Sequence[Path], columns: Sequence[str]) -> Rows:
    """Rows of several shards, with just these columns; a column that no shard has is null and named as missing."""
    tables, missing = [], []
    for path in paths:
        try:
            present = pq.read_schema(path).names
            tables.append(pq.read_table(path, columns=[name for name in columns if name in present]))
        except (pa.ArrowException, OSError):
            missing.append(f"{path.name}: not a readable parquet file")
    if not tables:
        return Rows(missing=missing)
    table = pa.concat_tables(tables, promote_options="permissive")
    absent = [name for name in columns if name not in table.column_names]
    missing += [f"column {name}: not in the dataset" for name in absent]
    return Rows([dict.fromkeys(columns) | row for row in table.to_pylist()], missing)


def label(score: Row) -> str:
    """Name of a checkpoint in menus: `run: checkpoint`, with its step where it has one."""
    step = f"@step-{score['step']}" if score.get("step") is not None else ""
    name = str(score.get("checkpoint") or score.get("role"))
    return f"{score.get('run')}: {name}{'' if step in name else step}"


def score_table(scores: Sequence[Row]) -> list[list[Any]]:
    """Rows for the eye: AVG@K and its standard error in percent points, a dash for what was not measured."""
    return [
        [
            score["run"], score["benchmark"], label(score).partition(": ")[2], score["role"],
            _percent(score["avg"], score["stderr"]), score["k"], score["n"],
            _number(score["kl_checkpoint_to_base"], ".3g"), _number(score["mean_length"], ".0f"),
            _percent(score["truncated"]),
        ]
        for score in scores
    ]  # fmt: skip


SCORE_HEADERS = ["run", "benchmark", "checkpoint", "role", "AVG@K %", "K", "problems",
                 "KL(checkpoint || base), nats/token", "mean length, tokens", "truncated %"]  # fmt: skip


def sample_table(samples: Sequence[Row]) -> list[list[Any]]:
    """One line per sample of one problem."""
    return [[row["k"], row["verdict"], row["extracted"], row["length"], row["finish_reason"]] for row in samples]


SAMPLE_HEADERS = ["k", "verdict", "answer seen", "tokens", "finish"]


def common_problems(left: Sequence[Row], right: Sequence[Row]) -> list[str]:
    """Problems that both sides answered, in the order of the left one."""
    answered = {row["problem_id"] for row in right}
    return list(dict.fromkeys(str(row["problem_id"]) for row in left if row["problem_id"] in answered))


def gold_text(sample: Row) -> str:
    """The right answer, which details of some benchmarks must not show."""
    return "(left out, as the benchmark's licence asks)" if sample["gold"] is None else str(sample["gold"])


def of_problem(samples: Sequence[Row], problem_id: str | None) -> list[Row]:
    """The samples of one problem by k."""
    return sorted((row for row in samples if row["problem_id"] == problem_id), key=lambda row: row["k"] or 0)


def _order(score: Row) -> tuple[str, str, int, str, int]:
    role = score["role"]
    rank = ROLES.index(role) if role in ROLES else len(ROLES)
    return str(score["run"]), str(score["benchmark"]), rank, str(score["checkpoint"]), score["step"] or 0


def _with_length(row: Row) -> Row:
    """Replace the token ids by their number: the ids are the bulk of a row and nobody looks at them here."""
    ids = row.pop("response_ids")
    return row | {"length": None if ids is None else len(ids)}


def _percent(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _reason(error: Exception) -> str:
    """Why a dataset cannot be read, without the endpoint's address."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    reasons = {401: "not there, or not readable without a token", 403: "this token may not read it", 404: "not found"}
    return reasons.get(status, f"the Hub answered {status}") if status else "the Hub does not answer"
