"""Pages of what changed: a commit, and the discussions and pull requests of a repository. Clients print their URLs."""

from typing import NamedTuple

from erpd_hub.hub.server import pulls, repos
from erpd_hub.hub.server.call import Call, bounded_int
from erpd_hub.hub.server.errors import Refusal
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.pages.views import Page, at_commit, frame
from erpd_hub.hub.server.pulls import Discussion
from erpd_hub.hub.server.repos import Commit
from erpd_hub.hub.server.routes_discussions import find

FILES_SHOWN = 1000
PER_PAGE = 50


class Change(NamedTuple):
    path: str
    file: File | None
    """None for one that was removed."""


def commit(call: Call) -> Page:
    """One commit: its message and the files it changed."""
    repo, shown = at_commit(call)
    if shown.parent is None:
        changed = [Change(*entry) for entry in call.hub.trees.files(call.db, shown.tree)]
    else:
        changed = _changes(call, repos.get_commit(call.db, repo, shown.parent), shown)
    values = {"changed": changed[:FILES_SHOWN], "count": len(changed), "at": shown.oid}
    return Page("commit.html.jinja", frame(call, repo, shown, "commits", revision=shown.oid) | values)


def _changes(call: Call, old: Commit, new: Commit) -> list[Change]:
    return [Change(*item) for item in sorted(pulls.difference(call.db, call.hub.trees, old, new).items())]


def discussions(call: Call) -> Page:
    """All of them, newest first, or the one that the URL names."""
    if call.target.rest:
        return _discussion(call, find(call, call.db))
    repo = call.repo()
    found = pulls.list_all(call.db, repo)
    offset = bounded_int(call.query("from"), default=0, maximum=10**6)
    older = offset + PER_PAGE if len(found) > offset + PER_PAGE else None
    head = repos.resolve_revision(call.db, repo, repos.MAIN)
    values = {"rows": found[offset : offset + PER_PAGE], "older": older}
    return Page("discussions.html.jinja", frame(call, repo, head, "discussions", revision="main") | values)


def _discussion(call: Call, row: Discussion) -> Page:
    repo = call.repo()
    head = repos.resolve_revision(call.db, repo, repos.MAIN if row.base is None else row.ref)
    changed, trouble = [], ""
    try:
        if row.base is not None:
            sides = pulls.changes(call.db, call.hub.trees, repo, row)
            changed = [Change(*item) for item in sorted(sides.theirs.items())]
    except Refusal as error:
        trouble = error.message
    values = {"row": row, "events": pulls.events(call.db, row), "trouble": trouble, "at": head.oid,
              "changed": changed[:FILES_SHOWN], "count": len(changed),
              "base": (row.base or "").removeprefix(repos.HEADS)}  # fmt: skip
    return Page("discussion.html.jinja", frame(call, repo, head, "discussions", revision="main") | values)
