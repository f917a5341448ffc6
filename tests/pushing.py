"""A writer of its own process: `python pushing.py URL REPO WRITER COUNT` makes COUNT commits on main, each on the state
it has seen (parentCommit), again and again until it is first; prints the id of each."""

import base64
import json
import sys
import urllib.error
import urllib.request

MOVED = 412


def ask(url: str, body: bytes | None = None) -> dict:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as response:
        return json.load(response)


def main(url: str, repo: str, writer: str, count: str) -> None:
    for number in range(int(count)):
        while (oid := commit(url, repo, f"w{writer}/{number}")) is None:
            pass
        print(oid, flush=True)


def commit(url: str, repo: str, path: str) -> str | None:
    """One file of the writer's own and the two that all writers change together; None when another was first."""
    head = ask(f"{url}/api/models/{repo}")["sha"]
    rows = [{"key": "header", "value": {"summary": path, "description": "", "parentCommit": head}}]
    for name in (path, "left", "right"):
        rows.append({"key": "file", "value": {"path": name, "content": base64.b64encode(path.encode()).decode()}})
    try:
        return ask(f"{url}/api/models/{repo}/commit/main", "\n".join(map(json.dumps, rows)).encode())["commitOid"]
    except urllib.error.HTTPError as error:
        if error.code == MOVED:
            return None
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
