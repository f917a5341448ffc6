"""What transformers' callbacks leave open for a tracker (`report_to`): where its files lie, and when its run ends.

TensorBoard's would go away with the work directory. wandb takes its project from the environment alone, and its run
goes on until told otherwise: every training of a recipe would be logged into the first one's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import Trainer
from transformers.integrations import TensorBoardCallback

from erpd_hub.home import run_folder


@contextmanager
def tracked(trainer: Trainer) -> Iterator[None]:
    """The tracker's run of one training."""
    arguments = trainer.args
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(run_folder(arguments.project) / "tensorboard" / (arguments.run_name or ""))
    if "wandb" not in arguments.report_to or not trainer.is_world_process_zero():
        yield
        return
    import wandb

    project = os.environ.get("WANDB_PROJECT", arguments.project)
    with wandb.init(project=project, name=arguments.run_name):
        yield
