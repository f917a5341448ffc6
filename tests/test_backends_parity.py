"""lighteval and evalscope on the same stored samples as ours: each difference is known, and so is its cause.

Runs where the harness's environment is built (`make test-lighteval`, `make test-evalscope`).
"""

from pathlib import Path

import pytest
from backend_samples import CASES, write_details
from completions_server import CompletionsServer, serving, solved
from starlette.responses import JSONResponse

from erpd_hub.evaluation.backends.environments import Harness, find_python
from erpd_hub.evaluation.backends.imports import import_details
from erpd_hub.evaluation.backends.live import Server, run_evalscope
from erpd_hub.evaluation.backends.opinions import foreign
from erpd_hub.evaluation.backends.regrade import regrade
from erpd_hub.evaluation.backends.replay import run_backend
from erpd_hub.evaluation.backends.sources import open_details

BUILT = {
    harness: find_python(harness) is not None for harness in ("lighteval", "evalscope")
}  # before a test's own home
needs = {
    harness: pytest.mark.skipif(not built, reason=f"its environment is not built: make test-{harness}")
    for harness, built in BUILT.items()
}
HARNESSES = [pytest.param(harness, marks=needs[harness]) for harness in BUILT]

KNOWN: dict[str, dict[tuple[str, int], tuple[int, str]]] = {
    "lighteval": {
        ("integer", 2): (1, "extraction"),  # a number in prose, where we want a box
        ("half", 2): (1, "truncation"),
        ("half", 3): (1, "extraction"),  # avg@n sees the thinking block
        ("pair", 1): (1, "equivalence"),  # a set for a tuple
        ("degrees", 3): (0, "extraction"),  # two boxes are read as one set
    },
    "evalscope": {
        ("integer", 2): (1, "extraction"),
        ("half", 2): (1, "truncation"),
        ("pair", 1): (1, "equivalence"),
        ("degrees", 3): (0, "extraction"),
    },
}
"""Where a harness's label differs from ours: its label and the cause."""


@pytest.mark.parametrize("harness", HARNESSES)
def test_every_difference_is_known(tmp_path: Path, harness: Harness) -> None:
    write_details(tmp_path, "hmmt_feb_2025")
    stored = open_details("local", str(tmp_path))
    result = regrade(stored.rows(), [harness], extract="boxed")
    found = {
        (item.problem_id, item.k): (d.opinion.label, d.cause) for item in result.disagreements for d in item.differences
    }
    assert found == KNOWN[harness]


@pytest.mark.parametrize("harness", HARNESSES)
def test_its_own_run_scores_as_its_grader_does_and_is_imported(tmp_path: Path, harness: Harness) -> None:
    """The loop, metric and averages of the harness add nothing: what differs from our score is the grader's."""
    write_details(tmp_path / "details", "hmmt_feb_2025")
    stored = open_details("local", str(tmp_path / "details"))
    score = run_backend(harness, stored, seconds=60, keep=tmp_path / "out")
    assert score["avg"] == pytest.approx(score["avg_by_sample"], abs=5e-5)  # evalscope reports four digits
    assert (score["n"], score["k"], score["left_out"], score["withheld"]) == (len(CASES), 4, 0, 0)

    import_details(harness, tmp_path / "out", tmp_path / "ours", benchmark=stored.name, tool_version="pinned")
    imported = open_details("local", str(tmp_path / "ours"))
    again = regrade(imported.rows(), ["ours"], extract="boxed").tallies["ours"].labels
    for row in stored.rows():
        cut_off = row["verdict"] == "truncated"  # what lighteval does not keep, and a stored answer does not say
        assert cut_off or again[row["problem_id"]][row["k"]] == row["label"]


@pytest.mark.parametrize("harness", HARNESSES)
def test_hostile_texts_get_no_verdict_and_reach_nothing(tmp_path: Path, harness: Harness) -> None:
    target = tmp_path / "target"
    texts = [
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{__import__('os').system('touch " + str(target) + r"')}",
        r"\boxed{\binom{10^{9}}{5 \cdot 10^{8}}}",
        r"\boxed{" + "{" * 5000 + "1" + "}" * 5000 + "}",
        r"\boxed{204}",
    ]
    with foreign(harness, seconds=45) as workers:
        replies = workers.ask_all([{"gold": "204", "text": text, "integer": False} for text in texts])
    assert not target.exists()
    labels = [reply.get("label") if isinstance(reply, dict) else None for reply in replies]
    assert labels[-1] == 1 and 1 not in labels[:-1]


@needs["evalscope"]
def test_evalscope_samples_from_a_server_by_itself(tmp_path: Path) -> None:
    """Its own run on our problems: each sample is asked for, without a seed, and becomes a row of ours."""

    def answer(server: CompletionsServer, body: dict) -> JSONResponse:
        choice = {**solved({**body, "seed": len(server.bodies)}), "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
        about = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        return JSONResponse({**about, "choices": [choice], "usage": usage})

    server = CompletionsServer(answer)
    with serving(server):
        report = run_evalscope(
            Server("m", server.url, 2), "addition-1digit", tmp_path / "out", endpoint="local", k=3, limit=5
        )
    assert len(server.bodies) == report["samples"] == 15
    assert not any(body.get("seed") for body in server.bodies)
    assert {body["max_tokens"] for body in server.bodies} == {32}
    stored = open_details("local", str(tmp_path / "out" / "details"))
    ours = regrade(stored.rows(), ["ours"], extract="boxed").tallies["ours"].summary()
    assert ours["avg"] == pytest.approx(report["avg"], abs=5e-5)
    kept = [path for path in (tmp_path / "out" / "details").rglob("*") if path.is_file()]
    assert not any(server.url.encode() in path.read_bytes() for path in kept)
