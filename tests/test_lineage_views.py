"""Lineage as JSON and Mermaid, and the difference of two artifacts, on a real run."""

import json

from conftest import cli

from erpd_hub.hub.client import connect
from erpd_hub.lineage import ancestry, locate, record_at
from erpd_hub.lineage_views import as_data, as_mermaid, differences


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
    told = cli("lineage", "diff", "local/micro-r1-student", "local/micro-r1-control", home=micro.home).stdout
    assert "advantage" in told and "outcome" in told
    same = cli("lineage", "diff", "local/micro-r1-student", "local/micro-r1-student", "--json", home=micro.home).stdout
    assert json.loads(same) == {}
