"""Pruning frees what nothing refers to, and everything that remains still verifies to its roots."""

import shutil

import pytest
from conftest import cli

from erpd_hub.errors import ArtifactError
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import locate, verify
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.prune import unreferenced_steps
from erpd_hub.recipe import build_recipe

BASE = "local/micro-r1-base"
STEPS = {
    "prompts": {"type": "generator", "generator": "addition", "count": 8, "min_digits": 1, "max_digits": 1,
                "format": {"template": "{problem}?"}, "decontaminate": []},
    "rollouts": {"stage": "rollout", "prompts": "prompts", "policy": BASE, "k": 4, "decoding": {"max_new_tokens": 24}},
    "teacher": {"rollouts": "rollouts", "init": BASE, "loss": {"type": "mse"}, "steps": 3, "prompts_per_step": 8,
                "learning_rate": 1e-3, "save_steps": [1, 2], "push_steps": "all"},
    "unlearned": {"teacher": "teacher@step-1"},
}  # fmt: skip
TEACHER = "local/t-r1-teacher"


@pytest.fixture
def home(micro_base, tmp_path, monkeypatch):
    home = tmp_path / "pruned"
    shutil.copytree(micro_base, home)
    monkeypatch.setenv("ERPD_HOME", str(home))
    return home


def _stored(home) -> int:
    return sum(path.stat().st_size for path in (home / "hub" / "blobs").rglob("*") if path.is_file())


def test_a_saved_step_that_nothing_refers_to_goes_and_lineage_stays(home):
    plan = make_plan(build_recipe({"run": "t", "steps": STEPS}, "test"))
    run_plan(plan)
    hub = connect("local")
    before, tags = _stored(home), hub.tags("model", TEACHER)
    (step,) = unreferenced_steps(hub, "local/t")
    assert (step.repo_id, step.step, step.sha) == (TEACHER, 2, tags["step-2"])
    assert sum(step.freed.values()) > 100_000

    assert "would free" in cli("prune", "t", "--dry-run", home=home).stdout
    assert (_stored(home), connect("local").tags("model", TEACHER)) == (before, tags)

    assert "step 2" in cli("prune", TEACHER, home=home).stdout
    hub.forget("model", TEACHER)
    left = {item.oid for item in hub.api.list_lfs_files(TEACHER)}
    assert left and not left & set(step.freed), "the embedded Hub's gc takes what no repository has"
    assert not {tag for tag in hub.tags("model", TEACHER) if "step-2" in tag}
    for name in ("teacher", "unlearned", "rollouts"):
        assert not [finding for finding in verify(hub, locate(hub, f"local/t-r1-{name}")) if finding.problems]
    assert unreferenced_steps(hub, "t") == []
    again = make_plan(
        build_recipe(
            {"run": "t", "steps": STEPS | {"teacher": STEPS["teacher"] | {"push_steps": "referenced"}}}, "test"
        )
    )
    assert all(item.reused for item in run_plan(again).finished)


def test_what_is_not_there_is_not_pruned(home):
    with pytest.raises(ArtifactError, match="expected a run or a model repository of local, got none"):
        unreferenced_steps(connect("local"), "absent")
