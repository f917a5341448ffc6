"""The pipeline end to end on a tiny real model, through the command line, the embedded Hub and its real clients."""

import getpass
import hashlib
import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import MICRO, cli
from published import push_files

from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import ancestry, locate, verify
from erpd_hub.samples import read_rows


def test_the_summary_has_every_checkpoint_with_its_numbers(micro):
    summary = micro.summary
    assert (summary["schema"], summary["run"], summary["seed"]) == ("erpd-hub/summary/v1", "micro", 0)
    rows = {row["ref"]: row for row in summary["checkpoints"]}
    roles = {ref: row["role"] for ref, row in rows.items()}
    assert roles == {
        "base": "base",
        "teacher@step-3": "teacher",
        "teacher": "teacher",
        "student": "student",
        "unlearned": "unlearned",
        "control": "control",
    }
    assert rows["base"]["kl_to_base"] == 0
    assert rows["student"]["kl_to_base"] > 0
    assert rows["teacher@step-3"]["step"] == 3
    assert rows["control"]["kl_to_base"] is None  # it was not probed
    assert all(row["n"] == 8 and row["k"] == 4 and row["stderr"] is not None for row in rows.values())
    assert [a for a in summary["artifacts"] if a["reused"]] == [summary["artifacts"][0]]  # the base was there
    assert "r1/student" in micro.stderr


def test_the_second_run_makes_nothing(micro):
    again = json.loads(cli("run", MICRO, "--json", home=micro.home).stdout)
    assert all(item["reused"] for item in again["artifacts"])
    assert _identities(again) == _identities(micro.summary)
    assert [_measured(row) for row in again["checkpoints"]] == [_measured(row) for row in micro.summary["checkpoints"]]


def test_a_changed_student_leaves_everything_before_it_alone(micro, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(micro.home, home)
    changed = ("teacher.learning_rate=2e-3", "student.learning_rate=2e-3")
    done = cli("run", MICRO, *changed, "--until", "student", "--json", home=home)
    made = [item["step"] for item in json.loads(done.stdout)["artifacts"] if not item["reused"]]
    assert made == ["r1/teacher", "r1/score-teacher", "r1/signal", "r1/student"]
    back = json.loads(cli("run", MICRO, "--json", home=home).stdout)
    assert all(item["reused"] for item in back["artifacts"]), "the first ones are still there under their tags"


def test_the_dry_run_makes_nothing_and_says_what_would_be_made(micro, tmp_path):
    report = json.loads(cli("run", MICRO, "--dry-run", "--json", "seed=5", home=tmp_path / "new").stdout)
    assert {node["will"] for node in report["nodes"]} == {"make"}
    assert not (tmp_path / "new" / "work").exists()
    report = json.loads(cli("run", MICRO, "--dry-run", "--json", home=micro.home).stdout)
    assert {node["will"] for node in report["nodes"]} == {"reuse"}
    rollouts = next(node for node in report["nodes"] if node["step"] == "r1/rollouts")
    assert rollouts["tokens"] == 16 * 4 * 24
    assert rollouts["inputs"] == {"prompts": ["r1/prompts"], "policy": ["r1/base"]}


def test_real_clients_read_what_was_pushed(micro):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub = connect("local")
    student = next(item for item in micro.summary["artifacts"] if item["step"] == "r1/student")
    folder = hub.pull("model", student["repo"], student["revision"])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "3+4?"}], add_generation_prompt=True)
    assert model.num_parameters() > 10_000
    assert tokenizer.decode(prompt["input_ids"]) == "<|user|>3+4?<|assistant|>"
    tags = {tag.name for tag in hub.api.list_repo_refs(student["repo"]).tags}
    finished = f"fp-{student['fingerprint'][:16]}"
    assert tags == {"step-4", finished, f"{finished}-step-4"}, "step 2 is saved but nothing refers to it"
    rollouts = next(item for item in micro.summary["artifacts"] if item["step"] == "r1/rollouts")
    rows = load_dataset(str(hub.pull("dataset", rollouts["repo"], rollouts["revision"])), split="train")
    assert rows.num_rows == 64
    info = hub.api.model_info(student["repo"])
    assert {"erpd", "erpd-stage:distill", "erpd-run:micro"} <= set(info.tags)
    assert info.card_data.base_model == "local/micro-r1-base"
    assert info.private


def test_leaderboard_rows_follow_from_the_samples(micro):
    hub = connect("local")
    folder = hub.pull("dataset", "local/erpd-leaderboard", hub.resolve("dataset", "local/erpd-leaderboard"))
    rows = pq.read_table(folder / "data" / "micro.parquet").to_pylist()
    assert len(rows) == 6
    assert any(row["avg"] > 0 for row in rows), "a comparison of zeros would say nothing"
    for row in rows:
        details = hub.pull("dataset", row["details_repo"], row["details_revision"], row["details_folder"])
        labels = [sample["label"] for sample in read_rows(details)]
        assert row["avg"] == sum(labels) / len(labels)


def test_lineage_reaches_the_roots_and_says_nothing_it_should_not(micro):
    hub = connect("local")
    root = ancestry(hub, locate(hub, "local/micro-r1-student-weak"))
    stages, pending = set(), [root]
    while pending:
        node = pending.pop()
        assert node.record is not None
        stages.add(node.record.stage)
        text = node.record.to_json()
        for secret in (str(micro.home), socket.gethostname(), "127.0.0.1", f'"{getpass.getuser()}"'):
            assert secret not in text
        pending += [above for _, above in node.inputs]
    assert stages == {"base", "prompts", "rollout", "score", "teacher", "unlearned", "signal", "distill"}


@pytest.mark.parametrize("name", ["lineage.json", "README.md", "data/train-00000.parquet"])
def test_verify_finds_one_changed_byte_of_a_stored_file(micro, tmp_path, monkeypatch, name):
    """In the record, in the card, in the data: each is told by the Hub's own tree, the last by its hash too; also where
    the user's own cache has the file as it was."""
    home = tmp_path / "home"
    shutil.copytree(micro.home, home)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    _flip_a_byte(home, "local/micro-r1-prompts", name)
    report = cli("lineage", "verify", "local/micro-r1-student", home=home, expect=1).stdout
    altered = [line for line in report.splitlines() if line.startswith("ALTERED")]
    assert len(altered) == 1
    assert "local/micro-r1-prompts" in altered[0]


def _flip_a_byte(home, repo_id, name):
    """Change one byte of a file at the finished tag, in the server's store behind its back."""
    code = (
        "from erpd_hub.hub.connecting import connect\n"
        "from erpd_hub.lineage import locate\n"
        f"hub = connect('local'); place = locate(hub, {repo_id!r})\n"
        f"hub.api.hf_hub_download(place.repo_id, {name!r}, repo_type=place.repo_type, revision=place.revision)\n"
        f"print(hub.file(place.repo_type, place.repo_id, place.revision, {name!r}))"
    )
    stored = Path(cli(home=home, script=("-c", code)).stdout.strip()).read_bytes()
    sha256, at = hashlib.sha256(stored).hexdigest(), len(stored) // 2
    changed = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
    with sqlite3.connect(home / "hub" / "hub.sqlite") as database:
        assert database.execute("UPDATE blobs SET data = ? WHERE sha256 = ?", (changed, sha256)).rowcount == 1


def test_a_verified_forgery_of_the_record_is_found(micro):
    """A record that was changed together with nothing else no longer follows from itself."""
    hub = connect("local")
    place = locate(hub, "local/micro-r1-prompts")
    record = hub.lineage(place.repo_type, place.repo_id, place.revision)
    forged = record.model_copy(update={"seed": 99})
    sha = push_files(hub, "dataset", place.repo_id, {"lineage.json": forged.to_json().encode()}, message="forged")
    findings = list(verify(hub, type(place)(place.repo_type, place.repo_id, sha)))
    assert any("fingerprint" in problem for problem in findings[0].problems)
    assert not next(iter(verify(hub, place))).problems, "the tagged commit is as it was"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "quikstart"], 2, "did you mean 'quickstart'"),
        (["run", str(MICRO), "teacher.los=1"], 2, "did you mean 'loss'"),
        (["run", str(MICRO), "--until", "studnt"], 2, "did you mean 'student'"),
        (["lineage", "local/absent"], 2, "no such model or dataset"),
        (["lineage", "verify", "nonsense"], 2, "expected namespace/name"),
        (["run", str(MICRO), "rollouts.policy=local/absent", "--until", "rollouts"], 2, "no such model"),
        (["run", str(MICRO), "seed=77", "--from", "student"], 2, "not finished; run without --from"),
        (["run", str(MICRO), "hub.endpoint=ftp://x"], 2, "expected local or a URL"),
        (["teacher", "--name", "impA"], 2, "--name: expected lower-case letters, digits and dashes, got 'impA'"),
        (["teacher", "rollouts=local/micro-r1-prompts", "policy=local/micro-r1-base", "loss.type=ce", "steps=1"], 2,
         "expected rollouts, got local/micro-r1-prompts, which is prompts"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(micro, arguments, code, message):
    done = cli(*arguments, home=micro.home, expect=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_single_stage_by_itself(micro):
    words = ["--rollouts", "local/micro-r1-rollouts", "policy=local/micro-r1-base", "loss.type=mse", "steps=1"]
    done = cli("teacher", *words, "--name", "alone", "--json", home=micro.home)
    artifacts = json.loads(done.stdout)["artifacts"]
    assert [item["repo"] for item in artifacts] == ["local/alone-r1-teacher"]
    hub = connect("local")
    record = hub.lineage("model", "local/alone-r1-teacher", artifacts[0]["revision"])
    recorded = {item.role: item.repo_id for item in record.inputs}
    assert recorded == {"rollouts": "local/micro-r1-rollouts", "init": "local/micro-r1-base"}


def _identities(summary):
    return {item["step"]: (item["fingerprint"], item["digest"]) for item in summary["artifacts"]}


def _measured(row):
    return {name: value for name, value in row.items() if name != "seconds"}
