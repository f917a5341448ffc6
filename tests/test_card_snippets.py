"""Every kind of card as a stranger uses it: its front matter as the Hub's client and the Hub itself check it, and the
code in it, run from the page."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MICRO

from erpd_hub.hub.connecting import connect
from erpd_hub.model_cards import KINDS
from erpd_hub.pipeline import run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe, read_recipe

STRANGER = """
import contextlib, io, json, os, sys
from huggingface_hub import DatasetCard, HfApi, ModelCard, get_session

for name, repo_type, repo_id in json.load(sys.stdin):
    found = {}
    try:
        path = HfApi().hf_hub_download(repo_id, "README.md", repo_type=repo_type)
        card = {"model": ModelCard, "dataset": DatasetCard}[repo_type].load(path)
        asked = {"repoType": repo_type, "content": str(card)}
        checked = get_session().post(os.environ["HF_ENDPOINT"] + "/api/validate-yaml", json=asked)
        assert checked.status_code == 200, checked.text
        found["data"] = card.data.to_dict()
        for number, code in enumerate(card.text.split("```python\\n")[1:]):
            names = {}
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(code.split("\\n```")[0], names)
            found[number] = {"said": said.getvalue()}
            for key in ("rows", "noise", "scores"):
                if key in names:
                    found[number][key] = len(names[key])
            for key in ("model", "tokenizer", "verdict"):
                if key in names:
                    found[number][key] = type(names[key]).__name__
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps([name, found]), flush=True)
"""
"""Runs our own snippets: what is in a card is what a reader pastes."""


@pytest.fixture(scope="module")
def pages(finished_micro, tmp_path_factory) -> dict[str, tuple[str, str, Path, Any]]:
    """By kind and stage: the repository of a real run, its card, and what became of its code."""
    home = tmp_path_factory.mktemp("cards") / "home"
    shutil.copytree(finished_micro.home, home)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ERPD_HOME", str(home))
        outcome = run_plan(make_plan(build_recipe(_recipe(), "micro.yaml", command="run micro.yaml")))
        hub = connect("local")
        chosen = {"leaderboard": ("dataset", "local/erpd-leaderboard")}
        for item in outcome.finished:
            record = item.record
            name = record.step if "adapter" in record.step else f"{record.kind} {record.stage}"
            chosen.setdefault(name, (record.repo_type, record.repo_id))
        asked = [[name, *place] for name, place in chosen.items()]
        environment = {**os.environ, "HF_ENDPOINT": hub.api.endpoint, "HF_HOME": str(home / "stranger")}
        done = subprocess.run([sys.executable, "-c", STRANGER], input=json.dumps(asked), env=environment, text=True,
                              capture_output=True, timeout=500, cwd=home)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found = dict(json.loads(line) for line in done.stdout.splitlines())
        texts = {name: Path(hub.api.hf_hub_download(repo, "README.md", repo_type=kind)).read_text("utf-8")
                 for name, (kind, repo) in chosen.items()}  # fmt: skip
    return {name: (*place, texts[name], found[name]) for name, place in chosen.items()}


def _recipe() -> dict[str, Any]:
    """The micro run, whose artifacts are there, and what it has no kind of."""
    data = read_recipe(str(MICRO), [])[1]
    evaluated = {name: data["steps"]["evaluate"][name] for name in ("k", "limit", "decoding")}
    trained = {"rollouts": "rollouts", "learning_rate": 1e-3, "steps": 1, "prompts_per_step": 8}
    data["steps"] |= {
        "critic": trained,
        "gate": {"teacher": "teacher", "benchmark": "addition-1digit", **evaluated},
        "adapter": {
            "stage": "teacher",
            "loss": {"type": "ce"},
            "lora": {"r": 2},
            "save_steps": [1],
            **trained,
            "steps": 2,
        },
        "adapter-unlearned": {"stage": "unlearned", "teacher": "adapter@step-1"},
    }
    return data


def test_the_code_of_every_kind_of_card_runs_and_its_front_matter_is_accepted(pages) -> None:
    assert {name.split()[0] for name in pages} == {*KINDS, "adapter", "adapter-unlearned", "leaderboard"}
    errors = {name: found["error"] for name, (*_, found) in pages.items() if "error" in found}
    assert errors == {}
    assert all("0" in found for *_, found in pages.values()), "each says how to load it"
    loaded = {name: {key: value for key, value in found["0"].items() if value} for name, (*_, found) in pages.items()}
    assert loaded["checkpoint distill"]["model"].endswith("ForCausalLM")
    asked = ("checkpoint base", "checkpoint teacher", "checkpoint distill", "adapter", "adapter-unlearned")
    assert all("said" in loaded[name] for name in asked), "an answer"
    assert loaded["adapter"]["model"].startswith("Peft") and loaded["adapter-unlearned"]["model"].startswith("Peft")
    assert loaded["critic critic"]["model"].endswith("ForTokenClassification")
    assert loaded["gate gate"] == {"verdict": "dict"}
    for name in (
        "prompts prompts",
        "rollouts rollout",
        "logprobs score",
        "signal signal",
        "probe probe",
        "leaderboard",
    ):
        assert max(value for value in loaded[name].values()) > 0, name
    details = next(found for name, (*_, found) in pages.items() if name.startswith("details"))
    assert 0.0 <= float(details["0"]["said"]) <= 1.0


def test_every_card_answers_what_a_stranger_asks(pages) -> None:
    for name, (_, repo_id, card, _found) in pages.items():
        headings = re.findall(r"(?m)^## (.+)$", card)
        assert {"Intended use", "How to load it", "Limits"} <= set(headings), name
        if name == "leaderboard":
            continue
        assert {"Where it comes from", "How it was made", "Results"} <= set(headings), name
        assert "erpd-hub run micro.yaml --until " in card, name
        drawn = re.search(r"(?ms)^```text\n(.*?)^```$", card.split("## Where it comes from")[1])
        assert drawn is None if "root of the lineage" in card else repo_id in drawn[1].splitlines()[0], name
    _, _, student, found = pages["checkpoint distill"]
    assert found["data"]["base_model"] == "local/micro-r1-base"
    assert set(found["data"]["datasets"]) == {"local/micro-r1-rollouts", "local/micro-r1-signal"}
    tree = re.search(r"(?ms)^```text\n(.*?)^```$", student)[1]
    assert all(f"local/micro-r1-{step}@" in tree for step in ("base", "prompts", "rollouts", "teacher", "signal"))
    assert "| KL to base | entropy |" in student and "local/micro-r1-probe/student@" in student
    scores = student.split("## Evaluation")[1].split("## How to load it")[0]
    assert "- its start, [`local/micro-r1-base@" in scores and "- its teacher, [`local/micro-r1-teacher@" in scores
