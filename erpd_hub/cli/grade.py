"""`grade`: anyone's answers in a file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from erpd_hub.cli.options import AsJson, stdout_for_json
from erpd_hub.plain import plain


def register(app: typer.Typer) -> None:
    app.command()(grade)


def grade(
    file: Annotated[Path, typer.Argument(help="JSON Lines with `output` and `gold`, and maybe `finish_reason`.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The rows again, with verdict, label, extracted, grader, ms, reason.")
    ],
    answers: Annotated[
        bool, typer.Option("--answers", help="An output without a box is the answer itself, not a missing one.")
    ] = False,
    text_key: Annotated[str, typer.Option(help="The key of a model's text.")] = "output",
    gold_key: Annotated[str, typer.Option(help="The key of the right answer.")] = "gold",
    thinking: Annotated[
        bool, typer.Option("--thinking", help="The prompts opened a think block; a row's own `thinking` goes first.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="Wall time of one comparison.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Grade the answers in a file: the last box after the last </think> against the gold.

    Rows that have a `label` (0 or 1) keep it as `given_label`, and the two are compared. The same command goes on
    where one was interrupted.
    """
    from erpd_hub.display import print_json
    from erpd_hub.evaluation.grade_file import grade_file

    extract: Literal["whole", "boxed"] = "whole" if answers else "boxed"
    with stdout_for_json(as_json):
        report = grade_file(
            file, output, extract=extract, text_key=text_key, gold_key=gold_key, seconds=seconds, thinking=thinking,
        )  # fmt: skip
    for problem in report.malformed:
        typer.echo(plain(f"{problem}; kept as ungradable"), err=True)
    if report.num_malformed > len(report.malformed):
        typer.echo(f"... {report.num_malformed} such lines in all", err=True)
    if report.unboxed * 2 > report.rows:
        typer.echo(f"{report.unboxed} of {report.rows} outputs are a short line without a box; see --answers", err=True)
    if report.closed and report.unclosed:
        typer.echo(
            f"{report.unclosed} graded outputs have no </think>, others have; if their prompts opened a think block, "
            "they have no answer: see --thinking",
            err=True,
        )
    summary = report.as_dict()
    if as_json:
        print_json(summary)
        return
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items())
    typer.echo(f"{report.rows} rows in {report.seconds:.1f} s: {verdicts}")
    if summary["accuracy"] is not None:
        typer.echo(f"correct: {100 * summary['accuracy']:.2f} % of the gradable")
    if report.given:
        typer.echo("against the given labels: " + ", ".join(f"{n} {name}" for name, n in sorted(report.given.items())))
