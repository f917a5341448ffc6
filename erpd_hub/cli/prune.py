"""`prune`: free what nothing refers to."""

from typing import Annotated

import typer

from erpd_hub.cli.options import DryRun, Endpoint


def register(app: typer.Typer) -> None:
    app.command()(prune)


def prune(
    name: Annotated[
        str, typer.Argument(metavar="RUN|REPO", help="NAMESPACE/RUN or NAMESPACE/REPO; default namespace local.")
    ],
    endpoint: Endpoint = "local",
    dry_run: DryRun = False,
) -> None:
    """Free the weights of saved steps that no artifact of the namespace refers to; lineage stays verifiable.

    The embedded Hub gives their space back with its next `erpd-hub hub gc`.
    """
    from erpd_hub.hub.connecting import connect
    from erpd_hub.prune import free, leftovers, remove, unreferenced_steps

    hub = connect(endpoint)
    verb = "would free" if dry_run else "freed"
    total = 0
    for step in unreferenced_steps(hub, name):
        size = sum(step.freed.values())
        total += size
        if not dry_run:
            free(hub, step)
        typer.echo(f"{verb} {size / 1e6:10.1f} MB  {step.repo_id} step {step.step} ({step.sha[:10]})")
    for item in leftovers(hub):
        total += item.size
        if not dry_run:
            remove(item)
        typer.echo(f"{verb} {item.size / 1e6:10.1f} MB  work directory of {item.record.repo_id}, which is on the Hub")
    typer.echo(f"{verb} {total / 1e6:.1f} MB; finished artifacts and all that they refer to are kept")
