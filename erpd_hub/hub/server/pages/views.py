"""What each page shows. A view takes the call and returns a template's name and values; it only reads."""

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple
from urllib.parse import urlencode

from markupsafe import Markup

from erpd_hub.hub.server import commits, possession, pulls, repos
from erpd_hub.hub.server.call import Call, bounded_int
from erpd_hub.hub.server.cards import CARD, card_of, card_tags
from erpd_hub.hub.server.errors import Refusal, entry_not_found
from erpd_hub.hub.server.objects import File, Folder
from erpd_hub.hub.server.pages import markdown
from erpd_hub.hub.server.pages.graph import draw
from erpd_hub.hub.server.pages.lineages import ancestry, artifact_folders, read_record, repo_url, run_of
from erpd_hub.hub.server.repos import Commit, Repo

REPOS_PER_PAGE = 50
COMMITS_PER_PAGE = 50
ENTRIES_SHOWN = 1000
MAX_TEXT_BYTES = 512 << 10
"""Of a file shown as text."""
MAX_CARD_BYTES = 1 << 20
_TAGS_SHOWN = 6


class Page(NamedTuple):
    template: str
    values: Mapping[str, object]


class Row(NamedTuple):
    """A repository in a list."""

    repo: Repo
    url: str
    tags: list[str]


def index(call: Call) -> Page:
    """The repositories the reader may see, newest change first."""
    text, wanted = (call.query("q") or "").strip()[:200], call.query("kind") or ""
    author = call.target.namespace or None
    found: list[Repo] = []
    for kind in repos.KINDS:
        if wanted in ("", kind):
            found += repos.list_repos(call.db, kind, author=author, searches=text.split())
    found = [repo for repo in found if call.hub.accounts.may_read(call.user, repo)]
    found.sort(key=lambda repo: repo.modified_ms, reverse=True)
    offset = bounded_int(call.query("from"), default=0, maximum=10**9)
    rows = [_row(call, repo) for repo in found[offset : offset + REPOS_PER_PAGE]]
    pages = {
        name: urlencode({"q": text, "kind": wanted, "from": start})
        for name, start in (("newer", offset - REPOS_PER_PAGE), ("older", offset + REPOS_PER_PAGE))
        if 0 <= start < len(found)
    }
    values = {"rows": rows, "count": len(found), "text": text, "kind": wanted, "author": author or "", "pages": pages}
    return Page("index.html.jinja", values)


def _row(call: Call, repo: Repo) -> Row:
    tags = _tags(call, repo, repos.resolve_revision(call.db, repo, repos.MAIN))
    ours = [tag.removeprefix("erpd-") for tag in tags if tag.startswith("erpd-")]
    return Row(repo, repo_url(repo), ours or tags[:3])


def _tags(call: Call, repo: Repo, commit: Commit) -> list[str]:
    """Of a card, those that say most: stage and run first."""
    card = card_of(call.db, call.hub.trees, call.hub.blobs, repo, commit)
    tags = [tag for tag in card_tags(repo.kind, card) if tag != "erpd"]
    return sorted(tags, key=lambda tag: not tag.startswith("erpd-"))[:_TAGS_SHOWN]


def overview(call: Call) -> Page:
    """A repository's card and what it holds."""
    repo, commit = at_commit(call, named=False)
    text = _file_text(call, repo, commit, CARD, MAX_CARD_BYTES)
    body = markdown.without_header(text) if text is not None else None
    html = markdown.to_html(body, repo_url(repo), commit.oid) if body is not None else None
    found = list(call.hub.trees.files(call.db, commit.tree))
    values = {"card": Markup(html) if html is not None else None, "plain": body if html is None else None,
              "files": len(found), "bytes": sum(file.size for _, file in found),
              "tags": _tags(call, repo, commit)}  # fmt: skip
    return Page("repo.html.jinja", frame(call, repo, commit, "card") | values)


def tree(call: Call) -> Page:
    """A folder at a revision."""
    repo, commit = at_commit(call)
    path = call.rest_text(1)
    folder = call.entry(commit, path) if path else None
    if isinstance(folder, File):
        return blob(call)
    key = folder.key if isinstance(folder, Folder) else commit.tree
    prefix = f"{path}/" if path else ""
    entries = sorted(
        islice(call.hub.trees.load(call.db, key).items(), ENTRIES_SHOWN), key=lambda item: isinstance(item[1], File)
    )
    touched = commits.last_touched(call.db, call.hub.trees, repo, commit, [prefix + name for name, _ in entries])
    rows = [(name, entry, touched.get(prefix + name)) for name, entry in entries]
    values = {"rows": rows, "path": path, "prefix": prefix, "crumbs": _crumbs(path),
              "artifact": read_record(call, repo, commit, path) is not None}  # fmt: skip
    return Page("tree.html.jinja", frame(call, repo, commit, "files") | values)


def blob(call: Call) -> Page:
    """One file; as text where it is small and text."""
    repo, commit = at_commit(call)
    path = call.rest_text(1)
    entry = call.entry(commit, path) if path else None
    if not isinstance(entry, File):
        raise entry_not_found(commit=commit.oid)
    text = _file_text(call, repo, commit, path, MAX_TEXT_BYTES)
    lines = None if text is None else text.splitlines()
    values = {"path": path, "crumbs": _crumbs(path), "file": entry, "lines": lines,
              "image": path[path.rfind(".") :].lower() in markdown.IMAGES}  # fmt: skip
    return Page("blob.html.jinja", frame(call, repo, commit, "files") | values)


def history(call: Call) -> Page:
    repo, commit = at_commit(call)
    offset = bounded_int(call.query("from"), default=0, maximum=10**6)
    shown = list(islice(commits.history(call.db, repo, commit), offset, offset + COMMITS_PER_PAGE + 1))
    names: dict[str, list[str]] = {}
    for ref in repos.list_refs(call.db, repo):
        names.setdefault(ref.target, []).append(ref.name.removeprefix(repos.HEADS).removeprefix(repos.TAGS))
    older = offset + COMMITS_PER_PAGE if len(shown) > COMMITS_PER_PAGE else None
    values = {"commits": shown[:COMMITS_PER_PAGE], "names": names, "older": older}
    return Page("commits.html.jinja", frame(call, repo, commit, "commits") | values)


def lineage(call: Call) -> Page:
    """Where an artifact comes from; of a repository with many, which there are."""
    repo, commit = at_commit(call)
    path = call.rest_text(1)
    folders = artifact_folders(call, commit)
    shell = frame(call, repo, commit, "lineage")
    if not path and folders not in ([], [""]):
        return Page("folders.html.jinja", shell | {"folders": folders})
    record = read_record(call, repo, commit, path)
    if record is None:
        raise entry_not_found("There is no lineage record here")
    nodes = ancestry(call, [(repo, commit, path)])
    values = {"drawing": draw(nodes), "nodes": nodes, "path": path, "crumbs": _crumbs(path), "run_name": record.run}
    return Page("lineage.html.jinja", shell | values)


def run(call: Call) -> Page:
    """The lineage of everything that a run made."""
    namespace, name = call.target.namespace, call.target.name
    found = run_of(call, namespace, name)
    nodes = ancestry(call, found.artifacts, marked=False)
    if not nodes:
        raise Refusal(404, "No such run, or nothing of it that you may see")
    measured = [(repo.full_name, f"{repo_url(repo)}/lineage/main") for repo in found.collections]
    values = {"drawing": draw(nodes), "nodes": nodes, "namespace": namespace, "run_name": name, "measured": measured}
    return Page("run.html.jinja", values)


def at_commit(call: Call, *, named: bool = True) -> tuple[Repo, Commit]:
    """The repository, and the commit that the URL names; main where it names none."""
    repo = call.repo()
    if named and call.target.rest:
        return repo, call.revision()
    return repo, repos.resolve_revision(call.db, repo, repos.MAIN)


def frame(call: Call, repo: Repo, commit: Commit, tab: str, *, revision: str | None = None) -> dict[str, object]:
    """What all pages of a repository show; `revision` is what their tabs lead to, by default the one in the URL."""
    refs = [ref for ref in repos.list_refs(call.db, repo) if ref.name.startswith((repos.HEADS, repos.TAGS))]
    shown = [(ref.name.removeprefix(repos.HEADS).removeprefix(repos.TAGS), ref.name.startswith(repos.TAGS), ref.target)
             for ref in refs]  # fmt: skip
    named = call.target.rest[0] if call.target.rest else "main"
    if revision is None:
        revision = named if any(name == named for name, _, _ in shown) else commit.oid
    return {"repo": repo, "url": repo_url(repo), "commit": commit, "tab": tab, "refs": shown, "revision": revision,
            "has_lineage": bool(artifact_folders(call, commit)), "discussed": pulls.count(call.db, repo)}  # fmt: skip


def _crumbs(path: str) -> list[tuple[str, str]]:
    """Names of a path's segments, with the path up to each."""
    parts = path.split("/") if path else []
    return [(part, "/".join(parts[: index + 1])) for index, part in enumerate(parts)]


def _file_text(call: Call, repo: Repo, commit: Commit, path: str, limit: int) -> str | None:
    """A file's text; None for one that is large, absent or not text."""
    try:
        entry = call.entry(commit, path)
        if not isinstance(entry, File) or entry.size > limit:
            return None
        content = possession.read(call.db, call.hub.blobs, repo, entry)
        return None if b"\0" in content else content.decode("utf-8")
    except (Refusal, UnicodeDecodeError):
        return None
