"""Pull requests as clients see them: opened by a commit or empty, committed to, discussed, merged or closed.

A plain discussion is the same without a ref. Whoever may read a repository may open, comment and commit to their own;
the repository's writers may do everything.
"""

import sqlite3

from starlette.responses import Response

from erpd_hub.hub.server import pulls
from erpd_hub.hub.server.accounts import User
from erpd_hub.hub.server.call import Call, Json, Routes, bounded_int, reply, text_field, timestamp
from erpd_hub.hub.server.errors import Refusal, bad_request, forbidden, unprocessable
from erpd_hub.hub.server.pulls import MAX_TITLE_CHARS, Discussion, Event
from erpd_hub.hub.server.repos import MAIN

PER_PAGE = 50
MAX_TEXT_CHARS = 64 << 10


def _create(call: Call) -> Response:
    user, repo = call.member(), call.repo()
    title = _title(call)
    text = _text(call, "description", "")
    is_pull = call.json.get("pullRequest", False)
    if type(is_pull) is not bool:
        raise bad_request('"pullRequest" must be true or false')
    with call.hub.db.write() as db:
        made = pulls.open_discussion(
            db,
            repo,
            title,
            user.name,
            text=text,
            status="draft" if is_pull else "open",
            base=MAIN if is_pull else None,
        )
    return reply({"num": made.num, "url": f"{call.repo_url(repo)}/discussions/{made.num}", "pullRequest": is_pull})


def read(call: Call) -> Response:
    """One discussion, or the listing."""
    if not call.target.rest:
        return _listing(call)
    return reply(_details(call, call.db, find(call, call.db)))


def _listing(call: Call) -> Response:
    wanted = call.query("type"), call.query("status"), call.query("author")
    found = [row for row in pulls.list_all(call.db, call.repo()) if _is_wanted(row, *wanted)]
    start = bounded_int(call.query("p"), default=0, maximum=10**6) * PER_PAGE
    rows = [_summary(call, row) for row in found[start : start + PER_PAGE]]
    return reply({"discussions": rows, "count": len(found), "start": start})


def _is_wanted(row: Discussion, kind: str | None, status: str | None, author: str | None) -> bool:
    is_kind = kind in (None, "all") or (kind == "pull_request") == (row.base is not None)
    is_status = status in (None, "all") or (status == "open") == (row.status in ("open", "draft"))
    return is_kind and is_status and author in (None, row.author)


def write(call: Call) -> Response:
    """A new discussion, or a change of one."""
    return _change(call) if call.target.rest else _create(call)


def _change(call: Call) -> Response:
    """Comment, rename, close, reopen, merge."""
    user = call.member()
    what = call.target.rest[1:]
    with call.hub.db.write() as db:
        row = find(call, db)
        match what:
            case ("comment",):
                return _told(_add_comment(db, row, user, _text(call, "comment")), "newMessage")
            case ("comment", event, "edit" | "hide"):
                return _told(_change_comment(call, db, row, event, user), "updatedComment")
            case ("title",):
                return _told(_rename(call, db, row, user), "newTitle")
            case ("status",):
                return _told(_set_status(call, db, row, user), "newStatus")
            case ("merge",):
                return _merge(call, db, row)
    raise Refusal(404, "Not found")


def _add_comment(db: sqlite3.Connection, row: Discussion, user: User, text: str) -> Event:
    pulls.check_room(db, row, text)
    data: Json = {"edited": False, "hidden": False, "latest": {"raw": text}}
    return pulls.add_event(db, row, "comment", user.name, data)


def _rename(call: Call, db: sqlite3.Connection, row: Discussion, user: User) -> Event:
    _check_owner(call, row, user)
    title = _title(call)
    pulls.check_room(db, row)
    pulls.update(db, row, title=title)
    return pulls.add_event(db, row, "title-change", user.name, {"from": row.title, "to": title})


def _set_status(call: Call, db: sqlite3.Connection, row: Discussion, user: User) -> Event:
    _check_owner(call, row, user)
    status = text_field(call.json, "status")
    if status not in ("open", "closed") or row.status == "merged":
        raise bad_request('"status" must be "open" or "closed", and a merged pull request keeps its own')
    if status == "open" or row.status == "closed":  # a full one can still be closed
        pulls.check_room(db, row)
    if comment := _text(call, "comment", ""):
        _add_comment(db, row, user, comment)
    pulls.update(db, row, status=status)
    return pulls.add_event(db, row, "status-change", user.name, {"status": status})


def _change_comment(call: Call, db: sqlite3.Connection, row: Discussion, name: str, user: User) -> Event:
    comments = [event for event in pulls.events(db, row) if event.kind == "comment" and _event_id(event) == name]
    if not comments:
        raise Refusal(404, "Comment not found")
    (event,) = comments
    if call.target.rest[-1] == "hide":
        if user.name != event.author:
            call.writable_repo()
        event.data.update(hidden=True, latest={"raw": ""})
    else:
        text = _text(call, "content")
        _check_editable(db, row, event, user, text)
        event.data.update(edited=True, latest={"raw": text})
    pulls.rewrite_event(db, event)
    return event


def _check_editable(db: sqlite3.Connection, row: Discussion, event: Event, user: User, text: str) -> None:
    if user.name != event.author:  # whoever may write to the repository may hide it
        raise forbidden("Only its author may edit a comment")
    if event.data["hidden"]:
        raise bad_request("This comment is hidden")
    pulls.check_room(db, row, text)


def _merge(call: Call, db: sqlite3.Connection, row: Discussion) -> Response:
    repo, user = call.writable_repo(), call.member()
    made = pulls.merge(db, call.hub.trees, call.hub.blobs, repo, row, user.name)
    if comment := _text(call, "comment", ""):
        _add_comment(db, row, user, comment)
    pulls.add_event(db, row, "status-change", user.name, {"status": "merged"})
    return reply({"mergeCommitId": made.oid})


def _check_owner(call: Call, row: Discussion, user: User) -> None:
    if user.name != row.author and not call.hub.accounts.may_write(user, call.repo().namespace):
        raise forbidden("Only its author and the repository's writers may change this discussion")


def find(call: Call, db: sqlite3.Connection) -> Discussion:
    """The discussion whose number the URL has; raises a 404."""
    number = call.target.rest[0] if call.target.rest else ""
    plain = number.isascii() and number.isdigit() and len(number) < 10
    row = pulls.find(db, call.repo(), int(number)) if plain else None
    if row is None:
        raise Refusal(404, "Discussion not found")
    return row


def _title(call: Call) -> str:
    title = text_field(call.json, "title").strip()
    if not 3 <= len(title) <= MAX_TITLE_CHARS:
        raise unprocessable(f"A title has 3 to {MAX_TITLE_CHARS} characters")
    return title


def _text(call: Call, name: str, default: str | None = None) -> str:
    text = text_field(call.json, name, default)
    if len(text) > MAX_TEXT_CHARS:
        raise unprocessable(f"A comment has at most {MAX_TEXT_CHARS} characters")
    return text


def _summary(call: Call, row: Discussion) -> Json:
    repo = call.repo()
    return {
        "num": row.num,
        "title": row.title,
        "author": {"name": row.author, "type": "user"},
        "status": row.status,
        "createdAt": timestamp(row.created_ms),
        "isPullRequest": row.base is not None,
        "repo": {"name": repo.full_name, "type": repo.kind},
    }


def _details(call: Call, db: sqlite3.Connection, row: Discussion) -> Json:
    answer = _summary(call, row) | {"events": [_event(event) for event in pulls.events(db, row)]}
    if row.base is not None:
        changes: Json = {"base": row.base}
        if row.merged:
            changes["mergeCommitId"] = row.merged
        answer |= {"changes": changes, "filesWithConflicts": _conflicts(call, db, row), "diff": None}
    return answer


def _conflicts(call: Call, db: sqlite3.Connection, row: Discussion) -> list[str] | bool:
    """The files; True where it conflicts as a whole, as its branch was squashed or deleted."""
    try:
        return [] if row.merged else pulls.conflicts(db, call.hub.trees, call.repo(), row)
    except Refusal:
        return True


def _event_id(event: Event) -> str:
    return f"{event.id:024x}"


def _event(event: Event) -> Json:
    return {
        "id": _event_id(event),
        "type": event.kind,
        "author": {"name": event.author, "type": "user"},
        "createdAt": timestamp(event.created_ms),
        "data": event.data,
    }


def _told(event: Event, name: str) -> Response:
    return reply({name: _event(event)})


REPO_ROUTES: Routes = {("GET", "discussions"): read, ("POST", "discussions"): write}
