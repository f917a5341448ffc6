"""Samples of lighteval and evalscope as a details folder of ours: rows of SAMPLE_SCHEMA with a record of their origin.

Imported samples have no verdict of ours: `regrade` gives one. What their own grader said is in `theirs.jsonl` beside
them. Neither tool keeps prompt ids or seeds, or says whether its prompts opened a think block, so whoever imports them
does. lighteval does not say what was cut off, so its responses count as finished.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub import provenance
from erpd_hub.artifacts import (
    LINEAGE,
    InputRecord,
    LineageRecord,
    digest_files,
    fingerprint,
    hash_file,
    payload_files,
    write_json,
)
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.evaluation.backends.environments import Harness
from erpd_hub.evaluation.backends.outputs import prediction_rows, review_rows
from erpd_hub.evaluation.backends.tasks import Handed
from erpd_hub.samples import SAMPLE_SCHEMA, FinishReason, shard_path, write_rows

_SHARD_ROWS = 512


class Theirs(NamedTuple):
    """One sample as the tool has it."""

    problem_id: str
    k: int
    gold: str
    text: str
    response_ids: list[int] | None
    finish_reason: FinishReason
    score: float | None
    """Of its own grader; lighteval's is the mean over the problem's samples."""


def import_details(
    harness: Harness,
    source: Path,
    out: Path,
    *,
    benchmark: str,
    tool_version: str,
    thinking: bool = False,
    handed: Handed | None = None,
) -> int:
    """Write a details folder from a tool's output folder (or one details file); returns the number of samples.

    Args:
        thinking: The prompts ended in an open think block, so that a response that closes none has no answer.
        handed: The problems, where they came from us.

    Raises:
        ConfigError: `out` is not empty. ArtifactError: no samples, or files that are not the tool's.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: expected a folder that is empty or not there, got files")
    files, read = _files(harness, source)
    count = 0
    shard: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    with (out / "theirs.jsonl").open("w", encoding="utf-8") as scores:
        for theirs in read(source):
            shard.append(_row(theirs, benchmark))
            scores.write(json.dumps({"problem_id": theirs.problem_id, "k": theirs.k, "score": theirs.score}) + "\n")
            if len(shard) == _SHARD_ROWS:
                write_rows(shard_path(out, count // _SHARD_ROWS), shard, SAMPLE_SCHEMA)
                shard = []
            count += 1
    if shard:
        write_rows(shard_path(out, count // _SHARD_ROWS), shard, SAMPLE_SCHEMA)
    if not count:
        raise ArtifactError(f"{harness}: expected samples, got none")
    config = {"harness": harness, "tool_version": tool_version, "benchmark": benchmark}
    _record(out, files, config | ({"thinking": True} if thinking else {}), count, handed)
    return count


def _files(harness: Harness, source: Path) -> tuple[list[Path], Callable[[Path], Iterator[Theirs]]]:
    """Raises ArtifactError: none of the tool's files there."""
    if harness == "lighteval":
        files, read = lighteval_files(source), _from_lighteval
    else:
        files, read = sorted(source.glob("reviews/*/*.jsonl")), _from_evalscope
    if not files:
        wanted = "details_*.parquet" if harness == "lighteval" else "reviews/*/*.jsonl"
        raise ArtifactError(f"{harness}: expected {wanted}, got none")
    return files, read


def lighteval_files(source: Path) -> list[Path]:
    """Its details files of the newest run in the folder, or the one file."""
    if source.is_file():
        return [source]
    found = sorted(source.rglob("details_*.parquet"), key=lambda path: (path.parent.name, path.name))
    return [path for path in found if path.parent == found[-1].parent]


def _from_lighteval(source: Path) -> Iterator[Theirs]:
    for path in lighteval_files(source):
        try:
            batches = pq.ParquetFile(path).iter_batches(64)
            yield from (item for batch in batches for row in batch.to_pylist() for item in _lighteval_row(row))
        except (pa.ArrowException, OSError) as error:
            raise ArtifactError(f"lighteval: expected a details file, got one that cannot be read ({error})") from None


def _lighteval_row(row: dict[str, Any]) -> Iterator[Theirs]:
    """Raises ArtifactError: not a row of lighteval's details."""
    try:
        doc, response, metrics = row["doc"], row["model_response"], row["metric"]
        golds = doc["choices"]
        gold = str(golds[doc["gold_index"] if isinstance(doc["gold_index"], int) else doc["gold_index"][0]])
        problem_id = str((doc.get("specific") or {}).get("problem_id") or doc["id"])
        texts, ids = response["text"], response.get("output_tokens") or []
        score = next((float(value) for name, value in metrics.items() if name.startswith("avg@n")), None)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ArtifactError(f"lighteval: expected doc, metric and model_response, got {error!r}") from None
    for k, text in enumerate(texts):
        tokens = list(ids[k]) if k < len(ids) and ids[k] else None
        yield Theirs(problem_id, k, _bare(gold), str(text), tokens, "stop", score)


def _from_evalscope(source: Path) -> Iterator[Theirs]:
    stops = {(name, row["index"]): _stop(row) for name, row in prediction_rows(source)}
    for name, row in review_rows(source):
        try:
            sample, target = row["sample_score"], row["target"]
            score, known = sample["score"], sample.get("sample_metadata") or {}
            problem_id = str(known.get("problem_id") or known.get("problem_idx") or sample["group_id"])
            value = next(iter(score["value"].values()), None) if score["status"] != "excluded" else None
            gold = target[0] if isinstance(target, list) else target
            text, k = score["prediction"], int(sample["generation_index"])
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise ArtifactError(f"evalscope: expected reviews as 1.14 writes them, got {error!r}") from None
        number = None if value is None else float(value)
        yield Theirs(problem_id, k, str(gold), str(text or ""), None, stops.get((name, row["index"]), "stop"), number)


def _stop(row: dict[str, Any]) -> FinishReason:
    choices = row.get("model_output", {}).get("choices") or [{}]
    return "length" if choices[0].get("stop_reason") in ("max_tokens", "model_length") else "stop"


def _bare(gold: str) -> str:
    """A gold without the dollars that our tasks file puts around it."""
    inner = gold[1:-1]
    return inner if len(gold) > 2 and gold[0] == gold[-1] == "$" and "$" not in inner else gold


def _row(theirs: Theirs, benchmark: str) -> dict[str, Any]:
    """Of SAMPLE_SCHEMA; what is unknown is null, the seed as well."""
    known = {
        "benchmark": benchmark,
        "problem_id": theirs.problem_id,
        "k": theirs.k,
        "response_ids": theirs.response_ids,
        "finish_reason": theirs.finish_reason,
        "text": theirs.text,
        "gold": theirs.gold,
        "verdict": "ungradable",
    }
    return dict.fromkeys(SAMPLE_SCHEMA.names) | known


def _record(out: Path, files: list[Path], config: dict[str, Any], count: int, handed: Handed | None) -> None:
    """Say that the samples are imported, from what and of which version; the path itself is never recorded."""
    hashes = {f"{index:04d}{path.suffix}": hash_file(path) for index, path in enumerate(files)}
    origin = InputRecord(role="source", kind="external", digest=digest_files(hashes))
    inputs = (origin, handed.dataset) if handed and handed.dataset else (origin,)
    about = handed.about if handed else {}
    payload = payload_files(out)
    stage, version = "details-import", 1
    record = LineageRecord(
        stage=stage,
        stage_version=version,
        kind="details",
        run="import",
        round=1,
        step="import",
        repo_type="dataset",
        repo_id=f"local/imported-{config['harness']}",
        inputs=inputs,
        config={**config, "imported": True},
        identity=config,
        seed=0,
        fingerprint=fingerprint(stage, version, inputs=[(i.role, i.digest) for i in inputs], identity=config, seed=0),
        digest=digest_files(payload),
        code=provenance.code(),
        environment={},
        metrics={"benchmark": config["benchmark"], "samples": count, "graded": False, **about},
        files=payload,
    )
    write_json(out / LINEAGE, record.to_json())
