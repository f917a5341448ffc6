"""A push of the pipeline's client through a Hub that answers 429 and 500, resets, is killed, or says nothing: nothing
is lost and nothing is there twice."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import cli
from faulty_proxy import FAULTS, FaultyProxy, faulty_proxy, silent_endpoint
from hub_process import running, start, wait_ready
from published import push_files

from erpd_hub.errors import ConfigError, HubError
from erpd_hub.hub import retry, sessions
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect

TAGS = ["fp-0123456789abcdef", "step-5"]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    with running(tmp_path_factory.mktemp("outages")) as url, faulty_proxy(url) as proxy:
        yield proxy


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting is the client's; here it only takes time."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    drawn = random.Random(0)
    contents = {"lineage.json": b"{}", "a/model.safetensors": drawn.randbytes(200_000), "b.bin": drawn.randbytes(5000)}
    for name, content in contents.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    return {name: tmp_path / "files" / name for name in contents}


def push(hub: Hub, repo: str, files: dict[str, Path]) -> str:
    """As the pipeline pushes an artifact over an older one, of which one file goes."""
    return hub.push_tree(
        "model", repo, files, replaces=lambda name: name != ".gitattributes", tags=TAGS, message="an artifact"
    )


def prepare(hub: Hub, repo: str) -> None:
    push_files(hub, "model", repo, {"stale.txt": b"of before"}, message="before")


def state(hub: Hub, repo: str) -> tuple[int, dict[str, str], set[str]]:
    """Number of commits, content of the tree and tags at its newest commit."""
    commits = hub.api.list_repo_commits(repo)
    tree = {path: item.blob_id for path, item in hub.tree("model", repo, "main").items()}
    refs = hub.api.list_repo_refs(repo)
    return len(commits), tree, {tag.name for tag in refs.tags if tag.target_commit == commits[0].commit_id}


def test_a_fault_at_any_request_of_a_push_loses_and_doubles_nothing(
    proxy: FaultyProxy, quick: None, files: dict[str, Path]
) -> None:
    """Each kind at what makes the commit, two kinds at every other request."""
    hub = connect(proxy.url)
    prepare(hub, "local/calm")
    proxy.start_over(lambda number, line: None)
    push(hub, "local/calm", files)
    requests = proxy.seen
    calm = state(hub, "local/calm")
    assert (calm[0], set(calm[1]), calm[2]) == (3, {".gitattributes", *files}, set(TAGS))
    for number, request in enumerate(requests):
        critical = request.startswith(("PUT", "POST /api/models/local/calm/commit"))
        for fault in FAULTS if critical else (FAULTS[number % 6], FAULTS[(number + 3) % 6]):
            repo = f"local/f{number}-{fault}"
            proxy.start_over(lambda *_: None)
            prepare(hub, repo)
            proxy.start_over(lambda at, line, number=number, fault=fault: fault if at == number else None)
            push(hub, repo, files)
            proxy.start_over(lambda *_: None)
            assert state(hub, repo) == calm, f"{fault} at {request}"


def test_faults_at_many_requests_lose_and_double_nothing(
    proxy: FaultyProxy, quick: None, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BACK_OFF", (0.01,) * 20)
    hub = connect(proxy.url)
    proxy.start_over(lambda *_: None)
    prepare(hub, "local/still")
    push(hub, "local/still", files)
    drawn = random.Random(1)
    for number in range(5):
        proxy.start_over(lambda *_: None)
        prepare(hub, f"local/storm-{number}")
        proxy.start_over(lambda *_: drawn.choice(FAULTS) if drawn.random() < 0.3 else None)
        push(hub, f"local/storm-{number}", files)
        proxy.start_over(lambda *_: None)
        assert state(hub, f"local/storm-{number}") == state(hub, "local/still")


def test_faults_at_many_requests_of_a_download_leave_its_bytes(
    proxy: FaultyProxy, quick: None, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BACK_OFF", (0.01,) * 20)
    hub = connect(proxy.url)
    proxy.start_over(lambda *_: None)
    sha = push(hub, "local/read", files)
    drawn = random.Random(2)
    proxy.start_over(lambda *_: drawn.choice(FAULTS) if drawn.random() < 0.3 else None)
    for _ in range(3):
        with hub.fresh_download("model", "local/read", sha) as folder:
            assert {name: (folder / name).read_bytes() for name in files} == {
                name: path.read_bytes() for name, path in files.items()
            }


@pytest.mark.parametrize(
    "at", ["PUT /lfs-upload", "POST /api/models/local/killed/commit", "POST /api/models/local/killed/tag"]
)
def test_a_hub_killed_in_the_middle_of_a_push_and_started_again(
    tmp_path: Path, files: dict[str, Path], at: str
) -> None:
    root, ready = tmp_path / "root", tmp_path / "ready.json"
    servers = [start(root, ready)]
    url = wait_ready(servers[0], ready)
    restarting = []

    def restart() -> None:
        time.sleep(0.3)
        servers.append(start(root, ready, "--port", url.rpartition(":")[2]))

    def kill(number: int, line: str) -> str | None:
        if line.startswith(at) and not restarting:
            servers[0].kill()
            servers[0].wait()
            restarting.append(threading.Thread(target=restart))
            restarting[0].start()
            return "reset"
        return None

    with faulty_proxy(url) as proxy:
        hub = connect(proxy.url)
        prepare(hub, "local/killed")
        proxy.start_over(kill)
        push(hub, "local/killed", files)
        commits, tree, tags = state(hub, "local/killed")
        assert restarting
        assert (commits, set(tree), tags) == (3, {".gitattributes", *files}, set(TAGS))
    servers[-1].terminate()
    assert servers[-1].wait(timeout=30) == 0


def test_an_upload_that_fails_for_longer_than_the_client_tries_is_tried_again(
    proxy: FaultyProxy, quick: None, files: dict[str, Path]
) -> None:
    hub = connect(proxy.url)
    files["a/model.safetensors"].write_bytes(random.Random(1).randbytes(200_000))  # what the Hub has is not sent
    faults = ["500"] * 8
    proxy.start_over(lambda number, line: faults.pop() if faults and line.startswith("PUT") else None)
    push(hub, "local/patient", files)
    assert not faults
    assert state(hub, "local/patient")[0] == 2


def test_a_full_disk_is_said(proxy: FaultyProxy, quick: None, files: dict[str, Path]) -> None:
    files["a/model.safetensors"].write_bytes(b"of this test alone" * 10_000)  # what the Hub has is not sent again
    proxy.start_over(lambda number, line: "507" if line.startswith("PUT") else None)
    with pytest.raises(HubError, match="; free space on its disk"):
        push(connect(proxy.url), "local/full", files)
    assert sum(line.startswith("PUT") for line in proxy.seen) <= 2, "each large file once"


RECIPE = """
run: p
hub: {{endpoint: '{endpoint}'}}
steps:
  prompts: {{type: generator, generator: addition, count: 16, decontaminate: []}}
"""


def test_an_endpoint_that_never_answers_ends_the_run_and_keeps_its_work(tmp_path: Path) -> None:
    """It falls silent when the artifact is to be pushed; the next run pushes it."""
    root, ready, home = tmp_path / "root", tmp_path / "ready.json", tmp_path / "home"
    server = start(root, ready)
    endpoint = wait_ready(server, ready)
    recipe = tmp_path / "prompts.yaml"
    recipe.write_text(RECIPE.format(endpoint=endpoint))
    code = f"""
import os, signal, socket, sys, time
from erpd_hub.hub import client, retry
retry.BACK_OFF = (0.1,) * 5
push = client.Hub.push
def silenced(*arguments, **options):
    global listener
    os.kill({server.pid}, signal.SIGKILL)
    while True:
        try:
            listener = socket.create_server(("127.0.0.1", {endpoint.rpartition(":")[2]}))
            break
        except OSError:
            time.sleep(0.05)
    return push(*arguments, **options)
client.Hub.push = silenced
os.environ["ERPD_HUB_TIMEOUT"] = "0.5"
from erpd_hub.cli import main
main()
"""
    failed = cli("run", recipe, home=home, script=("-c", code), expect=1, timeout=120)
    assert "accepts connections and does not answer" in failed.stderr
    assert "the finished artifact is kept" in failed.stderr
    server.wait()
    again = start(root, ready, "--port", endpoint.rpartition(":")[2])
    wait_ready(again, ready)
    done = json.loads(cli("run", recipe, "--json", home=home).stdout)
    assert [item["reused"] for item in done["artifacts"]] == [False]
    assert len(connect(endpoint).api.list_repo_commits("local/p-r1-prompts", repo_type="dataset")) == 2
    again.terminate()
    again.wait(timeout=30)


def test_every_kind_of_request_to_a_silent_endpoint_ends(
    files: dict[str, Path], quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERPD_HUB_TIMEOUT", "0.05")
    sessions.bound_silence.cache_clear()
    with silent_endpoint() as endpoint:
        hub = connect(endpoint)
        for request in (
            lambda: push(hub, "local/x", files),
            lambda: hub.resolve("model", "local/x"),
            lambda: hub.tree("model", "local/x", "main"),
            lambda: hub.file("model", "local/x", "main", "x"),
            lambda: hub.pull("model", "local/x", "0" * 40),
            lambda: hub.api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="local/x"),
        ):
            with pytest.raises(HubError, match="does not answer"):
                hub.ask(request)
    monkeypatch.delenv("ERPD_HUB_TIMEOUT")
    sessions.bound_silence.cache_clear()
    sessions.bound_silence()


def test_a_timeout_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("soon", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("ERPD_HUB_TIMEOUT", text)
        with pytest.raises(ConfigError, match="expected seconds above 0"):
            sessions.longest_silence()
