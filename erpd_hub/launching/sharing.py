"""How the processes of a training share the model: as the user's config of accelerate says, or by a preset of ours."""

import logging

from erpd_hub import config as c
from erpd_hub.accelerate_configs import Preset, preset_path
from erpd_hub.launching.machine import ask_driver
from erpd_hub.launching.options import AccelerateFile, Launch
from erpd_hub.launching.worker import Job

logger = logging.getLogger(__name__)


def accelerate_config(job: Job, launch: Launch) -> AccelerateFile:
    """The user's own file, or the preset of the step's `parallel`."""
    if launch.accelerate is not None:
        return launch.accelerate
    assert isinstance(job.config, c.TrainingConfig)
    preset = _preset(job, job.config, launch)
    return AccelerateFile(preset_path(preset), 1, None, preset)


def _preset(job: Job, config: c.TrainingConfig, launch: Launch) -> Preset:
    """The preset of `parallel`; `auto` is DDP where every GPU can hold the whole training, else FSDP2."""
    if not launch.devices:
        if config.parallel == "fsdp2":
            logger.warning("%s: FSDP2 needs GPUs, DDP rehearses it", job.name)
        return "zero3" if config.parallel == "zero3" else "ddp"
    return config.parallel if config.parallel != "auto" else _planned(job, config, launch)


def _planned(job: Job, config: c.TrainingConfig, launch: Launch) -> Preset:
    """The preset that the sums of a plan come to for these GPUs and the longest sequence."""
    from erpd_hub.planning.devices import USABLE
    from erpd_hub.planning.layouts import planned_strategy, training_layout
    from erpd_hub.planning.shapes import facts_of_folder

    facts = facts_of_folder(job.inputs["init"])
    memories = [int(said.split()[0]) for said in ask_driver("memory.total")]  # such as `81559 MiB`
    if facts is None or not memories:
        return "fsdp2"
    layout = training_layout(config, tokens=max(_longest(job), config.micro_batch_tokens), gpus=len(launch.devices))
    return planned_strategy(config, facts, USABLE * min(memories) * (1 << 20) / 1e9, layout)


def _longest(job: Job) -> int:
    """Tokens of the longest sequence that is trained on; of an online step, which has yet to draw it, the limit."""
    from erpd_hub.columns import ShardReader, row_lengths
    from erpd_hub.samples import shard_paths

    if isinstance(job.config, c.OnlineConfig):
        return job.config.decoding.max_new_tokens  # prompts are short against it
    longest = 0
    for shard in shard_paths(job.inputs["rollouts"]):
        for block in ShardReader(shard, ["prompt_ids", "response_ids"]).blocks():
            lengths = row_lengths(block["prompt_ids"]) + row_lengths(block["response_ids"])
            longest = max(longest, int(lengths.max(initial=0)))
    return longest
