"""Branches, tags and history."""

from itertools import islice

from starlette.responses import Response

from erpd_hub.hub.server import commits, repos
from erpd_hub.hub.server.call import Call, Json, Routes, bounded_int, page_link, reply, text_field, timestamp
from erpd_hub.hub.server.errors import unprocessable
from erpd_hub.hub.server.repos import HEADS, PULLS, TAGS

COMMITS_PER_PAGE = 100


def list_refs(call: Call) -> Response:
    rows = repos.list_refs(call.db, call.repo())
    answer: dict[str, list] = {"branches": [], "converts": [], "tags": []}
    groups = {HEADS: "branches", TAGS: "tags"}
    if call.flag("include_prs"):
        groups[PULLS] = "pullRequests"
    for prefix, group in groups.items():
        answer[group] = [
            {"name": row.name.removeprefix(prefix), "ref": row.name, "targetCommit": row.target}
            for row in rows
            if row.name.startswith(prefix)
        ]
    return reply(answer)


def create_branch(call: Call) -> Response:
    return _create(call, HEADS, call.rest_text(), text_field(call.json, "startingPoint", "main"), None)


def create_tag(call: Call) -> Response:
    message = text_field(call.json, "message", "")
    if len(message) > commits.MAX_MESSAGE_CHARS:
        raise unprocessable("The tag's message is too long")
    return _create(call, TAGS, text_field(call.json, "tag"), call.rest_text(), message or None)


def _create(call: Call, prefix: str, name: str, revision: str, message: str | None) -> Response:
    repo = call.writable_repo()
    with call.hub.db.write() as db:
        target = repos.resolve_revision(db, repo, revision)
        repos.create_ref(db, repo, prefix, name, target.oid, message)
    return reply({})


def delete_branch(call: Call) -> Response:
    return _delete(call, HEADS)


def delete_tag(call: Call) -> Response:
    return _delete(call, TAGS)


def _delete(call: Call, prefix: str) -> Response:
    repo = call.writable_repo()
    with call.hub.db.write() as db:
        repos.delete_ref(db, repo, prefix, call.rest_text())
    return reply({})


def list_commits(call: Call) -> Response:
    repo = call.repo()
    limit = max(1, bounded_int(call.query("limit"), default=COMMITS_PER_PAGE, maximum=1000))
    page = list(islice(commits.history(call.db, repo, call.revision()), limit))
    oldest = page[-1]
    path = f"/api/{repo.kind}s/{repo.full_name}/commits/{oldest.parent}"
    formatted = "formatted" in call.query_list("expand")
    rows = []
    for commit in page:
        row: Json = {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": timestamp(commit.created_ms),
        }
        if formatted:
            row["formatted"] = {"title": commit.title, "message": commit.message}
        rows.append(row)
    return reply(rows, headers=page_link(call, path) if oldest.parent else None)


def super_squash(call: Call) -> Response:
    repo = call.writable_repo()
    assert call.user is not None
    message = commits.checked_message(text_field(call.json, "message", "Super-squash"), "", call.user.name)
    with call.hub.db.write() as db:
        branch = repos.branch_ref(db, repo, call.rest_text())
        commits.squash(db, call.hub.trees, repo, branch, message)
    return reply({})


REPO_ROUTES: Routes = {
    ("GET", "refs"): list_refs,
    ("POST", "branch"): create_branch,
    ("DELETE", "branch"): delete_branch,
    ("POST", "tag"): create_tag,
    ("DELETE", "tag"): delete_tag,
    ("GET", "commits"): list_commits,
    ("POST", "super-squash"): super_squash,
}
