"""What is written down about a stage that has run: its record, and how long it took on what.

Times, processes and devices go to `metrics.jsonl`, which is no part of an artifact's content.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erpd_hub import config as c
from erpd_hub import provenance
from erpd_hub.artifacts import TIMES, LineageRecord, digest_files, payload_files
from erpd_hub.fields import recorded, roles
from erpd_hub.inputs import ResolvedInput
from erpd_hub.launching.worker import StageRun
from erpd_hub.nodes import Node
from erpd_hub.references import PathRef, parse_reference


class Attempts:
    """How long each attempt at a stage took: one line each, also for one that failed or was interrupted.

    What an attempt that was killed took is not known and not counted.
    """

    def __init__(self, path: Path, processes: int) -> None:
        self.path = path
        self._line: dict[str, Any] = {"gpus": processes}

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time what happens inside, whatever comes of it."""
        started = time.monotonic()
        try:
            yield
        finally:
            line = {"stage_seconds": round(time.monotonic() - started, 3), **self._line}
            with self.path.open("a") as stream:
                stream.write(json.dumps(line) + "\n")

    def note(self, run: StageRun) -> None:
        """Add what only a stage that has finished knows."""
        tokens = run.result.metrics.get("response_tokens")
        self._line = {
            "gpus": run.processes,
            "device": run.environment.get("device", "cpu"),
            **({} if tokens is None else {"tokens": tokens}),
        }

    def append_to(self, folder: Path) -> None:
        """Put the lines into an artifact's `metrics.jsonl`, in place of those that an attempt before put there."""
        times = folder / TIMES
        lines = times.read_text().splitlines(keepends=True) if times.exists() else []
        own = [line for line in lines if not line.startswith('{"stage_seconds"')]
        times.write_text("".join(own) + self.path.read_text())


def make_record(
    node: Node, inputs: list[ResolvedInput], value: str, run: StageRun, folder: Path, step: int | None, *, name: str
) -> LineageRecord:
    """The record of an artifact, or of a saved step of one.

    Args:
        value: Its fingerprint.
        step: None for the finished artifact.
        name: Of the run.
    """
    last = node.config.steps if isinstance(node.config, c.TrainingConfig) else None
    files = payload_files(folder)
    return LineageRecord(
        stage=node.config.stage,
        stage_version=node.stage.version,
        kind=node.stage.kind,
        run=name,
        round=node.round,
        step=node.step,
        saved_step=step if step is not None else last,
        repo_type=node.stage.repo_type,
        repo_id=node.repo_id,
        folder=node.folder,
        inputs=tuple(item.record for item in inputs),
        config=_recorded_config(node.config),
        identity=node.identity,
        seed=node.seed,
        fingerprint=value,
        digest=digest_files(files),
        license=inherited_license(node.config, inputs),
        code=provenance.code(),
        environment=run.environment,
        metrics=run.result.metrics if step is None else run.result.step_metrics.get(step, {}),
        files=files,
    )


def _recorded_config(config: c.StepConfig) -> dict[str, Any]:
    """The resolved config without local paths: a path is not where anything came from, its digest is."""

    def public(value: Any) -> Any:
        if isinstance(value, list):
            return [public(item) for item in value]
        return "(local)" if isinstance(value, str) and isinstance(parse_reference(value), PathRef) else value

    dumped = recorded(config)
    return dumped | {role: public(dumped[role]) for role in roles(config)}


def inherited_license(config: c.StepConfig, inputs: list[ResolvedInput]) -> str | None:
    """Licences are inherited: the names of all inputs' joined, unknown as soon as one is."""
    if own := getattr(config, "license", None):
        return str(own)
    if not inputs:
        return "apache-2.0"
    # Benchmarks that prompts are merely compared with leave nothing in them.
    holds_problems = isinstance(config, c.EvaluateConfig | c.JudgeConfig | c.SelectConfig)
    sources = [item for item in inputs if holds_problems or not item.is_benchmark]
    if any(item.license is None for item in sources):
        return None
    return " AND ".join(sorted({name for item in sources for name in str(item.license).split(" AND ")}))
