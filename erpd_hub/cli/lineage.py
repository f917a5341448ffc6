"""`lineage`: where an artifact comes from."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from erpd_hub.cli.options import AsJson, Endpoint


class _ShowByDefault(TyperGroup):
    """`lineage REF` is `lineage show REF`, also with its options first."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args.insert(0, "show")
        return list(super().parse_args(ctx, args))


app = typer.Typer(cls=_ShowByDefault, no_args_is_help=True, help="Where an artifact comes from.")
Upstream = Annotated[
    str | None, typer.Option(help="The Hub of inputs that the endpoint lacked; default: the endpoint.")
]
_FORMS = "RUN:STEP of a run of this machine, namespace/name\\[@revision] or namespace/name/folder\\[@revision]."
LineageRef = Annotated[str, typer.Argument(help=_FORMS)]


@app.command()
def show(
    reference: LineageRef,
    endpoint: Endpoint = "local",
    upstream: Upstream = None,
    form: Annotated[Literal["tree", "json", "mermaid"], typer.Option("--format", help="How it is printed.")] = "tree",
) -> None:
    """The lineage graph of an artifact, as a tree, as JSON, or as a Mermaid flowchart for a document."""
    from erpd_hub.display import print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.lineage import ancestry, locate
    from erpd_hub.lineage_views import as_data, as_mermaid, as_text
    from erpd_hub.run_files import run_artifact

    hub = connect(endpoint, upstream=upstream)
    graph = ancestry(hub, locate(hub, run_artifact(reference)))
    if form == "json":
        print_json(as_data(graph))
    else:
        typer.echo(as_mermaid(graph) if form == "mermaid" else as_text([graph]), nl=False)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help=f"An artifact: {_FORMS}")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """What differs between two artifacts: recipe, inputs, code, environment, result."""
    from erpd_hub.display import print_differences, print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.lineage import locate, record_at
    from erpd_hub.lineage_views import differences, incomparable
    from erpd_hub.run_files import run_artifact

    hub = connect(endpoint)
    a, b = (record_at(hub, locate(hub, run_artifact(text))) for text in (first, second))
    if as_json:
        print_json(differences(a, b))
        return
    if said := incomparable(a, b):
        typer.echo(said)
    print_differences(first, second, differences(a, b))


@app.command()
def verify(reference: LineageRef, endpoint: Endpoint = "local", upstream: Upstream = None) -> None:
    """Download an artifact and all its ancestors afresh, re-hash everything, and say what is missing or altered."""
    from huggingface_hub.utils import disable_progress_bars

    from erpd_hub.display import print_findings
    from erpd_hub.hub.connecting import connect
    from erpd_hub.lineage import locate
    from erpd_hub.lineage import verify as verify_place
    from erpd_hub.run_files import run_artifact

    disable_progress_bars()  # a line for each artifact is the report
    hub = connect(endpoint, upstream=upstream)
    if print_findings(verify_place(hub, locate(hub, run_artifact(reference)))):
        raise typer.Exit(1)
