"""A leaderboard that somebody has written to who means no good: odd rows, chosen samples, circles, escape sequences."""

from io import BytesIO

import published
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import push_files
from pydantic import ValidationError
from typer.testing import CliRunner

from erpd_hub.artifacts import InputRecord
from erpd_hub.cli import app
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.leaderboard import LEADERBOARD_SCHEMA, leaderboard_bytes
from erpd_hub.hub.client import Hub
from erpd_hub.hub.connecting import connect
from erpd_hub.lineage import Ancestor
from erpd_hub.plain import plain
from erpd_hub.publish import publish_leaderboard
from erpd_hub.results.board import grouped
from erpd_hub.results.founded import Planned, _missing, _row_problem
from erpd_hub.results.origin import evaluation_of
from erpd_hub.results.published import odd_row, published_rows, shown_rows
from erpd_hub.results.verify import row_problems, verify_rows
from erpd_hub.samples import sample_seed

BOARD = "local/erpd-leaderboard"
LABELS: list[list[int | None]] = [[1, 0], [1, None]]
PLAN = Planned("toy", seed=0, k=2, problems=2)
ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"


@pytest.fixture
def hub() -> Hub:
    return connect("local")


def published_row(hub: Hub) -> dict:
    plan, found = published.done(hub, "one", ["a"], LABELS)
    publish_leaderboard(hub, plan, found)
    (row,) = published_rows(hub, BOARD).rows["data/one.parquet"]
    return row


def sample(problem_id: str, k: int, **changes: object) -> dict:
    row = {"benchmark": "toy", "problem_id": problem_id, "k": k, "seed": sample_seed(0, "toy", problem_id, k)}
    return {**row, "finish_reason": "stop", "verdict": "correct", **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 2, "seed": sample_seed(0, "toy", "p", 2)}, "expected a sample below 2"),
        ({"seed": 7}, "not drawn with this sample's seed"),
        ({"benchmark": "other"}, "of other, where toy was evaluated"),
        ({"finish_reason": "length"}, "the verdict correct on a response that ended by length"),
        ({"finish_reason": "error"}, "the verdict correct on a response that ended by error"),
        ({"verdict": "truncated"}, "the verdict truncated on a response that ended by stop"),
    ],
)
def test_a_sample_that_was_not_planned_is_found(changes: dict, said: str) -> None:
    assert _row_problem(sample("p", 0), PLAN) is None
    assert _row_problem(sample("p", 0, finish_reason="error", verdict="ungradable"), PLAN) is None
    assert said in str(_row_problem({**sample("p", 0), **changes}, PLAN))


def test_chosen_samples_are_found() -> None:
    whole = [sample(name, k) for name in "pq" for k in range(2)]
    assert _missing(whole, PLAN) == []
    assert _missing(whole[:3], PLAN) == ["q: 1 of 2 samples"]
    assert _missing([*whole, whole[0]], PLAN) == ["p 0: 2 times"]
    assert _missing(whole[:2], PLAN) == ["samples of 1 problems, of 2 that were evaluated"]


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        ({"k": 4}, "0: 2 of 4 samples"),
        ({"definitions": {published.BENCHMARK: {"num_problems": 3}}}, "samples of 2 problems, of 3"),
        ({"benchmarks": ["aime_2025"]}, f"of {published.BENCHMARK}, where aime_2025 was evaluated"),
    ],
)
def test_fewer_samples_than_the_fingerprint_covers_do_not_verify(hub: Hub, planned: dict, said: str) -> None:
    checkpoint = published.push_base(hub, "a")
    details = published.push_details(hub, "one", checkpoint, LABELS, identity=planned)
    plan = published.plan_of("one", ["a"])
    publish_leaderboard(hub, plan, [published.finished(plan.nodes[0], details, checkpoint[1])])
    (row,) = published_rows(hub, BOARD).rows["data/one.parquet"]
    assert said in "".join(row_problems(hub, row))


@pytest.mark.parametrize("revision", ["main", "A" * 40, "0" * 40 + "\n"])
def test_an_input_is_at_a_commit_and_inside_its_repository(revision: str) -> None:
    with pytest.raises(ValidationError, match="revision"):
        InputRecord(role="details", kind="details", digest="d", revision=revision)
    for folder in ("..", "/etc", "a/../b", "a//b"):
        with pytest.raises(ValidationError, match="folder"):
            InputRecord(role="details", kind="details", digest="d", folder=folder)


def test_a_lineage_in_a_circle_ends(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sha, record = published.push_details(hub, "one", published.push_base(hub, "a"), LABELS)
    circle = record.model_copy(update={"stage": "judge", "inputs": (published.as_input("details", sha, record),)})
    monkeypatch.setattr(hub, "lineage", lambda *place: circle)  # as a Hub could answer that lies
    with pytest.raises(ArtifactError, match="got a circle"):
        evaluation_of(hub, circle)


def test_a_long_line_of_ancestors_is_drawn() -> None:
    from erpd_hub.lineage_views import as_text

    root = here = Ancestor(None, "0" * 64, None)
    for number in range(1500):
        above = Ancestor(None, f"{number:064x}", None)
        here.inputs.append(("init", above))
        here = above
    assert as_text([root]).count("\n") == 1501
    place = {"base_repo": "b", "base_revision": "r", "run": "one", "role": "student", "step": None, "benchmark": "x"}
    rows = [
        {**place, "checkpoint": f"c{i}", "checkpoint_repo": f"c{i}", "checkpoint_revision": "r",
         "teacher_repo": f"c{i - 1}", "teacher_revision": "r"}
        for i in range(1500)
    ]  # fmt: skip
    ((_, found),) = grouped(rows)
    assert sorted(depth for depth, _ in found) == list(range(1, 1501))


def test_an_odd_row_is_left_out_and_said(hub: Hub) -> None:
    """The others are shown and verified as ever."""
    row = published_row(hub)
    assert odd_row(row) is None
    odd = {
        "details_revision: expected a commit of 40 hex digits": {"details_revision": "main"},
        "interval: expected two ends": {"interval": [0.5]},
        "harness: expected a JSON object": {"harness": "[]"},
        "run: expected a value": {"run": None},
    }
    content = leaderboard_bytes([row | changes for changes in odd.values()])
    push_files(hub, "dataset", BOARD, {"data/odd.parquet": content}, message="odd")
    shown = CliRunner().invoke(app, ["leaderboard"], env={"COLUMNS": "300"})
    assert shown.exit_code == 0
    assert "1 of 1 rows" in shown.stdout
    for number, (said, changes) in enumerate(odd.items()):
        assert f"data/odd.parquet, row {number}: left out: {said}" in shown.stdout
        assert said in row_problems(hub, row | changes)[0]


def test_files_that_are_no_leaderboard_are_said(hub: Hub) -> None:
    row = published_row(hub)
    buffer = BytesIO()
    pq.write_table(pa.table({"run": [["a", "list"]], "details_repo": [{"a": 1}]}), buffer)
    files = {"data/x.parquet": b"no parquet", "data/y.parquet": buffer.getvalue()}
    push_files(hub, "dataset", BOARD, files, message="odd")
    found = published_rows(hub, BOARD)
    assert (list(found.rows), list(found.unread)) == (["data/one.parquet"], ["data/x.parquet", "data/y.parquet"])
    assert all(row.get(name) == value for name, value in shown_rows(found)[0][0].items())
    done = CliRunner().invoke(app, ["leaderboard", "verify"], env={"COLUMNS": "300"})
    assert (done.exit_code, done.stdout.count("DIFFERS"), done.stdout.count("ok ")) == (1, 2, 1)


def test_a_record_of_odd_words_is_its_rows_problem(hub: Hub) -> None:
    checkpoint = published.push_base(hub, "a")
    details = published.push_details(hub, "one", checkpoint, LABELS)
    row = published_row(hub)
    name = f"{row['details_folder']}/lineage.json"
    odd = details[1].model_copy(update={"metrics": {**details[1].metrics, "judge": "yes"}})
    sha = push_files(hub, "dataset", row["details_repo"], {name: odd.to_json().encode()}, message="odd")
    (finding,) = verify_rows(hub, {"f": [row | {"details_revision": sha}]})
    assert finding.problems


def test_nothing_but_the_folder_of_details_is_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    row = published_row(hub)
    monkeypatch.setattr(hub.api, "snapshot_download", None, raising=False)
    for folder in ("*", "..", "", "local--*/addition-1digit", "/etc", "local--a"):
        (problem,) = row_problems(hub, row | {"details_folder": folder})
        assert "expected a folder of the repository" in problem or "no lineage.json" in problem


def test_too_much_is_not_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    row = published_row(hub)
    monkeypatch.setattr("erpd_hub.results.verify._LARGEST", 1000)
    assert "expected at most 1000 bytes" in row_problems(hub, row)[0]


def test_a_pattern_is_a_name(hub: Hub) -> None:
    row = published_row(hub)
    with hub.fresh_download("dataset", row["details_repo"], row["details_revision"], "local--*") as root:
        assert not list(root.glob("local--*"))
    outside = hub.fresh_download("dataset", row["details_repo"], row["details_revision"], "../x")
    with pytest.raises(ArtifactError, match="expected a folder of it"), outside:
        pass


def test_no_escape_sequence_reaches_the_terminal(hub: Hub) -> None:
    row = published_row(hub)
    odd = row | {"checkpoint": f"local/{ESCAPE}", "benchmark": ESCAPE, "details_folder": ESCAPE, "run": ESCAPE}
    files = {"data/odd.parquet": leaderboard_bytes([odd, odd | {"harness": ESCAPE}])}
    push_files(hub, "dataset", BOARD, files, message="odd")
    for words in ([], ["--details"], ["verify"]):
        done = CliRunner().invoke(app, ["leaderboard", *words])
        assert "?]0;owned??[2J?" in done.stdout
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)
    assert plain("a\tb\x1b[2Jé😀") == "a?b?[2Jé😀"
    assert set(LEADERBOARD_SCHEMA.names) >= set(odd)
