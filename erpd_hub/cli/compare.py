"""`compare`: checkpoints against each other on the same problems."""

from typing import Annotated

import typer

from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C]...",
            help="RUN:CHECKPOINT, namespace/run-details/CHECKPOINT\\[/BENCHMARK]\\[@revision], or ./folder of details.",
        ),
    ],
    run: Annotated[str | None, typer.Option(help="A run of this machine that bare checkpoint names are of.")] = None,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Each against each; without, all against A.")] = False,
    merge: Annotated[
        bool, typer.Option("--merge-answers", help="Majority@K over answers that the grader takes for each other.")
    ] = False,
    judged: Annotated[
        bool, typer.Option("--judged", help="Scores with the judge, which all need; without, the rule's.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Although decoding, limits, grader or judge differ: common problems, flagged."),
    ] = False,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Tables for a document.")] = False,
) -> None:
    """Paired differences of evaluations with a permutation test, per benchmark and over all of them."""
    from erpd_hub.comparing.compare_tables import markdown, print_report
    from erpd_hub.comparing.sides import read_sides
    from erpd_hub.display import print_json
    from erpd_hub.evaluation.compare import report
    from erpd_hub.evaluation.voting import graded_same
    from erpd_hub.hub.connecting import connect

    with stdout_for_json(as_json or as_markdown):
        sides = read_sides(connect(endpoint), checkpoints, run=run)
        found = report(sides, all_pairs=all_pairs, judged=judged, force=force, same=graded_same if merge else None)
    if as_json:
        print_json(found)
    elif as_markdown:
        typer.echo(markdown(found), nl=False)
    else:
        print_report(found)
