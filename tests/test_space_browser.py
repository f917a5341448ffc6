"""The Space in a real browser: hostile samples run nothing, nothing foreign is asked for, every tab shows something."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import BROWSER, browser
from hub_process import running
from huggingface_hub import CommitOperationAdd, HfApi

from erpd_hub import spaces
from erpd_hub.hub.connecting import connect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")

ATTACK = (
    "<img src=http://evil.example/a.png onerror='window.ran=1'><script>window.ran=1</script> "
    "![x](http://evil.example/b.png) "
    "${window.ran=1} {{constructor.constructor('window.ran=1')()}} $\\href{javascript:window.ran=1}{x}$ "
    "<svg onload='window.ran=1'></svg> <iframe src=//evil.example></iframe> <style>@import 'http://evil.example/c.css'</style>"
)
SHOWS = {"Compare": ".columns section", "KL efficiency": ".js-plotly-plot", "Dynamics": ".js-plotly-plot",
         "Signal": ".tokens .t", "Lineage": "svg.lineage rect"}  # fmt: skip
"""What each tab but the first shows once it is chosen."""
FOREIGN = """[...document.querySelectorAll('*')].filter(each =>
    [...each.attributes].some(one => one.name.startsWith('on') && one.value.includes('window.ran')
        || ['src', 'href', 'style', 'xlink:href'].includes(one.name)
            && /^([a-z]+:)?\\/\\/[^\\/]*evil|^javascript:|url\\(.*evil/.test(one.value))
    || ['SCRIPT', 'STYLE'].includes(each.tagName) && !each.closest('head') && /^window.ran|evil/.test(each.textContent)
).map(each => each.outerHTML.slice(0, 200)).join()"""
"""Elements that hostile text has become."""
REFUSED = """new Promise(done => {
    document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective))
    new WebSocket('ws://evil.example')
    setTimeout(() => done('nothing'), 10000)
})"""


def test_hostile_text_runs_nothing_and_fetches_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as hub:
        api = HfApi(endpoint=hub, token=False)
        _publish_hostile(api, tmp_path)
        with _served(api, tmp_path) as page, browser(tmp_path) as tab:
            tab.open(page)
            _until(tab, "document.querySelector('table.board')")
            for name, element in {"Leaderboard": "table.board", **SHOWS}.items():
                _choose(tab, name)
                _until(tab, f"[...document.querySelectorAll('{element}')].some(each => each.checkVisibility())")
                tab.value("document.querySelectorAll('input[role=listbox]').forEach(each => each.focus())")
                _until(tab, "document.documentElement.outerHTML.includes('window.ran=1')")
                assert tab.value(FOREIGN) == "", name
            assert tab.value("document.querySelector('.tokens .t').innerText.includes('onerror')"), "as text"
            assert tab.value("document.querySelector('.badge.ungraded').checkVisibility") is not None
            assert tab.value("window.ran") is None
            foreign = [url for url in tab.requests if not url.startswith((page, "data:", "blob:"))]
            assert foreign == []
            refused = tab.ask("Runtime.evaluate", expression=REFUSED, awaitPromise=True, returnByValue=True)
            assert refused["result"]["value"] == "connect-src"


def test_every_tab_of_a_run_shows_something(micro, tmp_path: Path) -> None:
    hub = connect("local")
    with _served(HfApi(endpoint=hub.api.endpoint, token=False), tmp_path) as page, browser(tmp_path) as tab:
        for width in (1400, 420):
            tab.open(page, width=width)
            _until(tab, "document.querySelectorAll('table.board tbody tr').length > 2")
            assert tab.value("document.documentElement.scrollWidth <= window.innerWidth + 1"), (
                f"{width}: it scrolls sideways"
            )
        tab.open(page)
        for name, element in SHOWS.items():
            _until(tab, "document.querySelector('table.board')")
            _choose(tab, name)
            _until(tab, f"[...document.querySelectorAll('{element}')].some(each => each.checkVisibility())")
        foreign = [url for url in tab.requests if not url.startswith((page, "data:", "blob:"))]
        assert foreign == []
        assert not [line for line in tab.console if "Content Security Policy" in line]


def _choose(tab, name: str) -> None:
    tab.value(
        f"[...document.querySelectorAll('button[role=tab]')].find(each => each.innerText.trim() == '{name}').click()"
    )


def _until(tab, condition: str, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not tab.value(f"Boolean({condition})"):
        assert time.monotonic() < deadline, f"not on the page: {condition}"
        time.sleep(0.2)


@contextmanager
def _served(api: HfApi, folder: Path) -> Iterator[str]:
    """The pushed copy of the Space, run as a Space would, from its own files; yields its address."""
    spaces.push(api, "local/erpd-compare")
    copy = api.snapshot_download("local/erpd-compare", repo_type="space", local_dir=folder / "space")
    port = _free_port()
    settings = {"HF_ENDPOINT": api.endpoint, "HF_HOME": str(folder / "hf"), "GRADIO_SERVER_PORT": str(port),
                "GRADIO_ANALYTICS_ENABLED": "False", "ERPD_SPACE_NAMESPACE": "local"}  # fmt: skip
    with (folder / "space.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=copy, env=os.environ | settings, stdout=log, stderr=log
        )
    try:
        yield _answering(process, f"http://127.0.0.1:{port}/", folder / "space.log")
    finally:
        process.kill()
        process.wait()


def _answering(process: subprocess.Popen, url: str, log: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return url
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the Space did not start: {log.read_text()[-2000:]}")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _publish_hostile(api: HfApi, folder: Path) -> None:
    """A namespace whose every text is an attack, for every tab."""
    names = ("base", "student")
    _publish(api, "local/erpd-leaderboard", "data/run.parquet", [_score(name) for name in names], folder)
    for name in names:
        _publish(
            api, "local/run-details", f"{name}/toy/data/train-00000.parquet", [_sample(k) for k in range(2)], folder
        )
        line = json.dumps({"step": 1, "loss": 1.0, "entropy": 0.5})
        files = {"lineage.json": _record([], stage="teacher"), "dynamics.jsonl": line, "tokenizer.json": _tokenizer()}
        _upload(api, f"local/{name}", "model", files)
    signal = {"problem_id": ATTACK, "k": 0, "label": None, "numerator": [-0.5], "denominator": [-1.0], "old": [-1.0],
              "signal": [0.5]}  # fmt: skip
    _publish(api, "local/run-signal", "data/train-00000.parquet", [signal], folder)
    card = f"---\ntags: [erpd-stage:signal]\n---\n{ATTACK}"
    inputs = [("rollouts", "dataset", "local/run-details", "student/toy"), ("old", "dataset", "local/run-scores", "")]
    _upload(api, "local/run-signal", "dataset", {"lineage.json": _record(inputs), "README.md": card})
    _upload(
        api, "local/run-scores", "dataset", {"lineage.json": _record([("checkpoint", "model", "local/student", "")])}
    )


def _record(inputs: list[tuple[str, str, str, str]], *, stage: str = ATTACK) -> str:
    told = [
        {"role": role, "repo_type": kind, "repo_id": repo, "revision": "main", "folder": folder, "digest": ATTACK}
        for role, kind, repo, folder in [*inputs, (ATTACK, "model", "local/base", "")]
    ]
    files = {name: {"sha256": ATTACK, "size": 1} for name in (ATTACK, "dynamics.jsonl")}
    return json.dumps({"stage": stage, "run": ATTACK, "step": ATTACK, "digest": ATTACK, "inputs": told, "files": files})


def _tokenizer() -> str:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return Tokenizer(WordLevel({"": 0, ATTACK: 1}, unk_token="")).to_str()


def _upload(api: HfApi, repo: str, kind: str, files: dict[str, str]) -> None:
    api.create_repo(repo, repo_type=kind, exist_ok=True)
    operations = [CommitOperationAdd(name, text.encode()) for name, text in files.items()]
    api.create_commit(repo, operations, commit_message="hostile", repo_type=kind)


def _publish(api: HfApi, repo: str, path: str, rows: list[dict], folder: Path) -> None:
    api.create_repo(repo, repo_type="dataset", exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "shard.parquet")
    api.upload_file(path_or_fileobj=folder / "shard.parquet", path_in_repo=path, repo_id=repo, repo_type="dataset")


def _score(name: str) -> dict:
    return {
        "run": ATTACK, "role": name, "checkpoint": f"{name} {ATTACK}", "checkpoint_repo": f"local/{name}", "step": 1,
        "benchmark": f"toy {ATTACK}", "avg": 0.5, "interval": [0.4, 0.6], "k": 2, "n": 1, "kl_checkpoint_to_base": 0.1,
        "checkpoint_revision": "main", "loss": ATTACK, "judge": ATTACK, "avg_judged": 0.5, "canaries_problem": ATTACK,
        "harness": ATTACK, "base_repo": ATTACK,
        "details_repo": "local/run-details", "details_folder": f"{name}/toy", "details_revision": "main",
    }  # fmt: skip


def _sample(k: int) -> dict:
    return {
        "problem_id": ATTACK, "k": k, "text": f"<think>{ATTACK}</think>{ATTACK}", "gold": ATTACK, "extracted": ATTACK,
        "verdict": "wrong", "label": 0, "finish_reason": "stop", "judge": ATTACK, "response_ids": [1],
        "prompt_ids": [1],
    }  # fmt: skip
