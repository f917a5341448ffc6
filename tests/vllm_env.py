"""What the tests against a real vLLM share: SmolLM2-135M as a checkpoint folder, and servers of it on this machine."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

_START_SECONDS = 480
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def smollm2(folder):
    """SmolLM2-135M-Instruct in fp32, from the GGUF in the folder that ERPD_SMOLLM2 names."""
    from erpd_hub.models import import_checkpoint

    source = os.environ.get("ERPD_SMOLLM2")
    if not source or not (found := sorted(Path(source).glob("*.gguf"))):
        pytest.skip("needs ERPD_SMOLLM2, the folder with SmolLM2-135M-Instruct as a GGUF")
    import_checkpoint(found[0], folder)
    return folder


class VLLMServer:
    """`vllm serve` as a process; the console script of vllm-cpu 0.32 does not start, its module does."""

    def __init__(self, checkpoint, log, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)]
        command += ["--served-model-name", "policy", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        command += ["--max-model-len", "512", "--max-num-seqs", "16", "--enforce-eager", *options]
        self._log = log.open("wb")
        # A session of its own: killing the group takes the engine's process along, as a machine that goes down does.
        self._process = subprocess.Popen(
            command, env={**os.environ, **_ENVIRONMENT}, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def wait(self):
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            assert self._process.poll() is None, Path(self._log.name).read_text()[-3000:]
            try:
                if httpx.get(f"{self.root}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        raise AssertionError(Path(self._log.name).read_text()[-3000:])

    def counter(self, name):
        """A value of /metrics, summed over its labels."""
        lines = httpx.get(f"{self.root}/metrics", trust_env=False).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def kill(self):
        if self._process.poll() is None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        self._log.close()


@contextmanager
def vllm_servers(checkpoint, folder, count, *options):
    """`count` servers, started together."""
    servers = [VLLMServer(checkpoint, folder / f"vllm-{place}.log", *options) for place in range(count)]
    try:
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()
