"""Run custom tasks through lighteval's own pipeline on stored samples: `lighteval_run.py TASK... OUT`.

As `lighteval custom` does, less the import of every other task: those fetch a pickle and ask the Hub while they load.
"""

import os
import sys
from pathlib import Path
from typing import Any

import guard
from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.models.custom.custom_model import CustomModelConfig
from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
from lighteval.tasks.registry import Registry

_HERE = Path(__file__).parent


def _only_custom(custom_tasks: str, load_multilingual: bool = False) -> dict[str, Any]:
    return Registry._extract_configs(Registry.create_custom_tasks_module(custom_tasks))


def main(tasks: list[str], out: str) -> None:
    Registry.load_all_task_configs = staticmethod(_only_custom)
    pipeline = Pipeline(
        tasks=",".join(f"{task}|0" for task in tasks),
        pipeline_parameters=PipelineParameters(
            launcher_type=ParallelismManager.CUSTOM, custom_tasks_directory=str(_HERE / "lighteval_tasks.py")
        ),
        evaluation_tracker=EvaluationTracker(output_dir=out, save_details=True),
        model_config=CustomModelConfig(
            model_name="stored", model_definition_file_path=str(_HERE / "lighteval_model.py")
        ),
    )
    pipeline.evaluate()
    pipeline.save_and_push_results()


if __name__ == "__main__":
    guard.die_with_parent()
    os.umask(0o077)
    main(sys.argv[1:-1], sys.argv[-1])
