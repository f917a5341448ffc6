"""The ledger: artifacts with known times on an embedded Hub, and the bill that comes out of their lineage."""

import json

import pytest
from conftest import cli

from erpd_hub.artifacts import (
    LINEAGE,
    TIMES,
    InputRecord,
    LineageRecord,
    digest_files,
    fingerprint,
    fingerprint_tag,
    payload_files,
    step_tag,
    write_json,
)
from erpd_hub.errors import ArtifactError
from erpd_hub.home import run_folder
from erpd_hub.hub.connecting import connect
from erpd_hub.planning.cost import cost, measured_rates

KINDS = {
    "base": "checkpoint",
    "teacher": "checkpoint",
    "distill": "checkpoint",
    "evaluate": "details",
    "rollout": "rollouts",
}


@pytest.fixture
def ledger(tmp_path):
    """Pushes artifacts with given lines of metrics.jsonl and remembers their places."""
    hub = connect("local")

    def push(stage, step, lines, *, run="mine", inputs=(), metrics=None, saved_step=None, folder="", finished=True):
        out = tmp_path / f"{run}-{step}-{saved_step}-{folder}".replace("/", "--")
        out.mkdir()
        (out / "payload.json").write_text(f"{run} {step} {saved_step} {folder}")
        (out / TIMES).write_text("".join(json.dumps(line) + "\n" for line in lines))
        files = payload_files(out)
        repo_type = "model" if KINDS.get(stage) == "checkpoint" else "dataset"
        repo = f"local/{run}-details" if folder else f"local/{run}-r1-{step}"
        value = fingerprint(stage, 1, inputs=[(i.role, i.digest) for i in inputs], identity={}, seed=0)
        record = LineageRecord(
            stage=stage,
            stage_version=1,
            kind=KINDS.get(stage, "logprobs"),
            run=run,
            round=1,
            step=step,
            saved_step=saved_step,
            repo_type=repo_type,
            repo_id=repo,
            folder=folder,
            inputs=tuple(inputs),
            config={},
            identity={},
            seed=0,
            fingerprint=value,
            digest=digest_files(files),
            code={},
            environment={"device": "cpu"},
            metrics=metrics or {},
            files=files,
        )
        write_json(out / LINEAGE, record.to_json())
        tags = [step_tag(value, saved_step)] if saved_step else []
        sha = hub.push(out, record, tags=[*tags, *([fingerprint_tag(value)] if finished else [])], message="test")
        return InputRecord(
            role="checkpoint", kind=record.kind, digest=record.digest, repo_type=repo_type, repo_id=repo, folder=folder,
            revision=sha,
        )  # fmt: skip

    return hub, push


def _as(role, item):
    return item.model_copy(update={"role": role})


def _stage(seconds, **more):
    return {"stage_seconds": seconds} | more


def _steps(*seconds):
    return [{"step": n, "seconds": value, "tokens_per_second": 10.0} for n, value in enumerate(seconds, 1)]


@pytest.fixture
def run(ledger):
    """Another run's base and rollouts; of ours a teacher with two saved steps, scores, a student, two evaluations."""
    hub, push = ledger
    base = push("base", "base", [_stage(7.0)], run="other")
    attempts = [_stage(100.0, gpus=8, device="NVIDIA H200"), _stage(60.0, gpus=8, tokens=64_000)]
    rollouts = push(
        "rollout", "rollouts", attempts, run="other", inputs=[_as("policy", base)], metrics={"samples": 1024}
    )
    role = [_as("init", base), _as("rollouts", rollouts)]
    times = [*_steps(3.0, 5.0), _stage(10.0, gpus=8)]
    early = push(
        "teacher", "teacher", [_steps(3.0, 5.0)[0], _stage(10.0, gpus=8)], inputs=role, saved_step=1, finished=False
    )
    teacher = push("teacher", "teacher", times, inputs=role, saved_step=2)
    scores = push("score", "score-teacher", [_stage(20.0, gpus=4, tokens=64_000)], inputs=[_as("checkpoint", early)])
    student = push("distill", "student", [*_steps(4.0), _stage(6.0, gpus=8)], saved_step=1,
                   inputs=[_as("init", base), _as("signal", scores), _as("teacher", teacher)])  # fmt: skip
    for name, item, score in (("teacher@step-1", early, 0.25), ("student", student, 0.5)):
        push("evaluate", "evaluate", [_stage(30.0, gpus=8, tokens=9000)], inputs=[_as("checkpoints", item)],
             folder=f"{name}/aime_2025", metrics={"avg": score, "n": 30, "k": 32})  # fmt: skip
    return hub, student


def test_everything_an_artifact_comes_from_is_counted_once_with_what_it_cost_where_it_was_made(run):
    hub, _ = run
    report = cost(hub, "local/mine-r1-student")
    rows = {row["step"]: row for row in report["artifacts"]}
    assert set(rows) == {"r1/student", "r1/base", "r1/score-teacher", "r1/teacher", "r1/rollouts"}
    assert rows["r1/rollouts"]["seconds"] == 160.0, "both attempts were paid for"
    assert rows["r1/rollouts"]["gpu_seconds"] == 8 * 160.0
    assert (rows["r1/rollouts"]["tokens"], rows["r1/rollouts"]["inherited"]) == (64_000, True)
    assert rows["r1/teacher"]["gpu_seconds"] == 80.0, "its saved step and its last step are one training"
    assert rows["r1/teacher"]["tokens"] == 80, "from its steps: 3 s and 5 s at 10 tokens a second"
    assert rows["r1/base"]["gpus"] == 1
    assert report["totals"]["gpu_seconds"] == 7 + 1280 + 80 + 80 + 48
    assert report["totals"]["inherited"] == {"artifacts": 2, "seconds": 167.0, "gpu_seconds": 1287.0, "tokens": 64_000}
    assert report["stages"]["score"]["tokens_per_gpu_second"] == 64_000 / 80
    assert measured_rates(hub, "local/mine-r1-student")["rollout"] == 64_000 / 1280


def test_the_figures_of_table_4_and_score_against_cumulative_time(run):
    hub, _ = run
    places = []
    for repo_type, repo, folder in (
        ("model", "local/mine-r1-student", ""),
        ("dataset", "local/mine-details", "teacher@step-1/aime_2025"),
        ("dataset", "local/mine-details", "student/aime_2025"),
    ):
        places.append(
            {"repo_type": repo_type, "repo": repo, "folder": folder, "revision": hub.resolve(repo_type, repo)}
        )
    run_folder("mine").mkdir(parents=True)
    (run_folder("mine") / "summary.json").write_text(json.dumps({"artifacts": places}))
    table = cost(hub, "mine")["table4"]
    assert table["on_policy_rollout_seconds_per_512"] == 80.0
    assert table["on_policy_update_seconds_per_step"] is None, "nothing here is on-policy"
    assert table["rollout_hours"] == pytest.approx(160 / 3600, abs=1e-4)
    assert (table["first_stage_seconds_per_step"], table["distill_seconds_per_step"]) == (4.0, 4.0)
    rows = {row["checkpoint"]: row for row in table["rows"]}
    early, student = rows["r1/teacher"], rows["r1/student"]
    assert (early["step"], early["score"]) == (1, 0.25)
    assert early["hours_of_steps"] == pytest.approx(3 / 3600, abs=1e-4)
    assert early["hours_before"] == pytest.approx(160 / 3600, abs=1e-4)
    assert student["hours_before"] == pytest.approx((160 + 10 + 20) / 3600, abs=1e-4)


def test_the_command_prints_it(run, tmp_path):
    home = run_folder("x").parent.parent
    done = cli("cost", "local/mine-r1-student", home=home)
    assert "GPU-hours" in done.stdout
    assert "as in the paper's Table 4" in done.stdout
    assert "other (inherited)" in done.stdout


def test_what_is_no_run_is_said():
    with pytest.raises(ArtifactError, match=r"^nothing: expected a run of this machine, or namespace/name"):
        cost(connect("local"), "nothing")
