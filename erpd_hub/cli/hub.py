"""`hub`: the embedded Hub."""

from pathlib import Path
from typing import Annotated

import typer

from erpd_hub.cli import hub_storage, moving

app = typer.Typer(no_args_is_help=True, help="The embedded Hub, and copies from one Hub to another.")
app.command()(moving.push)
app.command()(moving.pull)
app.command()(hub_storage.fsck)
app.command()(hub_storage.gc)


@app.command()
def serve(
    root: Annotated[Path | None, typer.Option(help="Where it keeps its data; default: below ERPD_HOME.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8899,
    accounts: Annotated[
        Path | None,
        typer.Option(help="YAML: users: {NAME: {token, fullname, orgs}}, orgs: {NAME: {default_visibility}}."),
    ] = None,
) -> None:
    """Serve the embedded Hub until interrupted. With the default root, runs join it.

    Without accounts everybody who reaches it may do everything, so it listens on this machine's loopback only.
    """
    from erpd_hub.home import hub_folder
    from erpd_hub.hub.server.__main__ import main as serve_main

    folder = root or hub_folder()
    arguments = ["--root", str(folder), "--host", host, "--port", str(port)]
    if accounts is not None:
        arguments += ["--accounts", str(accounts)]
    raise typer.Exit(serve_main([*arguments, "--ready-file", str(folder / "server.json")]))
