"""What `advise` needs of a finished run: its summary on this machine, and the records of its artifacts on the Hub."""

import re
from typing import Any

from rich.table import Table

from erpd_hub.comparing.advise import Line, Made, Page, make_page
from erpd_hub.comparing.advise_rules import Advice, advise
from erpd_hub.display import make_console
from erpd_hub.errors import ArtifactError
from erpd_hub.hub.client import Hub
from erpd_hub.noise_floor import least_floor
from erpd_hub.plain import escape
from erpd_hub.run_files import read_summary

SCHEMA = "erpd-hub/advice/v1"


def read_page(hub: Hub, run: str) -> Page:
    """The page about the last run of a name on this machine.

    Raises:
        ArtifactError: no such run, or its artifacts are not on this endpoint.
    """
    summary = read_summary(run)
    made, sampling = [], {}
    for item in summary["artifacts"]:
        record = hub.lineage(item["repo_type"], item["repo"], item["revision"], item["folder"])
        if record is None:
            raise ArtifactError(f"{item['step']}: not on {hub.identity}; give the run's --endpoint")
        inputs = {one.role: one.digest for one in record.inputs}
        made.append(Made(own_step(item["step"]), item["stage"], record.config, record.metrics, inputs))
        sampling[f"{item['repo']}/{item['folder']}@{item['revision'][:10]}"] = record.metrics.get("stderr_sampling")
    rows = [row | {"stderr_sampling": sampling.get(row["details"])} for row in summary["checkpoints"]]
    return make_page(rows, made)


def own_step(step: str) -> str:
    """Without the name of a sweep's point, which its summary puts before the round: `seed-3/r1/ce` is `r1/ce`."""
    first, _, rest = step.partition("/")
    return step if re.fullmatch(r"r\d+", first) else rest


def as_data(run: str, page: Page) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "run": run,
        "gates": list(page.gates),
        "signals": list(page.signals),
        "checkpoints": [line._asdict() for line in page.lines],
        "controls": [{**item._asdict(), "better": item.better} for item in page.controls],
        "mse": list(page.mse),
        "advice": [item._asdict() for item in advise(page)],
    }


def print_page(run: str, page: Page) -> None:
    console = make_console()
    console.print(f"[bold]{escape(run)}[/bold]")
    for gate in page.gates:
        console.print(f"gate {escape(gate['step'])}: {escape(str(gate['reason']))}")
    for signal in page.signals:
        console.print(escape(_signal_text(signal)))
    for item in page.mse:
        fit = [f"{key} {item[key]:.3f}" for key in list(item)[1:] if item[key] is not None]
        console.print(escape(f"mse {item['step']}: {', '.join(fit)}"))
    console.print(_lines_table(page.lines))
    for control in page.controls:
        said = "better" if control.better else "not shown better"
        console.print(escape(f"{control.student} against {control.control}: {control.difference:+.1f} ± "
                             f"{control.error:.1f} points, {said}"))  # fmt: skip
    for advice in advise(page):
        console.print(_advice_text(advice))


def _signal_text(signal: dict[str, Any]) -> str:
    floor, ratio = signal["noise_floor"], signal["signal_to_noise"]
    if ratio is not None:
        noise = f"{ratio:.3g} times its noise floor of {floor:.1e}"
    elif floor is not None:
        noise = f"noise floor 0 (both scorings agree to the last bit; rounding is about {least_floor(floor):.0e})"
    else:
        noise = "noise not measured"
    return f"signal {signal['step']}: strategy {signal['strategy'] or '-'}, sd {signal['std']:.4f} nats, {noise}"


def _lines_table(lines: tuple[Line, ...]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("role")
    for name in ("gain", "± s.e.", "KL to base", "gain per 0.01", "entropy", "length", "truncated"):
        table.add_column(name, justify="right")
    for line in lines:
        numbers = (
            f"{line.gain:+.1f}",
            f"{line.error:.1f}",
            _text(line.kl_to_base, ".4f"),
            _text(line.gain_per_kl, "+.1f"),
            _text(line.entropy_ratio, ".0%"),
            _text(line.length_ratio, ".0%"),
            _text(line.truncated, ".1%"),
        )
        table.add_row(escape(line.ref), line.role, *numbers)
    table.caption = "gain in points of AVG@K over the base; entropy and length as shares of the base's"
    return table


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _advice_text(advice: Advice) -> str:
    reason = f"{escape(advice.why)} [dim]({escape(advice.evidence)})[/dim]"
    return f"[bold]{advice.kind}[/bold]: {escape(advice.what)}\n    {reason}"
