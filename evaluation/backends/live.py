"""evalscope's own run against an OpenAI-compatible endpoint, on our problems with our prompts and decoding.

It samples, grades and averages by itself; its samples are imported as details. It keeps no token ids, sends no seed and
asks for nothing but the endpoint: the problems come from our pinned dataset, not from its own mirrors.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from erpd_hub.errors import ConfigError, ErpdError
from erpd_hub.evaluation.backends.confinement import bare_environment, end_group
from erpd_hub.evaluation.backends.environments import FOREIGN, pinned_version, require_python
from erpd_hub.evaluation.backends.imports import import_details
from erpd_hub.evaluation.backends.opinions import is_integer_only
from erpd_hub.evaluation.backends.outputs import read_evalscope_report
from erpd_hub.evaluation.backends.tasks import write_problems
from erpd_hub.evaluation.benchmarks import get_benchmark

_ENDPOINT = "the endpoint"
"""What stands in the place of its address."""


@dataclass(frozen=True)
class Server:
    """The model behind an endpoint; its key is in ERPD_SERVER_KEY."""

    model: str
    url: str
    """Ends in /v1."""
    concurrency: int = 8


def run_evalscope(
    server: Server, name: str, out: Path, *, endpoint: str, k: int | None, limit: int | None
) -> dict[str, Any]:
    """Sample a benchmark by evalscope into `out/evalscope`, and import the samples into `out/details`.

    Args:
        endpoint: Hub that has the benchmark's dataset.

    Raises:
        ConfigError: a benchmark that evalscope cannot be handed, or a folder that is not empty.
        ErpdError: the environment is not built, or the run failed.
    """
    benchmark = get_benchmark(name)
    if benchmark.grader != "math" or not benchmark.format.chat or benchmark.format.extract != "boxed":
        raise ConfigError(f"{name}: expected a chat benchmark with boxed answers, got another kind")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: expected a folder that is empty or not there, got files")
    work = out.resolve() / "evalscope"
    (work / "data").mkdir(parents=True)
    handed = write_problems(benchmark, endpoint, work / "data" / "problems.jsonl", limit=limit)
    decoding = benchmark.decoding
    spec = {
        "model": server.model,
        "url": server.url,
        "k": k or benchmark.k,
        "batch": server.concurrency,
        "integer": is_integer_only(name),
        "system_prompt": benchmark.format.system_prompt,
        "generation": {
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "max_tokens": decoding.max_new_tokens,
            **({"presence_penalty": decoding.presence_penalty} if decoding.presence_penalty else {}),
        },
    }
    try:
        (work / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        _run(work, server.url)
    finally:
        _forget_address(work, server.url)
    version = pinned_version("evalscope")
    details = out / "details"
    samples = import_details("evalscope", work / "run", details, benchmark=name, tool_version=version, handed=handed)
    return {"version": f"evalscope {version}", "samples": samples, **read_evalscope_report(work / "run")}


def _forget_address(work: Path, url: str) -> None:
    """Remove what names the endpoint: the spec, the configs that evalscope dumps, and its logs; in predictions, reviews
    and reports, where an error may quote it, its words."""
    for folder in (work / "run" / "configs", work / "run" / "logs"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("spec.json", "run.log"):
        (work / name).unlink(missing_ok=True)
    for path in (work / "run").rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_text(encoding="utf-8", errors="surrogateescape")
            if (told := _without_address(content, url)) != content:
                path.write_text(told, encoding="utf-8", errors="surrogateescape")


def _without_address(content: str, url: str) -> str:
    """A name without a dot, such as `vllm`, is a word of samples too: only where it stands as a host."""
    parts = urlsplit(url)
    for told in (url, url.replace("/", "\\/"), parts.netloc, parts.hostname or url):
        if "." in told or ":" in told:
            content = re.sub(rf"(?<![\w.-]){re.escape(told)}(?![\w-])", _ENDPOINT, content)
    return re.sub(rf"""(host[=: '"\\]+){re.escape(parts.hostname or url)}(?![\w-])""", rf"\1{_ENDPOINT}", content)


def _run(work: Path, url: str) -> None:
    """Raises ErpdError: evalscope failed."""
    command = [str(require_python("evalscope")), "-s", str(FOREIGN / "evalscope_run.py"), str(work / "spec.json")]
    key = {"ERPD_SERVER_KEY": os.environ["ERPD_SERVER_KEY"]} if "ERPD_SERVER_KEY" in os.environ else {}
    environment = bare_environment(HOME=str(work), **key)
    with (work / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, str(work / "run")],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            end_group(process)
    if code:
        last = (work / "run.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        words = " | ".join(last)
        for told in (url, urlsplit(url).netloc, urlsplit(url).hostname or url):
            words = words.replace(told, _ENDPOINT)
        raise ErpdError(f"evalscope: its run failed: {words[-500:]}")
