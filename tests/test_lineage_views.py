"""Lineage as JSON and Mermaid, and the difference of two artifacts, on a real run."""

import json

import pytest
from conftest import cli

from erpd_hub.display import print_findings
from erpd_hub.errors import ArtifactError
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import ancestry, locate, record_at, verify
from erpd_hub.lineage_views import as_data, as_mermaid, as_text, differences, incomparable
from erpd_hub.run_files import run_artifact


def test_graph_as_json_holds_every_ancestor_once(micro) -> None:
    hub = connect("local")
    graph = as_data(ancestry(hub, locate(hub, "local/micro-r1-student")))
    first = graph["nodes"][0]
    assert (first["stage"], first["step"], first["repo_id"]) == ("distill", "student", "local/micro-r1-student")
    places = [(node["repo_id"], node["revision"], node["folder"]) for node in graph["nodes"]]
    assert len(places) == len(set(places))
    assert {node["stage"] for node in graph["nodes"]} >= {"base", "prompts", "rollout", "score", "teacher", "signal"}
    above = {edge["to"] for edge in graph["edges"]}
    roots = [node["stage"] for node in graph["nodes"] if node["id"] not in above]
    assert sorted(roots) == ["base", "prompts"]
    signal = next(node["id"] for node in graph["nodes"] if node["stage"] == "signal")
    assert {"from": signal, "to": 0, "role": "signal"} in graph["edges"]


def test_text_names_every_ancestor_in_full_and_draws_each_once(micro) -> None:
    hub = connect("local")
    root = ancestry(hub, locate(hub, "local/micro-r1-student-weak"))
    lines = as_text([root]).splitlines()
    assert lines[0].startswith("distill step 2  local/micro-r1-student-weak@")
    assert all(line.endswith("(above)") or len(line.rpartition("@")[2]) == 10 for line in lines)
    assert any("init: unlearned  local/micro-r1-unlearned@" in line for line in lines)
    again = [line for line in lines if "local/micro-r1-rollouts@" in line]
    assert [line.endswith("(above)") for line in again] == [False] + [True] * (len(again) - 1)
    assert as_text([root], most=3).splitlines() == [*lines[:3], f"... and {len(lines) - 3} lines more"]
    shown = cli("lineage", "--format", "tree", "local/micro-r1-student-weak", home=micro.home).stdout
    assert shown.splitlines() == lines


def test_what_is_missing_altered_or_no_record_is_told_apart(micro_copy, capsys) -> None:
    hub = connect("local")
    hub.api.delete_repo("local/micro-r1-mse")
    hub.api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="local/micro-r1-unlearned")
    assert print_findings(verify(hub, locate(hub, "local/micro-r1-unlearned")))
    said = capsys.readouterr().out
    assert "ALTERED  local/micro-r1-unlearned@main" in said and "MISSING  local/micro-r1-mse@" in said
    assert "3 checked, 2 missing or altered (1 missing, 1 altered)" in said
    hub.api.upload_file(path_or_fileobj=b"[", path_in_repo="lineage.json", repo_id="local/micro-r1-teacher")
    with pytest.raises(ArtifactError, match=r"local/micro-r1-teacher@\w+/lineage.json: Invalid JSON"):
        locate(hub, "local/micro-r1-teacher@main")
    with pytest.raises(ArtifactError, match="it is no artifact of erpd-hub"):
        locate(hub, "local/erpd-leaderboard")
    with pytest.raises(ArtifactError, match="in folders: add one of base/"):
        locate(hub, "local/micro-details")


def test_a_run_and_a_step_name_an_artifact(micro) -> None:
    hub = connect("local")
    assert run_artifact("micro:student").startswith("local/micro-r1-student@")
    assert locate(hub, run_artifact("micro:r1/student")) == locate(hub, "local/micro-r1-student")
    assert record_at(hub, locate(hub, run_artifact("micro:teacher@step-3"))).saved_step == 3
    assert run_artifact("local/micro-r1-student") == "local/micro-r1-student"
    probe = locate(hub, "local/micro-r1-probe/teacher@step-3")
    assert probe.folder == "teacher@step-3", "the @ is the folder's"
    assert locate(hub, f"local/micro-r1-probe/teacher@step-3@{probe.revision}") == probe
    with pytest.raises(ArtifactError, match=r"micro:stduent: expected one of base, .*did you mean 'student'"):
        run_artifact("micro:stduent")


def test_two_kinds_are_said_before_their_differences(micro) -> None:
    hub = connect("local")
    student, control, prompts = (record_at(hub, locate(hub, f"local/micro-r1-{name}"))
                                 for name in ("student", "control", "prompts"))  # fmt: skip
    assert incomparable(student, control) == ""
    assert incomparable(student, prompts).startswith("of different kinds (checkpoint made by distill, prompts made by")


def test_mermaid_has_a_line_for_every_node_and_edge(micro) -> None:
    hub = connect("local")
    root = ancestry(hub, locate(hub, "local/micro-r1-student"))
    data, lines = as_data(root), as_mermaid(root).splitlines()
    assert lines[0] == "graph LR"
    assert len(lines) == 1 + len(data["nodes"]) + len(data["edges"])
    assert any('n0["student: distill' in line for line in lines)


def test_difference_names_what_was_made_otherwise(micro) -> None:
    hub = connect("local")
    student, control = (record_at(hub, locate(hub, f"local/micro-r1-{name}")) for name in ("student", "control"))
    found = differences(student, control)
    assert found["recipe"]["advantage"] == ("signal", "outcome")
    assert "signal" in found["inputs"] and "rollouts" not in found["inputs"]
    assert "environment" not in found
    assert found["result"]["digest"] == (student.digest, control.digest)
    assert differences(student, student) == {}


def test_commands(micro) -> None:
    shown = json.loads(cli("lineage", "local/micro-r1-student", "--format", "json", home=micro.home).stdout)
    assert shown["schema"] == "erpd-hub/lineage-graph/v1"
    assert cli("lineage", "local/micro-r1-student", "--format", "mermaid", home=micro.home).stdout.startswith(
        "graph LR"
    )
    told = cli("lineage", "diff", "micro:student", "local/micro-r1-control", home=micro.home).stdout
    assert "advantage" in told and "outcome" in told and "of different kinds" not in told
    same = cli("lineage", "diff", "local/micro-r1-student", "local/micro-r1-student", "--json", home=micro.home).stdout
    assert json.loads(same) == {}
