"""Tiny finished artifacts on the embedded Hub, and what a run of them publishes; also a process that does so.

python published.py RUN SEED NAME...     publish the details of these checkpoints, which must be on the Hub
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd

from erpd_hub.artifacts import (
    LINEAGE,
    InputRecord,
    LineageRecord,
    digest_files,
    fingerprint,
    fingerprint_tag,
    payload_files,
)
from erpd_hub.evaluation.judge.audit import canary_report
from erpd_hub.evaluation.judge.canaries import canaries, rewordings
from erpd_hub.evaluation.judge.journal import Ruling, question_key
from erpd_hub.evaluation.judge.prompt import PROMPT_VERSION, Question
from erpd_hub.evaluation.statistics import summarise
from erpd_hub.finished import Finished
from erpd_hub.hub.client import Hub, RepoType
from erpd_hub.hub.connecting import connect
from erpd_hub.hub.finding import find_finished
from erpd_hub.model_cards import render
from erpd_hub.plan import Node, Plan, make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import sample_schema, sample_seed, write_tables

BENCHMARK = "addition-1digit"
DATASET = "MathArena/aime_2025"
NOTHING: Mapping[str, object] = {}


def push_files(hub: Hub, repo_type: RepoType, repo_id: str, files: dict[str, bytes], *, message: str) -> str:
    """One commit of these files, as anybody could make it: no record, no check, everything else stays."""
    hub.api.create_repo(repo_id, repo_type=repo_type, private=hub.private, exist_ok=True)
    additions = [CommitOperationAdd(name, content) for name, content in files.items()]
    return str(hub.api.create_commit(repo_id, operations=additions, commit_message=message, repo_type=repo_type).oid)


def push(hub: Hub, files: dict[str, bytes], *, inputs=(), identity=NOTHING, **fields) -> tuple[str, LineageRecord]:
    """One finished artifact with these files, or the one that is there already."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        payload = payload_files(folder)
        identity = {"digest": digest_files(payload), **identity}
        pairs = [(item.role, item.digest) for item in inputs]
        value = fingerprint(fields["stage"], 1, inputs=pairs, identity=identity, seed=0)
        record = LineageRecord(
            stage_version=1, round=1, step=fields["stage"], inputs=tuple(inputs), identity=identity, seed=0,
            fingerprint=value, digest=identity["digest"], code={"version": "0.1.0", "git_commit": None, "dirty": None},
            environment={"python": "3.11"}, files=payload, license="apache-2.0",
            **{"config": {"type": "import"}, "metrics": {}, **fields},
        )  # fmt: skip
        if found := find_finished(hub, record.repo_type, record.repo_id, record.folder, value):
            return found
        (folder / LINEAGE).write_text(record.to_json())
        if not record.folder:
            (folder / "README.md").write_text(render(record.model_dump(mode="json", by_alias=True)))
        return hub.push(folder, record, tags=[fingerprint_tag(value)], message="made"), record


def as_input(role: str, revision: str, record: LineageRecord) -> InputRecord:
    return InputRecord(
        role=role, kind=record.kind, digest=record.digest, repo_type=record.repo_type, repo_id=record.repo_id,
        folder=record.folder, revision=revision,
    )  # fmt: skip


def push_base(hub: Hub, name: str) -> tuple[str, LineageRecord]:
    return push(hub, {"model.safetensors": name.encode()}, stage="base", kind="checkpoint", run="r", repo_type="model",
                repo_id=f"local/{name}")  # fmt: skip


VERDICT = {"accepted": '{"verdict": "A"}', "rejected": '{"verdict": "B"}'}
VERDICTS = {1: "correct", 0: "wrong", None: "ungradable"}


def shard(labels: list[list[int | None]], benchmark: str, rulings: Mapping[tuple[str, int], str] = {}) -> bytes:
    """Samples; `rulings` are of a judge, by problem and sample."""
    import pyarrow as pa

    rows = [
        {
            "benchmark": benchmark, "problem_id": str(p), "k": k,
            "seed": sample_seed(0, benchmark, str(p), k), "prompt_ids": [1], "response_ids": [1, 2],
            "finish_reason": "stop", "text": f"answer {label}", "gold": "7", "extracted": "7" if label else "8",
            "verdict": VERDICTS[label], "label": label,
            "judge": json.dumps({"status": rulings[str(p), k]}) if (str(p), k) in rulings else None,
        }
        for p, of_problem in enumerate(labels)
        for k, label in enumerate(of_problem)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data" / "train-00000.parquet"
        write_tables(path, [pa.Table.from_pylist(rows, schema=sample_schema([]))], sample_schema([]))
        return path.read_bytes()


def rows_of(labels: list[list[int | None]]) -> list[dict]:
    return [
        {"problem_id": str(p), "label": label, "verdict": VERDICTS[label], "response_ids": [1, 2],
         "finish_reason": "stop", "gold": "7", "extracted": "7" if label else "8"}
        for p, of_problem in enumerate(labels) for label in of_problem
    ]  # fmt: skip


def figures(labels: list[list[int | None]]) -> dict:
    decoding = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32}
    harness = {"erpd-hub": "0.1.0", "grader": "math v1"}
    told = {"limit": None, "licence": "CC-BY-NC-SA-4.0", "problems_state": "known"}
    return {**summarise(rows_of(labels)), "benchmark_version": 1, "decoding": decoding, "harness": harness, **told}


def push_details(
    hub: Hub, run: str, checkpoint: tuple[str, LineageRecord | None], labels, *, benchmark: str = BENCHMARK,
    name: str = "", item: InputRecord | None = None, identity=NOTHING, told=NOTHING,
) -> tuple[str, LineageRecord]:  # fmt: skip
    """Details of a checkpoint, or of `name`, whose input is `item`; `told` is in their metrics."""
    sha, record = checkpoint
    name = name or record.repo_id
    inputs = [item or as_input("checkpoints", sha, record)]
    if benchmark == "aime_2025":
        inputs.append(InputRecord(role=f"benchmark:{benchmark}", kind="dataset", digest="d" * 64, repo_type="dataset",
                                  repo_id=DATASET, revision="e" * 40))  # fmt: skip
    metrics = {**figures(labels), "benchmark": benchmark, **told}
    planned = {"k": max(map(len, labels)), "limit": None, "definitions": {benchmark: {"num_problems": len(labels)}}}
    folder = f"{name.replace('/', '--').replace(':', '--')}/{benchmark}"
    return push(
        hub, {"data/train-00000.parquet": shard(labels, benchmark)}, inputs=inputs, stage="evaluate", kind="details",
        run=run, repo_type="dataset", repo_id=f"local/{run}-details", folder=folder,
        metrics=metrics, config={"checkpoints": [name], "benchmarks": [benchmark]},
        identity={"benchmarks": [benchmark], **planned, **identity},
    )  # fmt: skip


def push_judged(
    hub: Hub,
    details: tuple[str, LineageRecord],
    labels,
    *,
    accepted,
    replies=None,
    taken=16,
    allowed=0.5,
    left_out=(),
    told=NOTHING,
) -> tuple[str, LineageRecord]:
    """The judged copy of details, whose judge accepts these samples, turns down no other, and takes the first `taken`
    canaries, of which it may take the share `allowed`; `replies` are kept for other samples than those, and for no
    question that is `left_out`."""
    sha, record = details
    judged = [[1 if (str(p), k) in accepted else x for k, x in enumerate(row)] for p, row in enumerate(labels)]
    found = summarise(rows_of(judged))
    ruled = {
        "canary": {q: "accepted" if i < taken else "rejected" for i, q in enumerate(canaries())},
        "reworded": dict.fromkeys(rewordings(), "accepted"),
    }
    of = {purpose: {q.problem_id: Ruling(r, None, ()) for q, r in found.items()} for purpose, found in ruled.items()}
    report = canary_report(of["canary"], of["reworded"].values(), threshold=allowed)
    metrics = {**record.metrics, "avg_judged": found["avg"], "stderr_judged": found["stderr"],
               "judge": {"model": "judge-1", **report, **told}}  # fmt: skip
    content = shard(labels, BENCHMARK, dict.fromkeys(accepted, "accepted"))
    entries = [
        {"key": question_key(q, "judge-1"), "purpose": purpose, "replies": [VERDICT[ruling]]}
        for purpose, rulings in ruled.items()
        for q, ruling in rulings.items()
        if q not in left_out
    ]
    for problem_id, _ in accepted if replies is None else replies:
        question = Question(f"{BENCHMARK}/{problem_id}", None, "7", "8")
        entries.append({"key": question_key(question, "judge-1"), "replies": [VERDICT["accepted"]]})
    files = {
        "data/train-00000.parquet": content,
        "judge/judge.json": json.dumps(
            {"model": "judge-1", "prompt_version": PROMPT_VERSION, "max_canary_acceptance": allowed}
        ).encode(),
        "judge/replies.jsonl": "".join(json.dumps(entry) + "\n" for entry in entries).encode(),
    }
    return push(
        hub, files, inputs=[as_input("details", sha, record)], stage="judge",
        kind="details", run=record.run, repo_type="dataset", repo_id=record.repo_id, folder=f"{record.folder}-judged",
        metrics=metrics, config={"details": "evaluate", "benchmark": BENCHMARK},
    )  # fmt: skip


def plan_of(run: str, names: list[str], benchmark: str = BENCHMARK, *, judge: dict | None = None) -> Plan:
    checkpoints = [name if ":" in name else f"local/{name}" for name in names]
    evaluate = {"checkpoints": checkpoints, "benchmarks": [benchmark], "k": 2}
    evaluate |= {"judge": judge} if judge else {}
    evaluate |= {"engine": {"type": "server", "urls": ["http://127.0.0.1:9/v1"]}} if ":" in names[0] else {}
    return make_plan(build_recipe({"run": run, "steps": {"evaluate": evaluate}}, "a test"))


def finished(node: Node, details: tuple[str, LineageRecord], checkpoint: LineageRecord | None) -> Finished:
    return Finished(node, details[1], details[0], {}, reused=False, seconds=0.0, origins={"checkpoints": checkpoint})


def done(hub: Hub, run: str, names: list[str], labels, benchmark: str = BENCHMARK) -> tuple[Plan, list[Finished]]:
    """Checkpoints and details pushed, as the end of a run has them."""
    plan = plan_of(run, names, benchmark)
    found = []
    for name, node in zip(names, plan.nodes, strict=True):
        sha, record = push_base(hub, name)
        found.append(finished(node, push_details(hub, run, (sha, record), labels, benchmark=benchmark), record))
    return plan, found


if __name__ == "__main__":
    from erpd_hub.publish import publish_leaderboard, publish_repository_cards

    hub = connect("local")
    plan, results = done(hub, sys.argv[1], sys.argv[3:], [[1, 0], [int(sys.argv[2]) % 2, 1]])
    publish_repository_cards(hub, results)
    publish_leaderboard(hub, plan, results)
