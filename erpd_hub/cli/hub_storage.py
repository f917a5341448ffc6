"""`hub fsck` and `hub gc`: what the embedded Hub has stored, checked and cleared of what nobody needs."""

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from erpd_hub.errors import ConfigError, HubError
from erpd_hub.home import hub_folder

Root = Annotated[Path | None, typer.Option(help="Where the Hub keeps its data; default: below ERPD_HOME.")]


def fsck(
    root: Root = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Move damaged content away, so that the next push brings it again.")
    ] = False,
) -> None:
    """Read all that the embedded Hub has stored and say what is not as it was written; exit code 1 if anything is not.

    The Hub may be serving meanwhile, unless something is set aside.
    """
    from erpd_hub.hub.server.fsck import check
    from erpd_hub.hub.server.gc import set_aside as move
    from erpd_hub.hub.server.lifecycle import is_served

    folder = _existing(root)
    report = check(folder, served=is_served(folder))
    for problem in report.problems:
        print(problem)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(report.checked.items()))
    print(f"{folder}: {len(report.problems) or 'no'} problems; read {counts or 'nothing'}", file=sys.stderr)
    if set_aside and (damaged := [problem.blob for problem in report.problems if problem.blob]):
        with _held(folder):
            print(f"{len(damaged)} damaged blobs are now in {move(folder, damaged)}", file=sys.stderr)
    if report.problems:
        raise typer.Exit(1)


def gc(
    root: Root = None,
    min_age: Annotated[float, typer.Option(min=0, help="Hours that an upload without a commit is kept.")] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove content that no commit refers to, of deleted repositories and of uploads that came to nothing, and large
    files that were deleted for good.

    Needs the Hub not to be serving.
    """
    from erpd_hub.hub.server.gc import collect

    folder = _existing(root)
    with _held(folder):
        removed = collect(folder, min_age_s=min_age * 3600, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    print(f"{folder}: {verb} {removed.blobs} blobs ({removed.bytes} bytes) and {removed.trees} trees")


def _existing(root: Path | None) -> Path:
    folder = root or hub_folder()
    if not (folder / "hub.sqlite").exists():
        raise ConfigError(f"--root {folder}: expected a Hub's data, got no hub.sqlite; name the folder that was served")
    return folder


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    from erpd_hub.hub.server.lifecycle import AlreadyServed, only_server

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_server(folder))
        except AlreadyServed:
            raise HubError(f"{folder}: a server has it open; stop it (or the run that uses it) and try again") from None
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise HubError(f"{folder / 'hub.sqlite'}: {error}; run erpd-hub hub fsck") from error
