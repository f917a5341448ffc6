"""evalscope's own run of one benchmark of ours: `evalscope_run.py SPEC.json OUT`, through its Python API.

The problems are the rows of `data/problems.jsonl` beside the spec (problem_id, problem: the whole prompt, gold), so
nothing is downloaded and nobody's mirror is asked. With `samples.jsonl` there the stored texts answer; else evalscope
itself asks the endpoint that the spec names.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import guard
from evalscope.api.benchmark import BenchmarkMeta, DefaultDataAdapter
from evalscope.api.dataset import Sample
from evalscope.api.messages import ChatMessage
from evalscope.api.model import GenerateConfig, ModelAPI, ModelOutput
from evalscope.api.registry import register_benchmark
from evalscope.benchmarks.aime.aime_adapter import AIME24Adapter
from evalscope.config import TaskConfig
from evalscope.run import run_task

NAME = "erpd"


def record_to_sample(record: dict[str, Any]) -> Sample:
    return Sample(input=record["problem"], target=record["gold"], metadata={"problem_id": record["problem_id"]})


class _Ours:
    """What both adapters have of ours: the rows as they are, from the folder."""

    def load_from_disk(self, **_: Any) -> Any:
        return super().load_from_disk(use_local_loader=True)  # type: ignore[misc]  # of the adapter it is mixed into

    def record_to_sample(self, record: dict[str, Any]) -> Sample:
        return record_to_sample(record)

    def format_prompt_template(self, sample: Sample) -> str:
        return str(sample.input)  # a template would read braces in a problem as its own


class IntegerAdapter(_Ours, AIME24Adapter):
    """Graded as evalscope's AIME: integers and nothing else."""


class MathsAdapter(_Ours, DefaultDataAdapter):
    """Graded as evalscope's HMMT, IMO-AnswerBench and GSM8K."""

    def extract_answer(self, prediction: str, task_state: Any) -> str:
        from evalscope.metrics.math.parser import extract_answer

        return extract_answer(prediction)


class StoredSamples(ModelAPI):
    """A model that answers each problem with its stored samples in their order."""

    def __init__(self, path: Path) -> None:
        super().__init__("stored")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self._texts = {row["problem"]: iter(row["texts"]) for row in rows}

    def generate(self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        return ModelOutput.from_content(model="stored", content=next(self._texts[str(input[-1].content)]))


def described(folder: Path, **settings: Any) -> BenchmarkMeta:
    """Our problems, in `folder`/data, as a benchmark of evalscope's; `settings` are further fields of its."""
    return BenchmarkMeta(
        name=NAME,
        pretty_name=NAME,
        description="",
        dataset_id=str(folder / "data"),
        subset_list=["problems"],
        few_shot_num=0,
        train_split=None,
        eval_split="test",
        prompt_template="{question}",
        **settings,
    )


def main(spec_path: Path, out: str) -> None:
    spec = json.loads(spec_path.read_text(encoding="utf-8"))
    meta = described(spec_path.parent, metric_list=[{"acc": {"numeric": True}}], system_prompt=spec["system_prompt"])
    register_benchmark(meta)(IntegerAdapter if spec["integer"] else MathsAdapter)
    samples = spec_path.with_name("samples.jsonl")
    asked = _stored(samples) if samples.is_file() else _endpoint(spec)
    judge = {"strategy": "rule"}
    run_task(TaskConfig(datasets=[NAME], repeats=spec["k"], work_dir=out, no_timestamp=True, judge=judge, **asked))


def _stored(samples: Path) -> dict[str, Any]:
    """One after the other: the samples of a problem are handed out in their order."""
    return {"model": StoredSamples(samples), "model_id": "stored", "eval_type": "custom", "eval_batch_size": 1}


def _endpoint(spec: dict[str, Any]) -> dict[str, Any]:
    """No seed: evalscope would send the same one with each repeat, and some servers then repeat the answer."""
    return {
        "model": spec["model"],
        "api_url": spec["url"],
        "api_key": os.environ.get("ERPD_SERVER_KEY") or "EMPTY",
        "eval_type": "openai_api",
        "generation_config": spec["generation"],
        "eval_batch_size": spec["batch"],
        "seed": None,
    }


if __name__ == "__main__":
    guard.die_with_parent()
    main(Path(sys.argv[1]), sys.argv[2])
