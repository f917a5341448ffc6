"""What a repository is: the info calls and the listings, both filled from the README header and the file names."""

import json
from collections.abc import Callable
from functools import partial

from starlette.responses import Response

from erpd_hub.hub.server import eval_results, possession, repos, safetensors
from erpd_hub.hub.server.call import (
    Call,
    Json,
    Routes,
    bounded_int,
    reply,
    timestamp,
)
from erpd_hub.hub.server.cards import card_of, card_tags
from erpd_hub.hub.server.errors import Refusal, bad_request
from erpd_hub.hub.server.json_text import parse_json_object
from erpd_hub.hub.server.objects import File, lfs_pointer
from erpd_hub.hub.server.paging import Page
from erpd_hub.hub.server.remembered import Remembered
from erpd_hub.hub.server.repos import Commit, Kind, Repo

REPOS_PER_PAGE = 1000
MAX_PARSED_BYTES = 1 << 20
"""Configs larger than this are files like any other."""
MAX_SHOWN_CHARS = 2000
"""Of a config, in each row of a listing."""
_configs = Remembered(16 << 20)
"""What is shown of configs, as JSON by the sha256 of their file."""

_COMMON = (
    "author cardData createdAt disabled downloads downloadsAllTime gated lastModified likes private resourceGroup"
    " sha siblings tags trendingScore usedStorage xetEnabled"
)
_OWN: dict[Kind, str] = {
    "model": "baseModels childrenModelCount config evalResults gguf inference inferenceProviderMapping library_name"
    " mask_token model-index pipeline_tag safetensors spaces transformersInfo widgetData",
    "dataset": "citation description mainSize paperswithcode_id",
    "space": "datasets models region runtime sdk subdomain",
}
_PROPERTIES = {kind: frozenset(f"{_COMMON} {own}".split()) for kind, own in _OWN.items()}
"""What `expand` may ask for; what has no meaning here is left out of the answer."""

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
    wanted = _expanded(call)
    if repo.kind == "model":
        stores = call.db, call.hub.trees, call.hub.blobs, repo
        if (not wanted or "safetensors" in wanted) and (counts := safetensors.parameters(*stores, commit)):
            full["safetensors"] = counts
        if "evalResults" in wanted:
            full["evalResults"] = eval_results.read_results(*stores, commit)
    return reply(_only(full, wanted))


def _expanded(call: Call) -> list[str]:
    """The properties asked for one by one; raises a 400 for one that the Hub does not know."""
    wanted = call.query_list("expand")
    known = _PROPERTIES[call.target.kind]
    if unknown := sorted(set(wanted) - known):
        raise bad_request(f'"expand" must be one of {", ".join(sorted(known))}; got {unknown[0][:40]!r}')
    return wanted


def describe(call: Call, repo: Repo, commit: Commit) -> Json:
    """Everything but the list of files."""
    card = card_of(call.db, call.hub.trees, call.hub.blobs, repo, commit)
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
    config = _config(call, repo, commit)
    library = card.get("library_name") or ("transformers" if "model_type" in config else None)
    formats = call.hub.trees.root(call.db, commit.tree).formats
    extra = [*formats, *([library] if isinstance(library, str) else [])]
    fields: Json = {"modelId": repo.full_name, "tags": list(dict.fromkeys([*tags, *extra])), "config": config}
    if library:
        fields["library_name"] = library
    for key in ("pipeline_tag", "model-index"):
        if key in card:
            fields[key] = card[key]
    return fields


def _config(call: Call, repo: Repo, commit: Commit) -> Json:
    """What is shown of config.json; nothing of one that is absent, large, no JSON or deleted for good."""
    entry = call.hub.trees.root(call.db, commit.tree).entries.get("config.json")
    if not isinstance(entry, File) or entry.size > MAX_PARSED_BYTES:
        return {}
    if not possession.holds(call.db, call.hub.blobs, repo, entry):
        return {}
    read = partial(call.hub.blobs.read, call.db, entry.sha256)
    shown: Json = json.loads(_configs.get(entry.sha256, lambda: _shown_config(read())))
    return shown


def _shown_config(content: bytes) -> str:
    try:
        config = parse_json_object(content)
    except Refusal:  # a user's broken file is not a broken repository
        return "{}"
    shown = {key: config[key] for key in ("architectures", "model_type") if key in config}
    text = json.dumps(shown)
    return text if len(text) <= MAX_SHOWN_CHARS else "{}"


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
    gated, sdks = call.query("gated"), {sdk for text in call.query_list("sdk") for sdk in text.split(",")}
    found = [repo for repo in found if call.hub.accounts.may_read(call.user, repo)]
    found = [repo for repo in found if gated is None or bool(repo.gated) == call.flag("gated")]
    found = [repo for repo in found if not sdks or repo.sdk in sdks]
    found = _sorted(found, call.query("sort"), ascending=call.query("direction") == "1")
    wanted = _wanted_tags(call)
    offset = bounded_int(call.query("cursor"), default=0, maximum=10**9)
    limit = max(1, bounded_int(call.query("limit"), default=REPOS_PER_PAGE, maximum=REPOS_PER_PAGE))
    expanded, page = _expanded(call), Page(limit)
    for position, repo in enumerate(found[offset:], start=offset):
        if page.is_full:
            return page.reply(call, f"/api/{kind}s", more=position)
        if (row := _row(call, repo, wanted)) is not None:
            page.add(_only(row, expanded))
    return page.reply(call, f"/api/{kind}s", more=None)


def _wanted_tags(call: Call) -> set[str]:
    """The tags a row must have: those of `filter`, and the fields that are tags as well."""
    wanted = {tag for text in call.query_list("filter") for tag in text.split(",")}
    wanted |= set(call.query_list("pipeline_tag"))
    return wanted | {f"{kind}:{name}" for kind in ("dataset", "model") for name in call.query_list(f"{kind}s")}


def _row(call: Call, repo: Repo, wanted: set[str]) -> Json | None:
    """What the listing asks for of a repository; None where it does not have the wanted tags."""
    commit = repos.resolve_revision(call.db, repo, repos.MAIN)
    row = describe(call, repo, commit)
    tags = row["tags"]
    assert isinstance(tags, list)
    if not wanted <= set(tags):
        return None
    if call.flag("full"):
        row["siblings"] = [{"rfilename": path} for path, _ in call.hub.trees.files(call.db, commit.tree)]
    elif not call.flag("cardData") and "cardData" not in call.query_list("expand"):
        del row["cardData"]
    if not call.flag("config") and "config" not in call.query_list("expand"):
        row.pop("config", None)
    return row


def _sorted(found: list[Repo], sort: str | None, *, ascending: bool) -> list[Repo]:
    """Newest change first unless asked otherwise."""
    key = _SORT_KEYS.get(sort or "lastModified")
    if key is None:
        raise bad_request(f"Unknown sort: {sort!r}; one of {', '.join(_SORT_KEYS)}")
    return sorted(found, key=key, reverse=not ascending)


def storage(call: Call) -> Response:
    """The caller's repositories, or an organization's, with what their main branches hold."""
    namespace = call.target.namespace or call.member().name
    call.hub.accounts.check_write(call.user, namespace)
    rows: list[Json] = []
    for kind in repos.KINDS:
        for repo in repos.list_repos(call.db, kind, author=namespace, searches=[]):
            commit = repos.resolve_revision(call.db, repo, repos.MAIN)
            size = sum(file.size for _, file in call.hub.trees.files(call.db, commit.tree))
            visibility = "private" if repo.private else "public"
            row: Json = {"id": repo.full_name, "type": kind, "visibility": visibility, "storage": size}
            rows.append({**row, "storagePercent": 0, "updatedAt": timestamp(repo.modified_ms)})
    return reply(rows)


SITE_ROUTES: Routes = {("GET", "settings/repositories"): storage} | {
    ("GET", f"{kind}s"): listing for kind in repos.KINDS
}
ORG_ROUTES: Routes = {("GET", "settings/repositories"): storage}
"""By method and the path below /api/organizations/{name}/."""
REPO_ROUTES: Routes = {
    ("GET", ""): info,
    ("GET", "revision"): info,
    **safetensors.REPO_ROUTES,
    **eval_results.REPO_ROUTES,
}
