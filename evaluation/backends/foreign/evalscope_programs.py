"""evalscope's LiveCodeBench on stored programs, in its docker sandbox: `evalscope_programs.py SPEC.json OUT`.

Its extraction, its tests' harness and its comparison; the tests are ours (`tests/N.json` beside the spec), so nothing
is unpickled. Each stored sample is a row of its own, so that several may run at a time.
"""

import json
import sys
from pathlib import Path
from typing import Any

import guard
from evalscope.api.dataset import Sample
from evalscope.api.registry import register_benchmark
from evalscope.benchmarks.live_code_bench.live_code_bench_adapter import LiveCodeBenchAdapter
from evalscope.config import TaskConfig
from evalscope.run import run_task
from evalscope_run import NAME, StoredSamples, described

TESTS = "evaluation_sample"
"""Where evalscope's grader looks for them; there while it grades and not before, since they may have many MB."""


class ProgramsAdapter(LiveCodeBenchAdapter):
    """Graded as evalscope's LiveCodeBench; only where rows and tests come from is ours."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(**keys)
        self.save_metadata = True  # ids alone

    def load_from_disk(self, **_: Any) -> Any:
        return super().load_from_disk(use_local_loader=True)

    def record_to_sample(self, record: dict[str, Any]) -> Sample:
        known = {name: record[name] for name in ("problem_id", "k", "tests")}
        return Sample(input=record["problem"], target="", metadata=known)

    def sample_filter(self, sample: Sample) -> bool:
        return True

    def format_prompt_template(self, sample: Sample) -> str:
        return str(sample.input)

    def match_score(self, original_prediction: str, filtered_prediction: str, reference: str, task_state: Any) -> Any:
        """evalscope's score.

        Raises:
            RuntimeError: the container does not run programs; evalscope itself would count them as wrong.
        """
        self.ensure_sandbox_ready()
        tests = Path(self.dataset_id).with_name("tests") / f"{task_state.metadata['tests']}.json"
        task_state.metadata[TESTS] = tests.read_text(encoding="utf-8")
        try:
            score = super().match_score(original_prediction, filtered_prediction, reference, task_state)
        finally:
            del task_state.metadata[TESTS]
        if not score.value["acc"]:
            self._is_alive()
        return score

    def _is_alive(self) -> None:
        done = self.execute_code_in_sandbox(code="print(1)", timeout=60)
        if done.get("status") != "success" or (done.get("output") or "").strip() != "1":
            raise RuntimeError(f"the container does not run programs: {done.get('error') or done}"[:300])


def main(spec_path: Path, out: str) -> None:
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    limits = {"review_timeout": spec["seconds"], "sandbox_config": spec["container"]}
    meta = described(spec_path.parent, metric_list=["acc"], **limits)
    register_benchmark(meta)(ProgramsAdapter)
    run_task(
        TaskConfig(
            datasets=[NAME],
            repeats=1,
            work_dir=out,
            no_timestamp=True,
            model=StoredSamples(spec_path.with_name("samples.jsonl")),
            model_id="stored",
            eval_type="custom",
            eval_batch_size=spec["batch"],
            sandbox={"enabled": True, "engine": "docker", "pool_size": spec["batch"]},
            judge={"strategy": "rule"},
        )
    )


if __name__ == "__main__":
    guard.die_with_parent()
    main(Path(sys.argv[1]), sys.argv[2])
