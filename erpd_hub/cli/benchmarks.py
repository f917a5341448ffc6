"""`benchmarks`: what can be evaluated on, an entry in full, and whether the grader accepts its golds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erpd_hub.cli.options import AsJson, Endpoint, stdout_for_json
from erpd_hub.plain import plain

if TYPE_CHECKING:
    from erpd_hub.evaluation.benchmarks import Benchmark
    from erpd_hub.evaluation.gold_check import GoldReport

app = typer.Typer(no_args_is_help=True, help="The benchmarks: list them, show one, check that the golds are graded.")

Files = Annotated[
    list[Path] | None, typer.Option("--benchmark-file", metavar="FILE", help="YAML with benchmarks of your own.")
]
_SHOWN = 5


@app.command("list")
def list_benchmarks(files: Files = None, as_json: AsJson = False) -> None:
    """All registered benchmarks, and your own."""
    from erpd_hub.benchmark_files import all_benchmarks

    found = all_benchmarks(files or ())
    if as_json:
        from erpd_hub.display import print_json

        print_json({"benchmarks": [_as_data(benchmark) for benchmark in found.values()]})
        return
    from rich.console import Console
    from rich.table import Column, Table

    told = [Column(name, no_wrap=True) for name in ("benchmark", "n", "K", "graded by", "details", "commit")]
    table = Table(*told, Column("from", overflow="fold"), box=None, padding=(0, 1, 0, 0))
    for benchmark in found.values():
        table.add_row(
            benchmark.name, str(benchmark.num_problems or "?"), str(benchmark.k), _grading(benchmark),
            benchmark.share, _commit(benchmark), _origin(benchmark),
        )  # fmt: skip
    Console().print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A registered name, one of your own, or dataset and columns.")],
    files: Files = None,
    as_json: AsJson = False,
) -> None:
    """One benchmark in full, as YAML that a file of your own may start from."""
    from erpd_hub.benchmark_files import find_benchmark

    benchmark = find_benchmark(name, files or ())
    if as_json:
        from erpd_hub.display import print_json

        print_json(_as_data(benchmark))
        return
    import yaml

    data = {key: value for key, value in _as_data(benchmark).items() if key not in ("name", "definition_sha256")}
    typer.echo(yaml.safe_dump({benchmark.name: data}, sort_keys=False, allow_unicode=True, width=120), nl=False)
    typer.echo(f"# definition {benchmark.definition_sha256}")
    if not benchmark.is_fixed:
        told = (
            "problems_sha256 tells whether they are these" if benchmark.problems_sha256 else "no hash of them is known"
        )
        typer.echo(f"# no pinned commit: the problems are those of the newest; {told}")


@app.command()
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Benchmarks whose golds are checked.")],
    files: Files = None,
    rows: Annotated[
        Path | None, typer.Option(help="The dataset's file or folder, for one benchmark; default: from the endpoint.")
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=0, help="Golds of other problems that each is compared with; 0 compares all.")
    ] = 16,
    endpoint: Endpoint = "local",
    as_json: AsJson = False,
) -> None:
    """Check that the grader accepts every gold, however it is written, and refuses those of other problems.

    Exit code 1 when it does not; rows without a usable gold are listed and do not count.
    """
    from erpd_hub.benchmark_files import find_benchmark
    from erpd_hub.benchmark_rows import fetch_problems
    from erpd_hub.errors import ConfigError
    from erpd_hub.evaluation.gold_check import check_benchmark

    if rows is not None and len(names) > 1:
        raise ConfigError(f"--rows: expected one benchmark with it, got {', '.join(names)}")
    benchmarks = [find_benchmark(name, files or ()) for name in names]
    if code := next((benchmark.name for benchmark in benchmarks if benchmark.grader == "code"), None):
        raise ConfigError(f"{code}: expected a benchmark whose answers are compared, got one that runs tests")
    reports = []
    for benchmark in benchmarks:
        with stdout_for_json(as_json):
            problems = fetch_problems(benchmark, endpoint, rows)
            report = check_benchmark(benchmark, problems, pairs=pairs or None)
        reports.append(report)
        if report.state == "other":
            typer.echo(f"{benchmark.name}: the dataset has other problems than its entry was checked with", err=True)
        if not as_json:
            _print_report(report)
    if as_json:
        from erpd_hub.display import print_json

        print_json({"passed": all(r.passed for r in reports), "benchmarks": [_report_data(r) for r in reports]})
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def _grading(benchmark: "Benchmark") -> str:
    return "tests" if benchmark.grader == "code" else benchmark.format.extract


def _origin(benchmark: "Benchmark") -> str:
    from erpd_hub.references import PathRef

    reference = benchmark.reference
    if reference is None:
        return "generated"
    return "a file" if isinstance(reference, PathRef) else reference.repo_id


def _commit(benchmark: "Benchmark") -> str:
    revision = getattr(benchmark.reference, "revision", None)
    return str(revision)[:7] if revision else "-" if benchmark.is_fixed else "newest"


def _as_data(benchmark: "Benchmark") -> dict[str, Any]:
    """An entry without the path of a user's file."""
    from erpd_hub.fields import recorded

    return {
        "name": benchmark.name,
        "version": benchmark.version,
        "source": recorded(benchmark.source),
        "num_problems": benchmark.num_problems,
        "problems_sha256": benchmark.problems_sha256,
        "k": benchmark.k,
        "format": recorded(benchmark.format),
        "decoding": recorded(benchmark.decoding),
        "grader": benchmark.grader,
        "share": benchmark.share,
        "licence": benchmark.licence,
        "note": benchmark.note,
        "definition_sha256": benchmark.definition_sha256,
    }


def _report_data(report: "GoldReport") -> dict[str, Any]:
    data = dict(vars(report))
    data |= {name: [item._asdict() for item in data[name]] for name in ("refused", "confused")}
    return {**data, "passed": report.passed}


def _print_report(report: "GoldReport") -> None:
    """The figures of a check, and the first of what it found."""
    state = {
        "known": "as the entry knows them",
        "other": "not as the entry knows them",
        "unrecorded": "of no recorded state",
    }[report.state]
    typer.echo(f"{report.benchmark} v{report.version}: {report.problems} problems, {state} ({report.sha256[:12]})")
    for name, reason in report.bad.items():
        typer.echo(plain(f"  {name}: no usable gold: {reason}"))
    typer.echo(f"  {report.variants - len(report.refused)} of {report.variants} ways to write a gold accepted")
    for refused in report.refused[:_SHOWN]:
        how = f"{refused.answer!r} ({refused.kind})"
        typer.echo(plain(f"    {refused.problem_id}: {refused.gold!r} as {how}: {refused.verdict}"))
    typer.echo(f"  {report.pairs - len(report.confused)} of {report.pairs} golds of other problems refused")
    for confused in report.confused[:_SHOWN]:
        told = f"    {confused.problem_id}: {confused.gold!r} takes {confused.answer!r} of {confused.other_id}"
        typer.echo(plain(told))
