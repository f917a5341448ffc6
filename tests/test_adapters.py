"""A LoRA teacher through the pipeline: its artifact is the adapter alone, and whatever loads it finds its base."""

import shutil

import pytest

from erpd_hub.hub.connecting import connect
from erpd_hub.inputs import fetch_artifact
from erpd_hub.lineage import locate, verify
from erpd_hub.model_cards import validate
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe
from erpd_hub.samples import read_rows

BASE = "local/micro-r1-base"
TEACHER = {"stage": "teacher", "rollouts": "rollouts", "loss": {"type": "mse"}, "learning_rate": 1e-2, "steps": 2}
PROBED = {"probe": "/teacher"}
STEPS = {
    "prompts": {"type": "generator", "generator": "addition", "count": 8, "min_digits": 1, "max_digits": 1,
                "format": {"template": "{problem}?"}, "decontaminate": []},
    "rollouts": {"stage": "rollout", "prompts": "prompts", "policy": BASE, "k": 4, "decoding": {"max_new_tokens": 24}},
    "teacher": TEACHER | {"init": BASE, "lora": {"r": 2}, "prompts_per_step": 8, "save_steps": [1]},
    "unlearned": {"teacher": "teacher@step-1"},
    "again": TEACHER | {"init": "teacher", "lora": {"r": 2}, "prompts_per_step": 8, "steps": 1},
    "score-base": {"stage": "score", "rollouts": "rollouts", "checkpoint": BASE},
    "score-unlearned": {"stage": "score", "rollouts": "rollouts", "checkpoint": "unlearned"},
    "score-again": {"stage": "score", "rollouts": "rollouts", "checkpoint": "again"},
    "probe": {"checkpoints": ["teacher"], "prompts": "prompts", "policy": BASE, "base": BASE, "num_prompts": 2, "k": 2,
              "max_new_tokens": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def home(micro_base, tmp_path_factory):
    home = tmp_path_factory.mktemp("adapters") / "home"
    shutil.copytree(micro_base, home)
    return home


def test_an_adapter_is_scored_probed_published_and_trained_on(home, monkeypatch) -> None:
    monkeypatch.setenv("ERPD_HOME", str(home))
    run_plan(make_plan(build_recipe({"run": "lora", "steps": STEPS}, "test")))
    hub = connect("local")
    places = {name: locate(hub, f"local/lora-r1-{name}{PROBED.get(name, '')}") for name in STEPS}
    records = {name: hub.lineage(p.repo_type, p.repo_id, p.revision, p.folder) for name, p in places.items()}

    assert "adapter_config.json" in records["teacher"].files
    assert not any(name.startswith("base") for name in records["teacher"].files), "the base is linked, not copied"
    assert records["teacher"].license == records["prompts"].license

    rows = {name: [row["logprobs"] for row in read_rows(_pull(hub, places[name]))] for name in STEPS if "score" in name}
    assert rows["score-base"] != rows["score-unlearned"] != rows["score-again"] != rows["score-base"]
    assert records["probe"].metrics["kl_checkpoint_to_base"] > 0

    for name, base in (("teacher", BASE), ("again", "local/lora-r1-teacher")):
        card = validate((_pull(hub, places[name]) / "README.md").read_text(), "model")
        assert (card.base_model, card.base_model_relation, card.library_name) == (base, "adapter", "peft")
    assert not [finding for finding in verify(hub, places["score-again"]) if finding.problems]


def test_an_adapter_comes_with_what_it_was_trained_on(home, monkeypatch) -> None:
    monkeypatch.setenv("ERPD_HOME", str(home))
    hub = connect("local")
    folders = {}
    for name in ("teacher", "unlearned", "again"):
        place = locate(hub, f"local/lora-r1-{name}")
        record = hub.lineage(place.repo_type, place.repo_id, place.revision)
        folders[name] = fetch_artifact(record, place.revision, hub, place.repo_id)
        assert fetch_artifact(record, place.revision, hub, place.repo_id) == folders[name]
    for name in ("teacher", "unlearned"):
        assert (folders[name] / "base" / "model.safetensors").is_file()
        assert not (folders[name] / "model.safetensors").exists()
    assert (folders["again"] / "base" / "adapter_config.json").is_file()
    assert (folders["again"] / "base" / "base" / "model.safetensors").is_file()


def _pull(hub, place):
    return hub.pull(place.repo_type, place.repo_id, place.revision, place.folder)
