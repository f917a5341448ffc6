"""What a repository is: the info calls and the listings, both filled from the README header and the file names."""

from collections.abc import Callable
from pathlib import PurePosixPath

from starlette.responses import Response

from erpd_hub.hub.server import repos
from erpd_hub.hub.server.call import (
    Call,
    Json,
    Routes,
    bounded_int,
    page_link,
    parse_json_object,
    reply,
    timestamp,
)
from erpd_hub.hub.server.cards import MAX_HEADER_CHARS, card_tags, read_card
from erpd_hub.hub.server.errors import HubError, bad_request
from erpd_hub.hub.server.objects import File, lfs_pointer
from erpd_hub.hub.server.repos import Commit, Repo

REPOS_PER_PAGE = 1000
MAX_PARSED_BYTES = 1 << 20
"""READMEs and configs larger than this are files like any other."""

_SORT_KEYS: dict[str, Callable[[Repo], int]] = {
    "lastModified": lambda repo: repo.modified_ms,
    "createdAt": lambda repo: repo.created_ms,
    "trendingScore": lambda repo: repo.modified_ms,
    "downloads": lambda repo: 0,
    "likes": lambda repo: 0,
}


def info(call: Call) -> Response:
    repo = call.repo()
    revision = call.target.rest[0] if call.target.rest else "main"
    commit = repos.resolve_revision(call.db, repo, revision)
    full = describe(call, repo, commit)
    files = list(call.hub.trees.files(call.db, commit.tree))
    full["siblings"] = [_sibling(path, file, blobs=call.flag("blobs")) for path, file in files]
    full["usedStorage"] = sum(file.size for _, file in files)
    return reply(_only(full, call.query_list("expand")))


def describe(call: Call, repo: Repo, commit: Commit) -> Json:
    """Everything but the list of files."""
    card = _card(call, commit)
    tags = card_tags(repo.kind, card)
    answer: Json = {
        "_id": f"{repo.id:024x}",
        "id": repo.full_name,
        "author": repo.namespace,
        "sha": commit.oid,
        "createdAt": timestamp(repo.created_ms),
        "lastModified": timestamp(commit.created_ms),
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "cardData": card,
    }
    if repo.kind == "model":
        answer |= _model_fields(call, repo, commit, card, tags)
    elif repo.kind == "space":
        answer |= {
            "sdk": repo.sdk,
            "runtime": {"stage": "NO_APP_FILE", "hardware": {"current": None, "requested": None}},
        }
    return answer


def _model_fields(call: Call, repo: Repo, commit: Commit, card: Json, tags: list[str]) -> Json:
    names = call.hub.trees.load(call.db, commit.tree)
    config = _json_file(call, commit, "config.json")
    library = card.get("library_name") or ("transformers" if "model_type" in config else None)
    formats = {"safetensors": ".safetensors", "gguf": ".gguf"}
    found = [tag for tag, suffix in formats.items() if any(PurePosixPath(name).suffix == suffix for name in names)]
    extra = [*found, *([library] if isinstance(library, str) else [])]
    fields: Json = {"modelId": repo.full_name, "tags": list(dict.fromkeys([*tags, *extra]))}
    fields["config"] = {key: config[key] for key in ("architectures", "model_type") if key in config}
    if library:
        fields["library_name"] = library
    for key in ("pipeline_tag", "model-index"):
        if key in card:
            fields[key] = card[key]
    return fields


def _card(call: Call, commit: Commit) -> Json:
    content = _small_file(call, commit, "README.md")
    return dict(read_card(content[:MAX_HEADER_CHARS])) if content else {}


def _json_file(call: Call, commit: Commit, name: str) -> Json:
    content = _small_file(call, commit, name)
    try:
        return parse_json_object(content) if content else {}
    except HubError:  # a user's broken file is not a broken repository
        return {}


def _small_file(call: Call, commit: Commit, name: str) -> bytes | None:
    entry = call.hub.trees.find(call.db, commit.tree, (name,))
    if not isinstance(entry, File) or entry.size > MAX_PARSED_BYTES:
        return None
    return call.hub.blobs.read(call.db, entry.sha256)


def _sibling(path: str, file: File, *, blobs: bool) -> Json:
    row: Json = {"rfilename": path}
    if blobs:
        row |= {"blobId": file.oid, "size": file.size}
        if file.lfs:
            pointer = len(lfs_pointer(file.sha256, file.size))
            row["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return row


def _only(full: Json, expand: list[str]) -> Json:
    """With `expand`, the id and the properties asked for."""
    return {key: full[key] for key in ("_id", "id", *expand) if key in full} if expand else full


def listing(call: Call) -> Response:
    kind = call.target.kind
    found = repos.list_repos(call.db, kind, author=call.query("author"), searches=call.query_list("search"))
    found = [repo for repo in found if call.hub.accounts.may_read(call.user, repo)]
    found = _sorted(found, call.query("sort"), ascending=call.query("direction") == "1")
    wanted = {tag for text in call.query_list("filter") for tag in text.split(",")} | set(
        call.query_list("pipeline_tag")
    )
    offset = bounded_int(call.query("cursor"), default=0, maximum=10**9)
    limit = max(1, bounded_int(call.query("limit"), default=REPOS_PER_PAGE, maximum=REPOS_PER_PAGE))
    rows: list[Json] = []
    for position, repo in enumerate(found[offset:], start=offset):
        if len(rows) == limit:
            return reply(rows, headers=page_link(call, f"/api/{kind}s", cursor=str(position)))
        row = _row(call, repo)
        tags = row["tags"]
        assert isinstance(tags, list)
        if wanted <= set(tags):
            rows.append(_only(row, call.query_list("expand")))
    return reply(rows)


def _row(call: Call, repo: Repo) -> Json:
    commit = repos.resolve_revision(call.db, repo, repos.MAIN)
    row = describe(call, repo, commit)
    if call.flag("full"):
        row["siblings"] = [{"rfilename": path} for path, _ in call.hub.trees.files(call.db, commit.tree)]
    elif not call.flag("cardData") and "cardData" not in call.query_list("expand"):
        del row["cardData"]
    return row


def _sorted(found: list[Repo], sort: str | None, *, ascending: bool) -> list[Repo]:
    """Newest change first unless asked otherwise."""
    key = _SORT_KEYS.get(sort or "lastModified")
    if key is None:
        raise bad_request(f"Unknown sort: {sort!r}; one of {', '.join(_SORT_KEYS)}")
    return sorted(found, key=key, reverse=not ascending)


SITE_ROUTES: Routes = {("GET", f"{kind}s"): listing for kind in repos.KINDS}
REPO_ROUTES: Routes = {("GET", ""): info, ("GET", "revision"): info}
