"""The `erpd-hub` command. Its modules parse arguments and print; everything else is imported inside the command that
needs it, so that help answers at once."""

import errno
import signal
import sys
from typing import Annotated

import typer

from erpd_hub.cli import (
    backends,
    bench,
    benchmarks,
    compare,
    evaluate,
    grade,
    hub,
    leaderboard,
    lineage,
    planning,
    plot,
    prune,
    recipes,
    regrade,
    reproduce,
    space,
    stages,
    sweep,
)
from erpd_hub.errors import ErpdError, UnknownRecipe
from erpd_hub.plain import PlainFormatter, plain_lines

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the machine lacks for now: whoever frees it goes on."""

_INTERRUPTED = 128 + signal.SIGINT
"""What typer makes of Ctrl-C."""

app = typer.Typer(
    name="erpd-hub",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Extreme Region Policy Distillation with every artifact on the Hugging Face Hub.",
)


def main() -> None:
    """Entry point: errors for people are one line on stderr and an exit code, without a traceback."""
    try:
        app()  # typer reports mistakes in the arguments by itself, with exit code 2
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            print("erpd-hub: interrupted; finished artifacts are kept", file=sys.stderr)
        raise
    except ErpdError as error:
        print(plain_lines(f"erpd-hub: {_message(error)}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        remedy = "; the same command goes on from here" if error.errno in _PASSING else ""
        print(f"erpd-hub: {place}{error.strerror or error}{remedy}", file=sys.stderr)
        sys.exit(1)


def _message(error: ErpdError) -> str:
    """What went wrong; where an experiment of the paper was asked for as a recipe, with the recipes that it has."""
    if not isinstance(error, UnknownRecipe):
        return str(error)
    from erpd_hub.comparing.paper import recipes_of

    found = recipes_of(error.name)
    return f"{error.message}; {found}" if found else str(error)


@app.callback()
def _options(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False) -> None:
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PlainFormatter())
    for name in ("httpx", "httpcore", "huggingface_hub", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


recipes.register(app)
sweep.register(app)
stages.register(app)
evaluate.register(app)
grade.register(app)
planning.register(app)
reproduce.register(app)
compare.register(app)
plot.register(app)
prune.register(app)
regrade.register(app)
space.register(app)
app.add_typer(backends.app, name="backends")
app.add_typer(benchmarks.app, name="benchmarks")
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(lineage.app, name="lineage")
app.add_typer(hub.app, name="hub")
app.add_typer(bench.app, name="bench")
