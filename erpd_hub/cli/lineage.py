"""`lineage`: where an artifact comes from."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from erpd_hub.cli.options import Endpoint


class _ShowByDefault(TyperGroup):
    """`lineage REF` is `lineage show REF`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args.insert(0, "show")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_ShowByDefault, no_args_is_help=True, help="Where an artifact comes from.")
LineageRef = Annotated[str, typer.Argument(help="namespace/name[@revision], or namespace/name/folder[@revision].")]


@app.command()
def show(reference: LineageRef, endpoint: Endpoint = "local") -> None:
    """Draw the lineage graph of an artifact."""
    from rich.console import Console

    from erpd_hub.display import lineage_tree
    from erpd_hub.hub.client import connect
    from erpd_hub.lineage import ancestry, locate

    hub = connect(endpoint)
    Console(soft_wrap=True).print(lineage_tree(ancestry(hub, locate(hub, reference))))


@app.command()
def verify(reference: LineageRef, endpoint: Endpoint = "local") -> None:
    """Download an artifact and all its ancestors afresh, re-hash everything, and say what is missing or altered."""
    from erpd_hub.display import print_findings
    from erpd_hub.hub.client import connect
    from erpd_hub.lineage import locate
    from erpd_hub.lineage import verify as verify_place

    hub = connect(endpoint)
    if print_findings(verify_place(hub, locate(hub, reference))):
        raise typer.Exit(1)
