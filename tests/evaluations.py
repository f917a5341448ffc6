"""One evaluation of a few additions through plan, runner and Hub, against the server of `completions_server`."""

from collections import Counter

from erpd_hub.pipeline import open_hub, run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import read_rows

PROBLEMS = 3


def evaluate(checkpoint, k, *, name="e", **keys):
    """One evaluation of a few additions, as the command makes it; (summary row, its rows, its record)."""
    step = {"checkpoints": [str(checkpoint)], "benchmarks": ["addition-1digit"], "k": k, "limit": PROBLEMS, **keys}
    plan = make_plan(build_recipe({"run": name, "threads": 1, "steps": {"evaluate": step}}, "test"))
    outcome = run_plan(plan)
    done = outcome.finished[-1]
    folder = open_hub(plan).pull("dataset", done.record.repo_id, done.revision, done.record.folder)
    return outcome.summary["checkpoints"][-1] | {"reused": done.reused}, list(read_rows(folder)), done.record


def at(server, **keys):
    settings = {"patience": 2.0, "timeout": 20.0, "retries": 0} | keys
    return {"type": "server", "urls": [server.url], **settings}


def asked(server):
    """How often each sample was asked for: by question and seed, without greetings."""
    bodies = [body for body in server.bodies if body["max_tokens"] == 32]
    return Counter((body["messages"][-1]["content"], body["seed"]) for body in bodies)


def by_sample(rows):
    found = {(row["problem_id"], row["k"]): row for row in rows}
    assert len(found) == len(rows), "a sample is there twice"
    return found
