"""`leaderboard`: what was measured, whether it follows from its samples, and what the paper reports."""

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json

if TYPE_CHECKING:
    from erpd_hub.hub.client import Hub
    from erpd_hub.results.published import Published


class _ShowByDefault(TyperGroup):
    """`leaderboard REPO` is `leaderboard show REPO`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args.insert(0, "show")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in (*self.commands, "--help") else ["show", *args])


app = typer.Typer(cls=_ShowByDefault, help="Scores of all runs of a namespace, and whether they hold.")
Board = Annotated[str, typer.Argument(metavar="[NAMESPACE|REPO]", help="Of its erpd-leaderboard; a dataset as it is.")]
SCHEMA = "erpd-hub/leaderboard/v1"


@app.command()
def show(
    board: Board = "local",
    benchmark: Annotated[list[str] | None, typer.Option(help="Only this benchmark; again for more.")] = None,
    run: Annotated[list[str] | None, typer.Option(help="Only this run; again for more.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="Only base, teacher, student, ...; again for more.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's numbers, marked as reported.")] = False,
    experiment: Annotated[list[str] | None, typer.Option(help="With --paper: table1, ...; again for more.")] = None,
    details: Annotated[bool, typer.Option("--details", help="Where the samples of each row are.")] = False,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """The table, grouped by lineage: base, teachers, and under each the students that its signal went into."""
    from erpd_hub.display import make_console, print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.plain import escape
    from erpd_hub.results.board import board_notes, board_tables, select
    from erpd_hub.results.published import shown_rows
    from erpd_hub.results.reported import reported, reported_notes, reported_tables

    with stdout_for_json(as_json):
        name, published = _published(connect(endpoint), board, needed=not paper)
        everything, unread = shown_rows(published)
        rows = select(everything, benchmarks=benchmark or (), runs=run or (), roles=role or ())
        entries = reported(experiment or (), rows) if paper else None
    if as_json:
        found = {"schema": SCHEMA, "leaderboard": name, "revision": published.revision or None, "rows": rows}
        print_json(found if entries is None else {**found, "reported": entries})
        return
    console = make_console()
    for table in board_tables(rows, details=details):
        console.print(table)
    for note in (*board_notes(rows), *map(escape, unread)):
        console.print(note)
    console.print(f"{len(rows)} of {len(everything)} rows of {name}{f'@{published.revision[:10]}' if rows else ''}")
    for table in reported_tables(entries or []):
        console.print()
        console.print(table)
    for note in reported_notes(entries or []):
        console.print(note)
    if entries is not None:
        console.print("\nreported: by the authors, not measured here, in no row and no mean above")


@app.command()
def verify(board: Board = "local", endpoint: Endpoint = "local", as_json: AsJson = False) -> None:
    """Download every row's samples afresh and compute the row again; exit code 1 where one does not follow."""
    from erpd_hub.display import make_console, print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.plain import escape
    from erpd_hub.results.verify import RowFinding, verify_rows

    with stdout_for_json(as_json):
        hub = connect(endpoint)
        name, published = _published(hub, board, needed=True)
        console, found = make_console(), []
        unread = (RowFinding(file, (problem,)) for file, problem in published.unread.items())
        for finding in chain(verify_rows(hub, published.rows), unread):
            found.append(finding)
            if not as_json:
                console.print(f"{'DIFFERS' if finding.problems else 'ok':<8} {escape(finding.row)}")
                for problem in finding.problems:
                    console.print(f"         {escape(problem)}")
    wrong = sum(bool(finding.problems) for finding in found)
    if as_json:
        rows = [finding._asdict() for finding in found]
        print_json({"schema": f"{SCHEMA}/verify", "leaderboard": name, "revision": published.revision, "rows": rows})
    else:
        console.print(f"{len(found)} rows of {name}@{published.revision[:10]}: {wrong} not as their samples say")
    if wrong:
        raise typer.Exit(1)


def _published(hub: "Hub", board: str, *, needed: bool) -> tuple[str, "Published"]:
    """Repository and rows; nothing where there is none and none is needed."""
    from erpd_hub.errors import ArtifactError
    from erpd_hub.publish import LEADERBOARD
    from erpd_hub.results.published import Published, published_rows

    repo_id = board if "/" in board else f"{board}/{LEADERBOARD}"
    if not needed and hub.resolve("dataset", repo_id) is None:
        return repo_id, Published("", {}, {})
    published = published_rows(hub, repo_id)
    if needed and not (any(published.rows.values()) or published.unread):
        raise ArtifactError(f"{repo_id}: expected rows, got none; a run that evaluates adds them")
    return repo_id, published
