"""A whole harness on stored samples: its own loop, metric and averages, with a model that answers what is stored.

The same samples and golds go in, so its AVG@K differs from ours by its grader alone. A text that its grader cannot
survive would end the whole run: each is tried alone first, and such texts are withheld (an empty answer) and counted.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from erpd_hub.errors import ArtifactError, ErpdError
from erpd_hub.evaluation.backends.confinement import bare_environment, confined, end_group
from erpd_hub.evaluation.backends.environments import FOREIGN, Harness, pinned_version, require_python
from erpd_hub.evaluation.backends.opinions import (
    SECONDS,
    Foreign,
    Opinion,
    Row,
    ask_foreign,
    is_integer_only,
    seen_text,
)
from erpd_hub.evaluation.backends.outputs import read_evalscope_report, read_lighteval_results
from erpd_hub.evaluation.backends.sources import Stored, require_answers
from erpd_hub.evaluation.statistics import avg_at_k

TASK = "stored"
_STARTUP_SECONDS = 900.0
_FAILURES = ("timeout", "refused", "crash", "no_worker")


@dataclass(frozen=True)
class _Kept:
    """A problem as it is handed over."""

    problem_id: str
    gold: str
    texts: tuple[str, ...]
    labels: tuple[int | None, ...]
    """The harness's own, sample by sample."""


def run_backend(
    harness: Harness, stored: Stored, *, grader: Foreign, seconds: float = SECONDS, keep: Path | None = None
) -> dict[str, Any]:
    """A harness's own score of stored samples.

    Args:
        grader: The harness's, `opened`.
        seconds: Wall time that one sample may take.
        keep: Where a copy of what it wrote goes.

    Returns:
        `avg` and `stderr` as its run reports them; `avg_by_sample` from its grader asked sample by sample and
        averaged as it averages (evalscope: over all samples that it did not exclude), which must be the same; `k`, `n`,
        `left_out` (samples beyond the least K of any problem, or without a gold) and `withheld`.

    Raises:
        ConfigError: samples of programs. ErpdError: its environment is not built, or its run failed.
    """
    require_answers(stored)
    rows = list(stored.rows())
    opinions = ask_foreign(grader, rows, stored.extract)
    kept, withheld = _prepare(rows, opinions, stored)
    if not kept:
        raise ArtifactError(f"{stored.name}: expected samples with golds, got none")
    k = min(len(problem.texts) for problem in kept)
    with tempfile.TemporaryDirectory(prefix="erpd-replay-") as folder:
        work = Path(folder).resolve()
        runner = _run_lighteval if harness == "lighteval" else _run_evalscope
        score = runner(work, kept, k, stored, limit=_STARTUP_SECONDS + seconds + 2 * len(rows))
        if keep is not None:
            shutil.copytree(work / "out", keep)
    labels = [problem.labels[:k] for problem in kept]
    graded = [label for row in labels for label in row if label is not None]
    by_sample = avg_at_k(labels).value if harness == "lighteval" else (fmean(graded) if graded else None)
    return {
        "backend": harness,
        "version": f"{harness} {pinned_version(harness)}",
        **score,
        "avg_by_sample": by_sample,
        "k": k,
        "n": len(kept),
        "left_out": len(rows) - k * len(kept),
        "withheld": withheld,
    }


def _prepare(rows: Sequence[Row], opinions: Sequence[Opinion], stored: Stored) -> tuple[list[_Kept], int]:
    """Problems in the order of the rows, and how many texts are withheld."""
    groups: dict[str, list[tuple[Row, Opinion]]] = {}
    for row, opinion in zip(rows, opinions, strict=True):
        if not row["gold"]:
            continue
        groups.setdefault(row["problem_id"], []).append((row, opinion))
    withheld = 0
    kept = []
    for problem_id, pairs in groups.items():
        texts, labels = [], []
        for row, opinion in pairs:
            lost = opinion.reason in _FAILURES or row["finish_reason"] == "error"
            withheld += lost
            texts.append("" if lost else seen_text(row, stored.extract))
            labels.append(0 if lost else opinion.label)
        kept.append(_Kept(problem_id, pairs[0][0]["gold"] or "", tuple(texts), tuple(labels)))
    return kept, withheld


def _run_lighteval(work: Path, kept: Sequence[_Kept], k: int, stored: Stored, *, limit: float) -> dict[str, Any]:
    del stored
    entry = {"name": TASK, "k": k, "max_new_tokens": None, "stop": [], "version": 1}
    (work / "tasks.json").write_text(json.dumps([entry]), encoding="utf-8")
    (work / TASK).mkdir()
    write_lines(work / TASK / "train.jsonl", (_problem(item) for item in kept))
    write_lines(work / "samples.jsonl", ({"problem_id": i.problem_id, "texts": i.texts[:k]} for i in kept))
    _run("lighteval", ["lighteval_run.py", f"erpd_{TASK}"], work, limit, ERPD_LIGHTEVAL_TASKS=str(work / "tasks.json"))
    return read_lighteval_results(work / "out", f"erpd_{TASK}")


def _run_evalscope(work: Path, kept: Sequence[_Kept], k: int, stored: Stored, *, limit: float) -> dict[str, Any]:
    spec = {"system_prompt": None, "integer": is_integer_only(stored.name), "k": k, "batch": 1}
    (work / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    (work / "data").mkdir()
    write_lines(work / "data" / "problems.jsonl", (_problem(item) for item in kept))
    prompts = (_problem(item)["problem"] for item in kept)
    write_lines(
        work / "samples.jsonl", ({"problem": p, "texts": i.texts[:k]} for p, i in zip(prompts, kept, strict=True))
    )
    run_script("evalscope", "evalscope_run.py", work, limit)
    return read_evalscope_report(work / "out")


def _problem(item: _Kept) -> dict[str, str]:
    """A row as the harness reads it; the stored model knows its problem by the prompt, so ids stand in for texts."""
    return {"problem_id": item.problem_id, "problem": f"problem {item.problem_id}", "gold": item.gold}


def run_script(harness: Harness, script: str, work: Path, limit: float, **variables: str) -> None:
    """Run a script of `foreign/` on `spec.json` in the folder, into `out` there, cut off from everything else.

    Raises:
        ErpdError: the run failed or did not end in time.
    """
    _run(harness, [script, str(work / "spec.json")], work, limit, **variables)


def _run(harness: Harness, arguments: list[str], work: Path, limit: float, **variables: str) -> None:
    """Raises ErpdError: the run failed or did not end in time."""
    script, *rest = arguments
    command = confined([str(require_python(harness)), "-s", str(FOREIGN / script), *rest, str(work / "out")], work=work)
    environment = bare_environment(HOME=str(work), HF_HOME=str(work / "hf"), TMPDIR=str(work), **variables)
    log = work / "run.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise ErpdError(f"{harness}: its run of the stored samples did not end in {limit:.0f} s") from None
        finally:
            end_group(process)
    if code:
        last = " | ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])
        raise ErpdError(f"{harness}: its run of the stored samples failed: {last[-500:]}")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
