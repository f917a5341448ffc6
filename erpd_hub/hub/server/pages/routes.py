"""Which page a URL is, its answer's headers, and signing in.

A browser has no token to send. Where there are accounts, one that is typed in once becomes a cookie: signed, for a
while, out of reach of scripts, and good for reading only (the API does not look at it).
"""

from collections.abc import Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from erpd_hub.hub.server import possession
from erpd_hub.hub.server.accounts import User, token_digest
from erpd_hub.hub.server.blobs import INLINE_LIMIT
from erpd_hub.hub.server.call import Call, Handler, Hub, Target
from erpd_hub.hub.server.errors import Refusal, bad_request, entry_not_found, forbidden
from erpd_hub.hub.server.objects import File
from erpd_hub.hub.server.pages import changes, views
from erpd_hub.hub.server.pages.collections import collection
from erpd_hub.hub.server.pages.markdown import IMAGES
from erpd_hub.hub.server.pages.rendering import environment, stylesheet
from erpd_hub.hub.server.paths import is_repo_part
from erpd_hub.hub.server.repos import KINDS, Kind

COOKIE = "erpd-hub-session"
SESSION_S = 7 * 86_400
SITE = "-"
"""First segment of what belongs to no repository; no namespace is called so."""
MAX_IMAGE_BYTES = 16 << 20

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#3b5bdb"/>'
    '<path d="M9 23V9m14 14V9M9 16h14" stroke="#fff" stroke-width="3.5" stroke-linecap="round"/></svg>'
)
_KINDS: dict[str, Kind] = {f"{kind}s": kind for kind in KINDS}
View = Callable[[Call], views.Page]
_REPO_VIEWS: dict[str, View] = {"tree": views.tree, "blob": views.blob, "commits": views.history,
                                "lineage": views.lineage, "commit": changes.commit,
                                "discussions": changes.discussions}  # fmt: skip


def find(method: str, segments: tuple[str, ...]) -> tuple[Handler, Target] | None:
    """The handler of a page and what its URL names, None for a URL that is no page."""
    if method == "HEAD":  # the answer's body is then not sent
        method = "GET"
    if segments[0] == SITE:
        return _site(method, segments[1:])
    if method != "GET":
        return None
    if (fixed := _FIXED.get("/".join(segments))) is not None:
        return fixed, Target("model")
    if segments[0] == "collections" and len(segments) == 3 and segments[2] not in _REPO_VIEWS:
        return _page(collection), Target("model", segments[1], segments[2])
    kind = _KINDS.get(segments[0], "model")
    parts = segments if segments[0] not in _KINDS else segments[1:]
    if parts in (("",), ()):
        return _page(views.index), Target(kind)
    if len(parts) == 1:
        return (_page(views.index), Target(kind, parts[0])) if is_repo_part(parts[0]) else None
    if len(parts) == 2:
        return _page(views.overview), Target(kind, parts[0], parts[1])
    target = Target(kind, parts[0], parts[1], parts[3:])
    if parts[2] == "media":
        return media, target
    view = _REPO_VIEWS.get(parts[2])
    return (_page(view), target) if view is not None else None


def _site(method: str, rest: tuple[str, ...]) -> tuple[Handler, Target] | None:
    fixed: dict[tuple[str, str], Handler] = {
        ("GET", "style.css"): style,
        ("GET", "icon.svg"): icon,
        ("GET", "login"): _page(lambda call: views.Page("login.html.jinja", {"wrong": False})),
        ("POST", "login"): login,
        ("POST", "logout"): logout,
    }
    if method == "GET" and len(rest) == 3 and rest[0] == "runs":
        return _page(views.run), Target("model", rest[1], rest[2])
    handler = fixed.get((method, "/".join(rest)))
    return (handler, Target("model")) if handler is not None else None


def _page(view: View) -> Handler:
    def handler(call: Call) -> Response:
        try:
            page = view(call)
        except Refusal as error:
            status = HTTPStatus.NOT_FOUND if error.status == HTTPStatus.UNAUTHORIZED else error.status
            return render(call, views.Page("error.html.jinja", {"message": error.message, "status": status}), status)
        return render(call, page)

    return handler


def render(call: Call, page: views.Page, status: int = HTTPStatus.OK) -> Response:
    values = {"user": call.user, "has_accounts": call.hub.accounts.users is not None, **page.values}
    html = environment().get_template(page.template).render(values)
    return Response(html, status_code=status, headers=HEADERS, media_type="text/html")


def style(call: Call) -> Response:
    return Response(stylesheet(), headers=HEADERS, media_type="text/css")


def icon(call: Call) -> Response:
    return Response(_ICON, headers=HEADERS, media_type="image/svg+xml")


def robots(call: Call) -> Response:
    return Response("User-agent: *\nDisallow: /\n", headers=HEADERS, media_type="text/plain")


_FIXED: dict[str, Handler] = {"favicon.ico": icon, "robots.txt": robots}
"""What browsers and crawlers ask every host for."""


def media(call: Call) -> Response:
    """An image of the repository as one; `resolve` never says of a file what it is."""
    commit, path = call.revision(), call.rest_text(1)
    entry = call.entry(commit, path)
    kind = IMAGES.get(path[path.rfind(".") :].lower())
    if not isinstance(entry, File) or kind is None or entry.size > MAX_IMAGE_BYTES:
        raise entry_not_found(commit=commit.oid)
    content = possession.read(call.db, call.hub.blobs, call.repo(), entry)
    return Response(content, headers=HEADERS, media_type=kind)


# ------------------------------------------------------------------------------------------- signing in


def reader(hub: Hub, request: Request) -> User | None:
    """Who reads a page: whose token or cookie comes with the request."""
    header = request.headers.get("authorization")
    owner = hub.signer.owner("session", request.cookies.get(COOKIE, "")) if header is None else None
    if owner is not None and hub.accounts.users is not None:
        for digest, user in hub.accounts.users.items():  # so that a session ends when the account gets another token
            if digest.hex() == owner:
                return user
    return hub.accounts.identify(header)


def login(call: Call) -> Response:
    _check_same_site(call)
    if len(call.body) > INLINE_LIMIT:
        raise bad_request("The form is too large")
    token = call.form.get("token", [""])[0].strip()
    users = call.hub.accounts.users
    digest = token_digest(token)
    if users is None or digest not in users:
        return render(call, views.Page("login.html.jinja", {"wrong": True}), HTTPStatus.FORBIDDEN)
    value, _ = call.hub.signer.token("session", digest.hex(), SESSION_S)
    response = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER, headers=HEADERS)
    secure = call.request.url.scheme == "https"
    response.set_cookie(COOKIE, value, max_age=SESSION_S, httponly=True, samesite="lax", secure=secure)
    return response


def logout(call: Call) -> Response:
    _check_same_site(call)
    response = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER, headers=HEADERS)
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return response


def _check_same_site(call: Call) -> None:
    """Nobody is signed in or out by another site's form; "null" is what a sandboxed frame of one sends."""
    if call.request.headers.get("origin", call.base_url) != call.base_url:
        raise forbidden("Forms of other sites are refused")
    if call.request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise forbidden("Forms of other sites are refused")
