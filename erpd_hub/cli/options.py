"""Options that several commands share."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from erpd_hub.errors import ConfigError
from erpd_hub.references import NAME


def check_name(name: str) -> str:
    """Raises ConfigError: it cannot be part of a repository's name."""
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"--name: expected lower-case letters, digits and dashes, got {name!r}")
    return name


def read_seeds(text: str) -> list[int]:
    """The seeds of `--seeds 3,4,5`, each a run.

    Raises:
        ConfigError: something that is no seed, or one that is there twice, which would count as two trainings.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise ConfigError(f"--seeds: expected whole numbers with commas, got {text!r}")
    seeds = [int(word) for word in words]
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise ConfigError(f"--seeds: expected each seed once, got {twice[0]} twice: it would count as two trainings")
    return seeds


Endpoint = Annotated[str, typer.Option(help="Hub endpoint: local (the embedded Hub) or a URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
Namespace = Annotated[str, typer.Option(help="User or organisation.")]
RunName = Annotated[str, typer.Option("--name", help="Name of the run.", callback=check_name)]
Public = Annotated[bool, typer.Option("--public/--private", help="Whether repositories that are made are public.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan; make and push nothing.")]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=1, help="GPUs of this machine: one engine or process on each. Without one, CPU processes rehearse it."
    ),
]
LaunchHow = Annotated[
    str | None,
    typer.Option(
        "--launch",
        metavar="accelerate:FILE|slurm",
        help="Training under your accelerate config; or print a job script.",
    ),
]


@contextmanager
def stdout_for_json(wanted: bool) -> Iterator[None]:
    """Keep stdout for the one JSON object that follows: whatever a library prints goes to stderr meanwhile."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
