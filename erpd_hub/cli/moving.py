"""`hub push` and `hub pull`: an artifact and all its lineage from one Hub to another."""

from typing import TYPE_CHECKING, Annotated

import typer

from erpd_hub.cli.options import AsJson, stdout_for_json

if TYPE_CHECKING:
    from erpd_hub.lineage import Place
    from erpd_hub.moving import Move

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="namespace/name or namespace/name/folder, and @REVISION if not its newest.")
]
_ENDPOINT = "local (the embedded Hub) or a URL; its token: ERPD_HUB_TOKEN_ and HOST_PORT, or ERPD_HUB_TOKEN."
Upstream = Annotated[
    str | None, typer.Option(help="Also copy what was read from this upstream Hub; default: name it as it is.")
]
Public = Annotated[
    bool, typer.Option("--public/--private", help="Let what is public there be public here; private stays private.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what the copy consists of; copy nothing.")]


def push(
    reference: Reference,
    to: Annotated[str, typer.Option(help=f"Where to copy to: {_ENDPOINT}")],
    namespace: Annotated[str, typer.Option(help="User or organisation there.")],
    endpoint: Annotated[str, typer.Option(help="Where it is.")] = "local",
    upstream: Upstream = None,
    public: Public = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Copy an artifact and everything it comes from to another Hub, parents first; again copies what is missing."""
    _move(reference, endpoint, to, namespace, upstream, public=public, dry_run=dry_run, as_json=as_json)


def pull(
    reference: Reference,
    source: Annotated[str, typer.Option("--from", help=f"Where it is: {_ENDPOINT}")],
    namespace: Annotated[str, typer.Option(help="User or organisation here.")] = "local",
    endpoint: Annotated[str, typer.Option(help="Where to copy to.")] = "local",
    upstream: Upstream = None,
    public: Public = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Copy an artifact and everything it comes from here, parents first; again copies what is missing."""
    _move(reference, source, endpoint, namespace, upstream, public=public, dry_run=dry_run, as_json=as_json)


def _move(
    reference: str,
    source: str,
    to: str,
    namespace: str,
    upstream: str | None,
    *,
    public: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from erpd_hub.display import print_json
    from erpd_hub.hub.connecting import connect
    from erpd_hub.hub.tokens import check_tokens
    from erpd_hub.lineage import locate
    from erpd_hub.moving import Move

    check_tokens(source, to)
    move = Move(connect(source, upstream=upstream), connect(to), namespace, public)
    with stdout_for_json(as_json):
        place = locate(move.source, reference)
        rows = _plan(move, place) if dry_run else _run(move, place)
    if as_json:
        print_json({"artifact": rows[-1], "parts": rows, "dry_run": dry_run})


def _plan(move: "Move", place: "Place") -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for part in move.plan(place):
        rows.append({"source": str(part.place), "bytes": part.size})
        typer.echo(f"  {_size(part.size):>9}  {part.place} -> {move.namespace}/{part.name}")
    return rows


def _run(move: "Move", place: "Place") -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for item in move.run(place):
        target = item.target
        rows.append({"source": str(item.source), "repo": target.repo_id, "folder": target.folder,
                     "revision": target.revision, "how": item.how, "bytes": item.size})  # fmt: skip
        typer.echo(f"  {item.how:<6}  {_size(item.size):>9}  {item.source} -> {target}")
    copied = sum(row["how"] == "copied" for row in rows)
    typer.echo(f"{len(rows)} artifacts: {copied} copied, {len(rows) - copied} already there")
    return rows


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
