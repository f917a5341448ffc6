"""The embedded Hub's pages: harmless, private where repositories are, and whole in a real browser."""

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from browser import BROWSER, Browser, browser
from hub_process import running
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from published import as_input, push

from erpd_hub.artifacts import OriginRecord
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.server.pages import markdown
from erpd_hub.hub.server.pages.graph import BOX_WIDTH, Node, draw
from erpd_hub.hub.server.pages.lineages import MAX_EDGES
from erpd_hub.hub.tokens import token_variable

TOKEN = "token-of-alice"
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")

HOSTILE = """---
library_name: "<script>window.pwned = 'header'</script>"
tags: ["<img src=x onerror=window.pwned='tag'>"]
---
# A card <script>window.pwned = 'script'</script>

<script src="http://evil.test/x.js"></script>
<img src="http://evil.test/pixel.png" onerror="window.pwned='img'">
<iframe srcdoc="<script>parent.pwned='frame'</script>"></iframe>
<style>@import url(http://evil.test/x.css); body { background: url(http://evil.test/bg.png) }</style>
<meta http-equiv="refresh" content="0;url=http://evil.test/">
<svg onload="window.pwned='svg'"></svg><link rel="prefetch" href="http://evil.test/next">

![pixel](http://evil.test/pixel.png) ![here](plots/loss.png) ![up](../../-/logout) ![data](data:image/svg+xml,<svg/>)
![x" onerror="window.pwned='alt'](plots/loss.png "t\\" onload=\\"window.pwned=1")

[script](javascript:window.pwned='link') [data](data:text/html,<script>1</script>) [other](http://evil.test/)
[file](notes.txt) [up](../../../etc/passwd) <javascript:window.pwned=2> [vb](vbscript:x) [a](//evil.test/y)

| a | b |
| ---: | --- |
| 1 | `<b>` |

```html"><script>window.pwned='fence'</script>
<script>window.pwned = 'code'</script>
```
"""
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)


class Site(NamedTuple):
    url: str
    hub: Hub


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    """A Hub of one user with a hostile card, a private repository and a run of three artifacts."""
    folder = tmp_path_factory.mktemp("site")
    accounts = folder / "accounts.yaml"
    accounts.write_text(f"users: {{alice: {{token: {TOKEN}, fullname: Alice}}}}\n")
    patch = pytest.MonkeyPatch()
    with running(folder, "--accounts", str(accounts)) as url, patch.context() as environment:
        environment.setenv(token_variable(url), TOKEN)
        environment.setenv("ERPD_HOME", str(folder / "home"))
        hub = connect(url)
        fill(hub)
        yield Site(url, hub)


def fill(hub: Hub) -> None:
    api = hub.api
    api.create_repo("alice/hostile", repo_type="dataset", private=False)
    files = {"plots/loss.png": PIXEL, "notes.txt": b"</pre><script>window.pwned='blob'</script>\n" * 3,
             "README.md": HOSTILE.encode(), "x<script>.txt": b"name\n",
             "lineage.json": b'{"inputs": [{"role": "<script>"}]}'}  # fmt: skip
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    message = "<script>window.pwned='commit'</script>"
    api.create_commit("alice/hostile", operations, commit_message=message, repo_type="dataset")
    changes = [CommitOperationAdd("new<b>.txt", b"1"), CommitOperationDelete("notes.txt")]
    api.create_commit("alice/hostile", changes, commit_message=message, commit_description=HOSTILE,
                      repo_type="dataset", create_pr=True)  # fmt: skip
    api.create_repo("alice/secret", private=True)
    api.upload_file(path_or_fileobj=b"# hidden words\n", path_in_repo="README.md", repo_id="alice/secret")
    base_sha, base = push(hub, {"model.safetensors": b"b" * 2000}, stage="base", kind="checkpoint", run="t",
                          repo_type="model", repo_id="alice/t-r1-base")  # fmt: skip
    prompts_sha, prompts = push(hub, {"data/train.parquet": b"rows"}, stage="prompts", kind="prompts", run="t",
                                repo_type="dataset", repo_id="alice/t-r1-prompts")  # fmt: skip
    inputs = [as_input("init", base_sha, base), as_input("prompts", prompts_sha, prompts)]
    origin = OriginRecord(repo_id="local/t-r1-teacher", revision="c" * 40)
    push(hub, {"model.safetensors": b"t" * 2000}, inputs=inputs, stage="teacher", kind="checkpoint", run="t",
         repo_type="model", repo_id="alice/t-r1-teacher", origin=origin)  # fmt: skip
    for name, kind in (("t-r1-base", "model"), ("t-r1-teacher", "model")):  # the prompts stay private
        api.update_repo_settings(f"alice/{name}", repo_type=kind, private=False)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


PAGES = ("/", "/?q=hostile&kind=dataset", "/alice", "/datasets/alice/hostile", "/datasets/alice/hostile/tree/main",
         "/datasets/alice/hostile/tree/main/plots", "/datasets/alice/hostile/blob/main/notes.txt",
         "/datasets/alice/hostile/blob/main/plots/loss.png", "/datasets/alice/hostile/commits/main",
         "/alice/t-r1-teacher", "/alice/t-r1-teacher/lineage/main", "/-/runs/alice/t", "/-/login",
         "/datasets/alice/hostile/blob/main/x%3Cscript%3E.txt", "/alice/none", "/datasets/alice/hostile/commit/main",
         "/datasets/alice/hostile/discussions", "/datasets/alice/hostile/discussions/1")  # fmt: skip


@needs_browser
@pytest.mark.parametrize("page", PAGES)
def test_no_page_asks_another_host_runs_a_script_or_overflows(site: Site, chromium: Browser, page: str) -> None:
    for width, dark in ((1280, False), (390, True)):
        chromium.open(site.url + page, width=width, dark=dark)
        assert all(url.startswith(f"{site.url}/") for url in chromium.requests), chromium.requests
        assert chromium.value("typeof window.pwned") == "undefined"
        assert chromium.value("document.scripts.length") == 0
        refused = [text for text in chromium.console if "404" not in text]
        assert not refused, "the page itself keeps to its policy"
        assert chromium.value("document.documentElement.scrollWidth") <= width
        assert chromium.value("document.querySelector('main').innerText.trim().length") > 0


@needs_browser
def test_a_hostile_card_is_shown_as_text(site: Site, chromium: Browser) -> None:
    chromium.open(f"{site.url}/datasets/alice/hostile")
    assert (
        chromium.value("document.querySelectorAll('main iframe, main style, main svg, main link, main meta').length")
        == 0
    )
    images = chromium.value(
        "[...document.querySelectorAll('.markdown img')].map(i => [new URL(i.src).pathname, i.naturalWidth])"
    )
    assert [width for _, width in images] == [1, 1]
    assert all(re.fullmatch(r"/datasets/alice/hostile/media/[0-9a-f]{40}/plots/loss\.png", path) for path, _ in images)
    links = chromium.value(
        "[...document.querySelectorAll('.markdown a')].map(a => [a.textContent, a.getAttribute('href'), a.rel])"
    )
    assert {text: href for text, href, _ in links}.keys() >= {"other", "file"}
    followed = ("http://evil.test/", "/datasets/alice/hostile/blob/", "//evil.test", "../")
    assert all(href.startswith(followed) for _, href, _ in links), links
    assert all("noopener" in rel and "noreferrer" in rel for *_, rel in links)
    assert "<script src=" in chromium.value("document.querySelector('.markdown').innerText")


@needs_browser
def test_a_run_is_drawn_and_its_boxes_lead_to_their_commits(site: Site, chromium: Browser) -> None:
    chromium.open(f"{site.url}/alice/t-r1-teacher/lineage/main")
    boxes = chromium.value("[...document.querySelectorAll('.node')].map(n => n.textContent.replace(/\\s+/g, ' '))")
    assert len(boxes) == 3
    assert sum("not to be seen here" in text for text in boxes) == 1  # the private prompts
    links = chromium.value("[...document.querySelectorAll('.node a')].map(a => a.getAttribute('href'))")
    assert len(links) == 2
    for link in links:
        assert re.fullmatch(r"/alice/t-r1-(base|teacher)/tree/[0-9a-f]{40}", link)
        assert httpx.get(site.url + link).status_code == 200
    assert chromium.value("document.querySelectorAll('.edge').length") == 2
    right = "[...document.querySelectorAll('.node text')].map(t => t.getBBox().x + t.getBBox().width)"
    assert any("copied" in text for text in boxes)
    assert max(chromium.value(right)) <= BOX_WIDTH - 6, "inside of its box"


@needs_browser
def test_a_token_typed_in_shows_what_is_private_and_no_more(site: Site, chromium: Browser) -> None:
    chromium.open(f"{site.url}/alice/secret")
    assert "Not found" in chromium.value("document.body.innerText")
    for token, there in (("wrong", False), (TOKEN, True)):
        chromium.open(f"{site.url}/-/login")
        chromium.submit(
            f"document.querySelector('[name=token]').value = '{token}'; document.querySelector('.panel').submit()"
        )
        chromium.open(f"{site.url}/alice/secret")
        assert ("hidden words" in chromium.value("document.body.innerText")) is there
    assert chromium.value("document.cookie") == ""  # out of reach of scripts
    chromium.submit("document.querySelector('.who button').click()")
    chromium.open(f"{site.url}/alice/secret")
    assert "Not found" in chromium.value("document.body.innerText")


def test_a_cookie_reads_pages_and_files_and_is_nothing_to_the_api(site: Site) -> None:
    with httpx.Client(base_url=site.url) as client:
        answer = client.post("/-/login", data={"token": TOKEN})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert TOKEN not in cookie
        assert "hidden words" in client.get("/alice/secret").text
        assert client.get("/alice/secret/resolve/main/README.md").text == "# hidden words\n"
        assert client.get("/alice/secret/resolve/main/README.md").headers["cache-control"] == "private, no-cache"
        assert client.get("/api/models/alice/secret").status_code == 401
        bearer = {"Authorization": f"Bearer {client.cookies['erpd-hub-session']}"}
        assert client.post("/xet/0/v1/shards", headers=bearer).status_code == 401
        assert client.delete("/api/repos/delete").status_code >= 400
    token = {"Authorization": f"Bearer {TOKEN}"}
    for path in (
        "/alice/secret/resolve/main/README.md",
        "/api/models/alice/secret",
        "/alice/secret/resolve/main/absent",
    ):
        assert httpx.get(site.url + path, headers=token).headers["cache-control"] == "private, no-cache"
    for origin in ("http://evil.test", "null"):
        foreign = httpx.post(f"{site.url}/-/login", data={"token": TOKEN}, headers={"Origin": origin})
        assert foreign.status_code == 403
        assert "set-cookie" not in foreign.headers
    forged = {"Cookie": "erpd-hub-session=9999999999.00.00"}
    assert httpx.get(f"{site.url}/alice/secret", headers=forged).status_code == 404


def test_strangers_see_nothing_of_what_is_private(site: Site) -> None:
    pages = ("/", "/?q=secret", "/alice", "/alice/secret", "/alice/secret/tree/main",
             "/alice/secret/blob/main/README.md", "/alice/secret/commits/main",
             "/alice/secret/media/main/x.png", "/-/runs/alice/t",
             "/datasets/alice/t-r1-prompts/lineage/main")  # fmt: skip
    for page in pages:
        answer = httpx.get(site.url + page)
        assert "hidden words" not in answer.text
        assert "alice/</span>secret" not in answer.text
    assert httpx.get(f"{site.url}/alice/secret").text == httpx.get(f"{site.url}/alice/absent").text


def test_every_page_has_a_policy_under_which_nothing_foreign_loads(site: Site) -> None:
    for page in (*PAGES, "/-/style.css", "/-/icon.svg"):
        headers = httpx.get(site.url + page).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert set(policy) == {"default-src", "style-src", "img-src", "form-action", "base-uri", "frame-ancestors"}
        assert set(policy.values()) == {"'none'", "'self'"}
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")


def test_the_urls_that_clients_print_are_pages(site: Site) -> None:
    api: HfApi = site.hub.api
    made = api.upload_file(path_or_fileobj=b"1", path_in_repo="b.txt", repo_id="alice/t-r1-base", revision="main",
                           commit_message="A <b> change", create_pr=True)  # fmt: skip
    for page in (made.commit_url, made.pr_url):
        text = httpx.get(page).text
        assert "A &lt;b&gt; change" in text
        assert re.findall(r"blob/[0-9a-f]{40}/(.+?)\"", text) == ["b.txt"]
    api.change_discussion_status("alice/t-r1-base", made.pr_num, "closed")
    assert "closed" in httpx.get(made.pr_url).text
    removed = httpx.get(f"{site.url}/datasets/alice/hostile/discussions/1").text
    assert "notes.txt</del>" in removed and "new&lt;b&gt;.txt" in removed
    for page in ("/alice/t-r1-base/discussions/99", "/alice/t-r1-base/commit/" + "0" * 40, "/alice/secret/commit/main"):
        assert httpx.get(site.url + page).status_code == 404
    listed = api.create_collection("A <b> list", namespace="alice", description="of <i>two</i>")
    for name, kind in (("alice/t-r1-base", "model"), ("alice/secret", "model")):
        api.add_collection_item(listed.slug, name, kind, note=f"note <b> on {name}")
    text = httpx.get(listed.url).text
    assert "A &lt;b&gt; list" in text and "of &lt;i&gt;two&lt;/i&gt;" in text
    assert 'href="/alice/t-r1-base"' in text and "note &lt;b&gt; on alice/t-r1-base" in text and "secret" not in text
    assert httpx.get(listed.url[:-1]).status_code == 404
    assert httpx.get(f"{site.url}/favicon.ico").headers["content-type"] == "image/svg+xml"
    assert httpx.get(f"{site.url}/robots.txt").text == "User-agent: *\nDisallow: /\n"
    for page in ("/", "/alice/t-r1-base", "/-/style.css"):
        answer = httpx.head(site.url + page)
        assert (answer.status_code, answer.content) == (200, b"")


def test_pages_change_nothing_and_stay_inside_the_repository(site: Site) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert httpx.request(method, f"{site.url}/alice/t-r1-teacher").status_code in (401, 404, 405)
    for path in ("..%2f..%2fhub.sqlite", "%2e%2e/%2e%2e/hub.sqlite", "plots", "absent", "%00"):
        assert httpx.get(f"{site.url}/datasets/alice/hostile/blob/main/{path}").status_code in (400, 404, 422)
    media = httpx.get(f"{site.url}/datasets/alice/hostile/media/main/notes.txt")
    assert media.status_code == 404
    assert (
        httpx.get(f"{site.url}/datasets/alice/hostile/media/main/plots/loss.png").headers["content-type"] == "image/png"
    )


def test_a_drawing_has_so_many_lines(site: Site) -> None:
    """A record may name an input as often as it likes."""
    sha, base = push(site.hub, {"a": b"1"}, stage="base", kind="checkpoint", run="w", repo_type="model",
                     repo_id="alice/w-base")  # fmt: skip
    inputs = [as_input(f"role{number % 1200}", sha, base) for number in range(1500)]
    push(site.hub, {"a": b"2"}, inputs=inputs, stage="teacher", kind="checkpoint", run="w", repo_type="model",
         repo_id="alice/w-teacher")  # fmt: skip
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for name, count in (("w-teacher", MAX_EDGES), ("t-r1-teacher", 2)):
        page = httpx.get(f"{site.url}/alice/{name}/lineage/main", headers=headers).text
        assert page.count('class="edge"') == count


def test_a_moved_repository_is_found_under_its_new_name(site: Site) -> None:
    api: HfApi = site.hub.api
    api.create_repo("alice/before", private=False)
    api.move_repo("alice/before", "alice/after")
    answer = httpx.get(f"{site.url}/alice/before/tree/main", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/alice/after/tree/main")


SLOW = ("[", "*a_ ", "![](", "> ", "`", "<", "[a](", "- ", "a**b", "|-|\n")


@pytest.mark.parametrize("text", SLOW)
def test_a_card_that_is_slow_to_read_is_bounded(text: str) -> None:
    start = time.process_time()
    assert markdown.to_html(text * (markdown.MAX_CARD_CHARS // len(text)), "/alice/x", "main") is not None
    assert time.process_time() - start < 10
    assert markdown.to_html("a" * (markdown.MAX_CARD_CHARS + 1), "/alice/x", "main") is None


def test_a_drawing_puts_parents_above_and_passes_between_boxes() -> None:
    nodes = {"a": Node("a", "a"), "b": Node("b", "b", inputs=[("x", "a")]),
             "c": Node("c", "c", inputs=[("x", "b"), ("y", "a")])}  # fmt: skip
    drawing = draw(nodes)
    y = {box.node.name: box.y for box in drawing.boxes}
    assert y["a"] < y["b"] < y["c"]
    assert len(drawing.edges) == 3
    assert any("V" in path for path, _ in drawing.edges)  # past the row of b
    looped = {"a": Node("a", "a", inputs=[("x", "b")]), "b": Node("b", "b", inputs=[("x", "a")])}
    assert len(draw(looped).boxes) == 2
    assert draw({}).boxes == []
