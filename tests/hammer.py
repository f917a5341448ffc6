"""Commits sets of files that belong together until the server dies: `python hammer.py URL TOKEN WORKER`.

Prints each confirmed commit. A process of its own: a client that has lost its server goes on trying, and closes the
session that all threads of its process share.
"""

import os
import sys

from huggingface_hub import CommitOperationAdd, HfApi


def main(url: str, token: str, worker: str) -> None:
    api = HfApi(url, token=token)
    for number in range(10_000):
        files = [
            CommitOperationAdd(f"w{worker}/{number}/small.txt", f"{worker} {number}".encode()),
            CommitOperationAdd(f"w{worker}/{number}/middle.txt", os.urandom(40_000).hex().encode()),
            CommitOperationAdd(f"w{worker}/{number}/large.bin", os.urandom(200_000)),
        ]
        commit = api.create_commit("local/hammered", files, commit_message=f"{worker}/{number}")
        print(commit.oid, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
