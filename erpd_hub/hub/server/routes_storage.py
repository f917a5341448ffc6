"""Large files of a repository over its whole history, and giving them up: what `list_lfs_files` and
`permanently_delete_lfs_files` of the client ask for. Their bytes leave the disk with the next `gc`, which knows what
else refers to them."""

from collections.abc import Iterator

from starlette.responses import Response

from erpd_hub.hub.server import commits, possession, repos
from erpd_hub.hub.server.call import (
    Call,
    Json,
    Routes,
    Target,
    find_current,
    kind_field,
    object_list,
    reply,
    text_field,
    timestamp,
)
from erpd_hub.hub.server.errors import Refusal, bad_request
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.repos import MAIN
from erpd_hub.hub.server.rewriting import Rewriter


def list_lfs_files(call: Call) -> Response:
    """Each large file once, where it was added; `ref` is the first branch, tag or pull request that has that commit."""
    repo = call.repo()
    rows: dict[str, Json] = {}
    seen: set[str] = set()
    for ref in sorted(repos.list_refs(call.db, repo), key=lambda ref: (ref.name != MAIN, ref.name)):
        for commit in commits.history(call.db, repo, repos.get_commit(call.db, repo, ref.target)):
            if commit.oid in seen:
                break
            seen.add(commit.oid)
            for path, file in _added(call, repo, commit):
                where = {"filename": path, "ref": ref.name, "pushedAt": timestamp(commit.created_ms)}
                rows[file.sha256] = {"fileOid": file.sha256, "oid": file.sha256, "size": file.size, **where}
    return reply(list(rows.values()))


def _added(call: Call, repo: repos.Repo, commit: repos.Commit) -> Iterator[tuple[str, File]]:
    """Large files that a commit added or changed and whose content is still here."""
    parent = repos.get_commit(call.db, repo, commit.parent).tree if commit.parent else None
    for path in call.hub.trees.changed(call.db, commit.tree, parent):
        entry = call.hub.trees.find(call.db, commit.tree, tuple(path.split("/")))
        if isinstance(entry, File) and entry.lfs and possession.holds(call.db, call.hub.blobs, repo, entry):
            yield path, entry


def change_lfs_files(call: Call) -> Response:
    """Copy to another repository, or delete for good."""
    match call.target.rest:
        case ("duplicate",):
            return _duplicate(call)
        case () | ("batch",):
            return _delete(call)
    raise Refusal(404, "Not found")


def _duplicate(call: Call) -> Response:
    """Content is stored once for all repositories, so a copy only needs the right to it."""
    source, target = call.repo(), call.json.get("target")
    if not isinstance(target, dict):
        raise bad_request('"target" must be an object with type and name')
    namespace, _, name = text_field(target, "name").partition("/")
    call.hub.accounts.check_write(call.user, namespace)
    find_current(call.hub, call.db, call.user, Target(kind_field(target), namespace, name))
    wanted = [text_field(item, "sha256") for item in object_list(call.json, "files")]
    failed = [sha for sha in wanted if not possession.has(call.db, source, sha)]
    return reply({"failed": [{"sha256": sha, "error": "The repository has no such file"} for sha in failed]})


def _delete(call: Call) -> Response:
    """Large files that the repository has no more, whoever else has them; also of a call that came only so far."""
    repo = call.writable_repo()
    asked = call.json.get("deletions")
    rewrites = asked.get("rewriteHistory", True) if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or not isinstance(asked.get("sha"), list) or type(rewrites) is not bool:
        raise bad_request("expected deletions: {sha: [...], rewriteHistory: true or false}")
    dropped = {sha for sha in asked["sha"] if isinstance(sha, str)}
    rewriter = Rewriter(call.hub.trees, repo, dropped)
    if rewrites:
        rewriter.strip_trees(call.hub.db)  # reads all trees of the history: others may commit meanwhile
    had = [sha for sha in dropped if possession.has(call.db, repo, sha)]
    with call.hub.db.write() as db:
        for sha in had:
            possession.unlink(db, repo, sha)
        if rewrites:
            rewriter.move_refs(db)
    return reply({})


REPO_ROUTES: Routes = {("GET", "lfs-files"): list_lfs_files, ("POST", "lfs-files"): change_lfs_files}
