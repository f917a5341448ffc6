"""`hub`: the embedded Hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The embedded Hub.")


@app.command()
def serve(
    root: Annotated[Path | None, typer.Option(help="Where it keeps its data; default: below ERPD_HOME.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8899,
) -> None:
    """Serve the embedded Hub until interrupted. With the default root, runs join it."""
    from erpd_hub.home import hub_folder
    from erpd_hub.hub.server.__main__ import main as serve_main

    folder = root or hub_folder()
    folder.mkdir(parents=True, exist_ok=True)
    print(f"erpd-hub: serving {folder} on {host}; its URL stands in {folder / 'server.json'}", file=sys.stderr)
    arguments = ["--root", str(folder), "--host", host, "--port", str(port)]
    raise typer.Exit(serve_main([*arguments, "--ready-file", str(folder / "server.json")]))
