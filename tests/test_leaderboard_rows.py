"""Leaderboard rows are computed from samples, and the same samples give the same bytes."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from erpd_hub import summary
from erpd_hub.comparing.paper import get_experiment
from erpd_hub.config import EvaluateConfig
from erpd_hub.evaluation.benchmarks import BENCHMARKS
from erpd_hub.evaluation.leaderboard import LEADERBOARD_SCHEMA, leaderboard_bytes, leaderboard_row
from erpd_hub.plan import make_plan
from erpd_hub.recipe import load_recipe
from erpd_hub.results import rows
from erpd_hub.results.reported import reported, reported_notes, reported_tables


def a_row(checkpoint: str, labels: list[list[int | None]], probed: Mapping[str, float] = {}) -> dict:
    samples = [
        {
            "problem_id": str(i),
            "label": label,
            "verdict": "wrong" if label == 0 else "correct",
            "response_ids": [1, 2],
            "finish_reason": "stop",
            "gold": "7",
            "extracted": "7" if label else "8",
        }
        for i, row in enumerate(labels)
        for label in row
    ]
    told = {
        "run": "quick", "role": "student", "checkpoint": checkpoint, "checkpoint_repo": f"local/quick-{checkpoint}",
        "checkpoint_revision": "c" * 40, "step": 8, "benchmark": "addition", "version": 1, "selection": False,
        "details_repo": "local/quick-details", "details_folder": f"{checkpoint}/addition",
        "details_revision": "d" * 40, "fingerprint": "f" * 64, "pinned": True,
    }  # fmt: skip
    return leaderboard_row(told, samples, probed)


def test_figures_come_from_the_samples() -> None:
    student = a_row("student", [[1, 1], [1, 0]], {"kl_checkpoint_to_base": 0.01, "entropy": 0.05, "avg": 0.99})
    teacher = a_row("teacher", [[0, 0], [None, 1]])
    assert (student["avg"], student["n"], student["k"], student["mean_length"]) == (0.75, 2, 2, 2)
    assert student["stderr"] == pytest.approx(0.25)
    assert student["interval"] == [pytest.approx(0.1118, abs=1e-4), pytest.approx(0.9937, abs=1e-4)]
    assert (student["kl_checkpoint_to_base"], student["entropy"]) == (0.01, 0.05)
    assert (teacher["avg"], teacher["coverage"]) == (0.5, 0.75)
    assert teacher["kl_checkpoint_to_base"] is None
    assert (teacher["details_folder"], teacher["step"]) == ("teacher/addition", 8)


def test_rows_are_the_schema_and_the_bytes_repeat() -> None:
    rows = [a_row("student", [[1, 0], [0, 0]]), a_row("empty", [])]
    assert all(list(row) == LEADERBOARD_SCHEMA.names for row in rows)
    content = leaderboard_bytes(rows)
    table = pq.read_table(BytesIO(content))
    assert table.schema.equals(LEADERBOARD_SCHEMA)
    assert table.to_pylist() == rows
    assert content == leaderboard_bytes(rows)
    assert not any("time" in name or "date" in name for name in table.column_names)


def a_row_of_table1(**changes: object) -> dict:
    """Measured just as the recipe behind the paper's CE row says."""
    experiment, benchmark = get_experiment("table1"), BENCHMARKS["hmmt_feb_2025"]
    row = a_row("student", [[1], [0]])
    return row | {
        "run": load_recipe(experiment.models["Qwen3-4B"]).run,
        "checkpoint": experiment.rows["Qwen3-4B"]["CE"].ref[0], "benchmark": benchmark.name, "k": benchmark.k,
        "temperature": benchmark.decoding.temperature, "top_p": benchmark.decoding.top_p,
        "max_new_tokens": benchmark.decoding.max_new_tokens, **changes,
    }  # fmt: skip


def beside_the_paper(rows: list[dict]) -> dict:
    found = reported(["table1"], rows)
    return next(e for e in found if (e["model"], e["row"], e["column"]) == ("Qwen3-4B", "CE", "hmmt_feb_2025"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 1}, "k 1, not "),
        ({"limit": 5}, "limit 5, not none"),
        ({"temperature": 0.0}, "temperature 0, not "),
        ({"max_new_tokens": 512}, "max_new_tokens 512, not "),
        ({"coverage": 0.5}, "50.0 % of the samples graded"),
        ({"selection": True}, "selected on this benchmark"),
        ({"seeds_ignored": True}, "whatever drew the samples ignores seeds"),
        ({"cut_short": 2}, "the server ended 2 samples by a limit of its own"),
        ({"taken_over_otherwise": '{"dtype": "bfloat16"}'}, "were made otherwise than the others"),
    ],
)
def test_what_was_not_measured_as_the_recipe_says_is_marked(changes: dict, said: str) -> None:
    other, right = a_row_of_table1(avg=0.9, **changes), a_row_of_table1()
    entry = beside_the_paper([other])
    assert entry["measured"] == 90
    assert [said in text for text in entry["differs"]] == [True]
    (note,) = reported_notes([entry])
    assert said in note
    assert "! 90 measured" in str(next(reported_tables([entry])).columns[2]._cells)
    assert beside_the_paper([other, right]) | {"differs": []} == beside_the_paper([right])
    assert beside_the_paper([other, right])["measured"] == 50


def test_a_reported_length_stands_beside_that_of_the_row() -> None:
    about = get_experiment("table10")
    run = load_recipe(about.models["Qwen3-4B"]).run
    row = a_row_of_table1(run=run, checkpoint="base", benchmark="aime_2024", mean_length=19000.0)
    found = [entry for entry in reported(["table10"], [row]) if (entry["model"], entry["row"]) == ("Qwen3-4B", "Base")]
    lengths = [entry for entry in found if entry["column"] == "aime_2024_length"]
    assert [(e["unit"], e["reported"], e["measured"]) for e in lengths] == [("tokens", 19800, 19000)]


@pytest.mark.parametrize("recipe", ["table2-rounds", "quickstart"])
def test_board_and_summary_name_a_checkpoint_alike(recipe: str, finished_record: Callable, tmp_path: Path) -> None:
    """Of several rounds each has its student, and a row's record does not say how many there are."""
    plan, record = make_plan(load_recipe(recipe)), finished_record(tmp_path, {"x": b"x"})
    nodes = [node for node in plan.nodes if isinstance(node.config, EvaluateConfig)]
    for node in nodes:
        told = {"round": node.round, "folder": node.folder, "config": {"checkpoints": list(node.config.checkpoints)}}
        assert rows.reference_of(record.model_copy(update=told)) == summary.reference_of(plan, node)
    names = {summary.reference_of(plan, node) for node in nodes}
    assert any(name.startswith("r2/") for name in names) is (len(plan.recipe.rounds) > 1)
