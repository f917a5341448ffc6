"""The benchmarks of a distillation step, through the command line."""

import json

from typer.testing import CliRunner

from erpd_hub.benchmarks import distill
from erpd_hub.benchmarks.distill import DistillBench
from erpd_hub.cli import app


def test_both_steps_take_turns_and_are_reported_by_length() -> None:
    report = distill.run(DistillBench(shape="tiny", lengths=(64, 256), repeats=2))
    assert [row["length"] for row in report["rows"]] == [64, 256]
    for row in report["rows"]:
        assert len(row["teacher_seconds"]) == len(row["distill_seconds"]) == 2
        assert row["ratio"] > 0 and row["cpu_time_ratio"] > 0
    assert "256" in distill.render(report)


def test_command_line() -> None:
    done = CliRunner().invoke(app, ["bench", "step", "--shape", "tiny", "--length", "32", "--steps", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"][0]["distill"]["seconds"] > 0
    asked = CliRunner().invoke(app, ["bench", "step", "--help"])
    assert "--keep-attention" in asked.stdout
    done = CliRunner().invoke(app, ["bench", "distill", "--shape", "tiny", "--length", "32", "--repeats", "1"])
    assert done.exit_code == 0 and "tiny on cpu" in done.stdout


def test_an_unknown_shape_is_named() -> None:
    done = CliRunner().invoke(app, ["bench", "distill", "--shape", "qwen"])
    assert done.exit_code != 0 and "expected one of qwen3-4b" in str(done.exception)
