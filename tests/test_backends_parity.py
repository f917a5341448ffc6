"""lighteval and evalscope on the same stored samples as ours: each difference is known, and so is its cause.

Runs where the harness's environment is built (`make test-lighteval`, `make test-evalscope`).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend_samples import CASES, write_details
from completions_server import CompletionsServer, serving, solved
from conftest import cli
from starlette.responses import JSONResponse

from erpd_hub.evaluation.backends.environments import Harness, find_python
from erpd_hub.evaluation.backends.imports import import_details
from erpd_hub.evaluation.backends.live import Server, run_evalscope
from erpd_hub.evaluation.backends.opinions import Foreign, foreign
from erpd_hub.evaluation.backends.regrade import regrade
from erpd_hub.evaluation.backends.replay import run_backend
from erpd_hub.evaluation.backends.sources import Stored, open_details

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


@pytest.fixture(scope="module", params=HARNESSES)
def harness(request: pytest.FixtureRequest) -> Harness:
    return request.param


@pytest.fixture(scope="module")
def grader(harness: Harness) -> Iterator[Foreign]:
    """Its processes, once for all tests: importing a harness is most of the time they take."""
    with foreign(harness, seconds=45) as opened:
        yield opened


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder = tmp_path_factory.mktemp("details")
    write_details(folder, "hmmt_feb_2025")
    return open_details("local", str(folder))


def test_every_difference_is_known(stored: Stored, harness: Harness, grader: Foreign) -> None:
    result = regrade(stored.rows(), [harness], extract="boxed", harnesses={harness: grader})
    found = {
        (item.problem_id, item.k): (d.opinion.label, d.cause) for item in result.disagreements for d in item.differences
    }
    assert found == KNOWN[harness]


def test_its_own_run_scores_as_its_grader_does_and_is_imported(
    tmp_path: Path, stored: Stored, harness: Harness, grader: Foreign
) -> None:
    """The loop, metric and averages of the harness add nothing: what differs from our score is the grader's."""
    score = run_backend(harness, stored, grader=grader, keep=tmp_path / "out")
    assert score["avg"] == pytest.approx(score["avg_by_sample"], abs=5e-5)  # evalscope reports four digits
    assert (score["n"], score["k"], score["left_out"], score["withheld"]) == (len(CASES), 4, 0, 0)

    import_details(harness, tmp_path / "out", tmp_path / "ours", benchmark=stored.name, tool_version="pinned")
    imported = open_details("local", str(tmp_path / "ours"))
    again = regrade(imported.rows(), ["ours"], extract="boxed").tallies["ours"].labels
    for row in stored.rows():
        cut_off = row["verdict"] == "truncated"  # what lighteval does not keep, and a stored answer does not say
        assert cut_off or again[row["problem_id"]][row["k"]] == row["label"]


def test_hostile_texts_get_no_verdict_and_reach_nothing(tmp_path: Path, grader: Foreign) -> None:
    target = tmp_path / "target"
    texts = [
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{__import__('os').system('touch " + str(target) + r"')}",
        r"\boxed{\binom{10^{9}}{5 \cdot 10^{8}}}",
        r"\boxed{" + "{" * 5000 + "1" + "}" * 5000 + "}",
        r"\boxed{204}",
    ]
    labels = [
        opinion.label for opinion in grader.ask([{"gold": "204", "text": text, "integer": False} for text in texts])
    ]
    assert not target.exists()
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
    place = server.url.removeprefix("http://").removesuffix("/v1").encode()
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and place in path.read_bytes()]


@needs["evalscope"]
def test_evaluate_shows_evalscopes_score_beside_ours(tmp_path: Path) -> None:
    with serving(server := CompletionsServer()):
        keys = ["-b", "addition-1digit", "-k", "2", "limit=3", "--url", server.url, "--backend", "evalscope", "--json"]
        shown = json.loads(cli("evaluate", "endpoint:m", *keys, home=tmp_path / "home").stdout)
    (both,), (row,) = shown["backends"], shown["checkpoints"]
    assert (both["ref"], both["samples"], both["disagreements"]) == ("endpoint:m", 6, [])
    assert [item["avg"] for item in both["graders"]] == [row["avg"]] * 2
    assert both["backends"][0]["avg"] == pytest.approx(row["avg"], abs=5e-5)
