"""Sampling with an engine that schedules for itself: all that is missing in flight at once, each finished sample into
the journal, grading beside it, shards in the plan's order at the end.

A stop (SIGTERM, SIGINT), a kill or a failed sample loses what is in flight and nothing else; the next call asks for
what the journal lacks.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from types import FrameType

from erpd_hub.errors import StageError
from erpd_hub.evaluation.grading import Grade
from erpd_hub.samples import Sample, shard_path, write_rows
from erpd_hub.sampling.draws import Draw, draw_name
from erpd_hub.sampling.engine import Completion, Engine
from erpd_hub.sampling.job import Job
from erpd_hub.sampling.journal import Journal
from erpd_hub.sampling.plan import chunked
from erpd_hub.sampling.progress import Progress
from erpd_hub.sampling.rows import BackgroundGrader

_FAILED = Completion(None, None, "error", "")
"""What stands in the row of a sample that failed: never in the journal, so that the next call tries again."""

logger = logging.getLogger(__name__)


def collect(job: Job, opened: Callable[[], Engine]) -> None:
    """Draw this replica's share into its journal; without replicas, all that is missing, and then the shards.

    Raises:
        StageError: some samples failed for good, or a signal asked to stop; the others are kept.
    """
    draws = job.open_draws
    with ExitStack() as stack:
        journal = stack.enter_context(closing(Journal(job.context.work / "journal", job.context.replica)))
        share = _share(job, draws)
        missing = [draw for draw in share if draw.seed not in journal]
        kept = len(job.draws) - len(draws) if job.context.replicas == 1 else 0
        progress = job.progress(len(missing), kept + len(share) - len(missing))
        grader = stack.enter_context(closing(BackgroundGrader(job.grade, progress, journal.read)))
        failed: dict[int, str] = {}
        for draw in share:
            if draw.seed in journal:
                grader.add(draw)
        if missing:
            if there := sum(draw.seed in journal for draw in draws):
                logger.info("%d of %d samples are there from before", there, len(draws))
            failed = _draw_missing(job, missing, opened, journal, grader, progress)
        if job.context.replicas == 1:
            grades = {seed: Grade("ungradable", None, None, reason, "none") for seed, reason in failed.items()}
            grades |= grader.finish()
            if missing:
                progress.log(now=True)
            _write_shards(job, journal, grades)


def _share(job: Job, draws: Sequence[Draw]) -> list[Draw]:
    """The samples of every prompt whose place among the prompts falls to this replica: a prompt is never split."""
    places: dict[str, int] = {}
    for draw in draws:
        places.setdefault(draw.prompt.problem.problem_id, len(places))
    context = job.context
    return [d for d in draws if places[d.prompt.problem.problem_id] % context.replicas == context.replica]


def _draw_missing(
    job: Job,
    missing: Sequence[Draw],
    opened: Callable[[], Engine],
    journal: Journal,
    grader: BackgroundGrader,
    progress: Progress,
) -> dict[int, str]:
    """Into the journal, as they finish; returns why others failed, by seed.

    Raises:
        StageError: see `collect`.
    """
    requests = [job.request(draw) for draw in missing]
    failed: dict[int, str] = {}
    try:
        with stop_signals(), closing(opened()) as engine:
            for index, completion in engine.generate(requests, job.decoding, job.format.stop):
                draw = missing[index]
                if engine.unseeded:
                    job.unseeded.touch()
                if completion.finish_reason == "error":
                    failed[draw.seed] = completion.text
                    continue
                journal.append(draw.seed, completion)
                progress.drawn(completion.num_tokens - len(requests[index].response_ids))
                grader.add(draw)
                progress.log()
    except Stopped:
        kept = f"{progress.total - progress.samples} samples to go, {len(journal)} kept"
        raise StageError(f"sampling: stopped by a signal with {kept}; run it again to go on") from None
    if failed:
        _report(job, missing, failed, len(journal))
    return failed


def _report(job: Job, missing: Sequence[Draw], failed: dict[int, str], kept: int) -> None:
    """Raises StageError: failures are to stop the stage, or there is nothing else."""
    name = next(draw_name(draw) for draw in missing if draw.seed in failed)
    reason = next(iter(failed.values()))
    what = f"sampling: {len(failed)} samples failed after all retries ({name}: {reason})"
    if job.record_errors and len(failed) < len(job.draws):
        logger.warning("%s; recorded as errors and left out of the score, run it again to try them again", what)
        return
    raise StageError(f"{what}, {kept} are kept; run it again to go on")


def _write_shards(job: Job, journal: Journal, grades: dict[int, Grade]) -> None:
    """All samples in the plan's order; a kill in between is made good by writing them again."""
    schema = job.schema(counted=journal.counted)
    for index, part in enumerate(chunked([_length(job, journal, draw) for draw in job.draws])):
        draws = [job.draws[place] for place in part]
        kept = [draw for draw in draws if not job.is_open(draw)]
        stored = dict(zip((draw.seed for draw in kept), job.kept_rows(kept), strict=True))
        shard = [stored.get(draw.seed) or _row(job, journal, grades, draw) for draw in draws]
        write_rows(shard_path(job.out, index), shard, schema)


def _length(job: Job, journal: Journal, draw: Draw) -> int:
    if not job.is_open(draw):
        return job.kept_tokens(draw)
    return journal.num_tokens(draw.seed) if draw.seed in journal else 0


def _row(job: Job, journal: Journal, grades: dict[int, Grade], draw: Draw) -> Sample:
    completion = journal.read(draw.seed) if draw.seed in journal else _FAILED
    return job.row(draw, completion, grades[draw.seed])


class Stopped(BaseException):
    """A signal asked this process to stop; no handler of `Exception` in an engine may swallow it."""


@contextmanager
def stop_signals() -> Iterator[None]:
    """Within it SIGTERM and SIGINT raise Stopped in the main thread, once: what follows is left to the clean-up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for name in before:
            signal.signal(name, signal.SIG_IGN)
        raise Stopped

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
