"""Accounts and the life of a repository: whoami, create, delete, move, settings, access checks, card validation."""

import sqlite3

from starlette.responses import PlainTextResponse, Response

from erpd_hub.hub.server import commits, possession, repos
from erpd_hub.hub.server.call import (
    Call,
    Json,
    Routes,
    Target,
    find_visible,
    kind_field,
    reply,
    text_field,
    url_prefix,
)
from erpd_hub.hub.server.cards import read_card, readme_errors
from erpd_hub.hub.server.errors import bad_request, conflict, invalid_credentials
from erpd_hub.hub.server.repos import Kind, Moved, Repo


def whoami(call: Call) -> Response:
    user = call.user
    if user is None:
        raise invalid_credentials()
    token = {"displayName": user.name, "role": "write"}
    return reply(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.fullname,
            "orgs": [
                {"type": "org", "id": org.name, "name": org.name, "fullname": org.fullname, "roleInOrg": "write"}
                for org in call.hub.accounts.orgs_of(user)
            ],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def create(call: Call) -> Response:
    body = call.json
    kind = kind_field(body)
    namespace, name = _body_id(call)
    user = call.hub.accounts.check_write(call.user, namespace)
    private = _is_private(body, default=call.hub.accounts.private_by_default(namespace))
    sdk = text_field(body, "sdk") if kind == "space" else None
    with call.hub.db.write() as db:
        existing = _existing(db, kind, namespace, name)
        if existing is not None:
            raise conflict("You already created this repo", url=call.repo_url(existing))
        repo = repos.insert_repo(db, kind, namespace, name, private=private, sdk=sdk)
        commits.create_initial(db, call.hub.trees, call.hub.blobs, repo, user.name)
    return reply({"url": call.repo_url(repo), "name": repo.full_name, "id": repo.full_name})


def delete(call: Call) -> Response:
    namespace, name = _body_id(call)
    kind = kind_field(call.json)
    with call.hub.db.write() as db:
        repos.delete_repo(db, _named(call, kind, namespace, name))
    return reply({})


def move(call: Call) -> Response:
    source = _split_id(text_field(call.json, "fromRepo"))
    target = _split_id(text_field(call.json, "toRepo"))
    kind = kind_field(call.json)
    call.hub.accounts.check_write(call.user, target[0])
    with call.hub.db.write() as db:
        repo = _named(call, kind, *source)
        repos.move_repo(db, repo, *target)
    return reply({"url": f"{call.base_url}/{url_prefix(repo.kind)}{'/'.join(target)}"})


def duplicate(call: Call) -> Response:
    """A new repository with all of another one's commits, branches and tags."""
    namespace, name = _split_id(text_field(call.json, "repository"))
    call.hub.accounts.check_write(call.user, namespace)
    with call.hub.db.write() as db:
        source = call.repo()
        private = _is_private(call.json, default=source.private or call.hub.accounts.private_by_default(namespace))
        existing = _existing(db, source.kind, namespace, name)
        if existing is not None:
            raise conflict("You already created this repo", url=call.repo_url(existing))
        made = repos.insert_repo(db, source.kind, namespace, name, private=private, sdk=source.sdk)
        repos.copy_history(db, source, made)
        possession.copy_links(db, source, made)
    return reply({"url": call.repo_url(made), "name": made.full_name, "id": made.full_name})


def _existing(db: sqlite3.Connection, kind: Kind, namespace: str, name: str) -> Repo | None:
    try:
        return repos.find_repo(db, kind, namespace, name)
    except Moved:  # the old id of a repository that moved is free
        return None


def settings(call: Call) -> Response:
    with call.hub.db.write() as db:  # what the body leaves out stays as it is at this moment
        repo = call.writable_repo()
        private = _is_private(call.json, default=repo.private)
        gated = call.json.get("gated", repo.gated)
        if gated not in (None, False, "auto", "manual"):
            raise bad_request('"gated" must be "auto", "manual" or false')
        repos.update_settings(db, repo, private=private, gated=str(gated) if gated else None)
    return reply({"private": private, "gated": gated or False})


def auth_check(call: Call) -> Response:
    if call.target.rest == ("write",):
        call.writable_repo()
    else:
        call.repo()
    return reply({})


def validate_yaml(call: Call) -> Response:
    """Errors stop the client from committing a README; their absence is all it needs. Cards that validate themselves
    ask for plain text."""
    readme = text_field(call.json, "content").encode()
    errors = readme_errors(readme)
    if errors and call.request.headers.get("accept") == "text/plain":
        return PlainTextResponse("\n".join(f"- Error: {message}" for message in errors), status_code=400)
    if errors:
        return reply({"errors": [{"message": message} for message in errors], "warnings": []}, status=400)
    warnings = [] if read_card(readme) else [{"message": "empty or missing yaml metadata in repo card"}]
    return reply({"errors": [], "warnings": warnings})


def _body_id(call: Call) -> tuple[str, str]:
    """Namespace and name of a body; without an organization the caller's own namespace."""
    name = text_field(call.json, "name")
    if "/" in name:
        return _split_id(name)
    own = call.user.name if call.user else ""
    return text_field(call.json, "organization", own) or own, name


def _split_id(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash or "/" in name:
        raise bad_request(f"Invalid repository id: {text}")
    return namespace, name


def _named(call: Call, kind: Kind, namespace: str, name: str) -> Repo:
    """A repository named in the body, for changing; its old id after a move does not count."""
    try:
        repo = find_visible(call.hub, call.db, call.user, Target(kind, namespace, name))
    except Moved as moved:
        raise bad_request(f"{namespace}/{name} is now {moved}") from moved
    call.hub.accounts.check_write(call.user, repo.namespace)
    return repo


def _is_private(body: Json, *, default: bool) -> bool:
    """Visibility as clients of either generation say it."""
    visibility = body.get("visibility")
    if visibility is None:
        private = body.get("private")
        return default if private is None else bool(private)
    if visibility not in ("public", "private", "protected"):
        raise bad_request('"visibility" must be "public" or "private"')
    return visibility != "public"


SITE_ROUTES: Routes = {
    ("GET", "whoami-v2"): whoami,
    ("POST", "repos/create"): create,
    ("DELETE", "repos/delete"): delete,
    ("POST", "repos/move"): move,
    ("POST", "validate-yaml"): validate_yaml,
}
REPO_ROUTES: Routes = {
    ("PUT", "settings"): settings,
    ("POST", "duplicate"): duplicate,
    ("GET", "auth-check"): auth_check,
}
