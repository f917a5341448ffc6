"""Runs the command line and kills this very process with SIGKILL at a named point: `kill_at.py POINT ARGUMENT...`."""

import os
import signal
import sys


def kill_after(owner, name, *, calls, before=False):
    """Replace a function by one that dies after (or instead of) its call number `calls`."""
    original = getattr(owner, name)
    count = 0

    def wrapper(*args, **kwargs):
        nonlocal count
        count += 1
        if before and count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapper)


def arrange(point):
    if point == "after-two-rollout-shards":
        from erpd_hub.sampling import sampler

        kill_after(sampler, "write_rows", calls=2)
    elif point == "after-a-score-shard":
        from erpd_hub import samples

        kill_after(samples, "write_tables", calls=1)
    elif point == "after-a-training-checkpoint":
        from erpd_hub.training.checkpoints import RunFiles

        kill_after(RunFiles, "publish_checkpoint", calls=1)
    elif point == "after-a-saved-step":
        from erpd_hub.training.checkpoints import RunFiles

        kill_after(RunFiles, "save_step", calls=1)
    elif point == "before-the-record":
        from erpd_hub import making

        kill_after(making, "write_json", calls=1, before=True)
    elif point == "between-upload-and-commit":
        from huggingface_hub import HfApi

        kill_after(HfApi, "preupload_lfs_files", calls=1)
    elif point == "between-two-commits":
        from huggingface_hub import HfApi

        kill_after(HfApi, "create_commit", calls=2, before=True)
    elif point == "between-commit-and-tag":
        from huggingface_hub import HfApi

        kill_after(HfApi, "create_tag", calls=1, before=True)
    elif point == "between-tag-and-clean-up":
        from erpd_hub import runner

        kill_after(runner.shutil, "rmtree", calls=1, before=True)
    elif point == "before-the-leaderboard":
        from erpd_hub import pipeline

        kill_after(pipeline, "publish_leaderboard", calls=1, before=True)
    elif point == "in-the-middle-of-a-request":
        import threading

        from huggingface_hub import HfApi

        original = HfApi.create_commit

        def dying(*args, **kwargs):
            threading.Timer(0.004, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
            original(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        HfApi.create_commit = dying
    else:
        raise SystemExit(f"no such point: {point}")


if __name__ == "__main__":
    point = sys.argv.pop(1)
    arrange(point)
    from erpd_hub.cli import main

    main()
