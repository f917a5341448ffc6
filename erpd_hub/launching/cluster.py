"""A job script for a SLURM cluster: the steps of a recipe in parts that want like machines."""

import shlex
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby

from erpd_hub import config as c
from erpd_hub.nodes import Node, Plan


def job_script(plan: Plan, recipe: str, overrides: Sequence[str], gpus: int) -> str:
    """The script that runs a plan part by part.

    Args:
        recipe: What `erpd-hub run` was given.
        gpus: On each machine.
    """
    from jinja2 import Environment, StrictUndefined

    text = (files("erpd_hub.templates") / "run.slurm.jinja").read_text()
    template = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True).from_string(text)
    return template.render(
        run=plan.recipe.run,
        recipe=recipe,
        command=shlex.join([recipe, *overrides]),
        gpus=gpus,
        parts=parts(plan),
    )


def parts(plan: Plan) -> list[tuple[str, list[str]]]:
    """`train` or `sample` with the steps of each part in order; a training step is one that several machines share."""
    return [
        (kind, list(dict.fromkeys(f"r{node.round}/{node.step}" for node in nodes)))
        for kind, nodes in groupby(plan.nodes, key=_kind)
    ]


def _kind(node: Node) -> str:
    return "train" if isinstance(node.config, c.TrainingConfig) else "sample"
