"""`space`: the page that compares checkpoints, here or as a Space on the Hub."""

from typing import Annotated

import typer

from erpd_hub.cli.options import Endpoint, Namespace, Public
from erpd_hub.errors import ConfigError


def register(app: typer.Typer) -> None:
    app.command()(space)


def space(
    run: Annotated[str | None, typer.Option(help="Show this run only.")] = None,
    endpoint: Endpoint = "local",
    namespace: Namespace = "local",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    push: Annotated[bool, typer.Option("--push", help="Put it on the Hub instead, as NAMESPACE/erpd-compare.")] = False,
    public: Public = False,
) -> None:
    """Published runs in a browser: leaderboard, samples side by side, KL efficiency, dynamics, signal, lineage."""
    if push and run:
        raise ConfigError(f"space --push: expected no --run, got {run}; on the Hub, set the Space's own ERPD_SPACE_RUN")
    from erpd_hub import spaces
    from erpd_hub.home import cache_folder
    from erpd_hub.hub.connecting import connect

    hub = connect(endpoint, private=not public)
    if push:
        name = f"{namespace}/erpd-compare"
        commit = spaces.push(hub.api, name, private=not public)
        typer.echo(f"{name}@{commit[:10]}; it reads {namespace}/erpd-leaderboard"
                   + ("" if public else ", and private datasets with a secret HF_TOKEN of the Space"))  # fmt: skip
        return
    settings = {
        "HF_ENDPOINT": hub.api.endpoint,
        "HF_HOME": str(cache_folder(hub.identity)),
        "ERPD_SPACE_NAMESPACE": namespace,
    }
    settings |= {"ERPD_SPACE_RUN": run} if run else {}
    settings |= {"HF_TOKEN": hub.api.token} if isinstance(hub.api.token, str) else {}
    raise typer.Exit(spaces.serve(settings, host=host, port=port))
