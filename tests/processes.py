"""Several CPU processes over gloo, as `accelerate launch` would start them from one of our presets.

They are forked from a server that has imported torch and the trainer once, so that eight of them start in no time.
"""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

from erpd_hub.accelerate_configs import Preset, preset_path

_PRELOAD = [
    "erpd_hub.models",
    "erpd_hub.training.data",
    "erpd_hub.training.policy",
    "erpd_hub.training.trainer",
    "pytest",
]
"""What takes seconds to import, and is found without this folder."""
_SECONDS = 400


def launch(world: int, function: Callable[..., None], *args: Any, preset: Preset | None = None) -> None:
    """Run `function(*args)` in each of `world` processes; none may fail or hang."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    errors = context.SimpleQueue()
    environment = launch_environment(preset, world) if preset else {}
    environment |= {
        "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu",
    }  # fmt: skip
    processes = [
        context.Process(target=_entry, args=(function, args, environment, rank, errors)) for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_SECONDS)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    assert errors.empty(), errors.get()
    assert not hanging, f"{len(hanging)} of {world} processes hang"
    assert {process.exitcode for process in processes} == {0}


def _entry(function: Callable[..., None], args: tuple, environment: dict[str, str], rank: int, errors: Any) -> None:
    os.environ.update(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    import torch

    torch.set_num_threads(1)
    try:
        function(*args)
    except BaseException:
        errors.put(f"rank {rank}: {traceback.format_exc()}")
        os._exit(1)  # the others wait for this one in vain
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def launch_environment(preset: Preset, world: int) -> dict[str, str]:
    """What accelerate's launcher sets for the preset."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    command = ["--config_file", str(preset_path(preset)), "--num_processes", str(world), "script.py"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    if not args.use_deepspeed:
        environment = prepare_multi_gpu_env(args)
    else:
        args.deepspeed_fields_from_accelerate_config = ""
        environment = prepare_deepspeed_cmd_env(args)[1]
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
