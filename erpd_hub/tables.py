"""Tables of `--dry-run`, `plan`, `cost` and `doctor` for people."""

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from erpd_hub.display import make_console
from erpd_hub.plain import escape


def print_preview(report: dict[str, Any]) -> None:
    """What a run would do: inputs, place and verdict of every artifact, with its share of the bill."""
    console = make_console()
    columns = ("step", "stage", "inputs", "repository", "tokens", "tokens ≤", "GB/GPU", "GPU-h", "pushed GB", "will")
    table = _table(*columns, right=("tokens", "tokens ≤", "GB/GPU", "GPU-h", "pushed GB"))
    for node in report["nodes"]:
        inputs = " ".join(f"{role}={','.join(sources)}" for role, sources in _main_inputs(node).items())
        will = node["will"].partition(":")[0]
        table.add_row(*map(escape, (node["step"], node["stage"], inputs, _place(node), *_numbers(node), will)))
    console.print(table)
    _print_unresolved(console, report)
    _print_cautions(console, report)
    print_bill(console, report)
    counts = Counter(node["will"].partition(":")[0] for node in report["nodes"])
    gated = "".join(
        f", {counts[verdict]} {words}"
        for verdict, words in (("maybe", "only if a gate says so"), ("skip", "that no gate asks for"))
        if counts[verdict]
    )
    console.print(
        f"\n{report['run']} on {report['endpoint']}: {counts['make']} to make, {counts['push']} made but not pushed, "
        f"{counts['reuse']} to reuse, {counts['unresolved']} unresolved{gated}"
    )


def print_plan(report: dict[str, Any], *, explain: bool = False) -> None:
    """What a run would take, artifact by artifact; `explain` adds the arithmetic of the memory."""
    console = make_console()
    columns = (
        "step",
        "stage",
        "tokens",
        "tokens ≤",
        "GB/GPU",
        "fits",
        "hours",
        "GPU-h",
        "pushed GB",
        "layout, or remedy",
    )
    table = _table(*columns, right=("tokens", "tokens ≤", "GB/GPU", "hours", "GPU-h", "pushed GB"))
    for node in report["nodes"]:
        item = node["estimate"]
        tokens, upper, gb, gpu_hours, pushed = _numbers(node)
        fits = {True: "yes", False: "NO", None: ""}[item["fits"]]
        hours = "" if item["seconds"] is None else f"{item['seconds'] / 3600:.2f}"
        reused = "(there already)" if node["will"] == "reuse" else ""
        words = item["remedy"] + (" [measured rate]" if item["measured"] else "") + reused
        cells = (node["step"], node["stage"], tokens, upper, gb, fits, hours, gpu_hours, pushed, words)
        table.add_row(*map(escape, cells))
    console.print(table)
    if explain:
        for node in report["nodes"]:
            if arithmetic := node["estimate"]["arithmetic"]:
                console.print(f"{escape(node['step'])}: {escape(arithmetic)}")
    _print_unresolved(console, report)
    _print_cautions(console, report)
    print_bill(console, report)


def print_bill(console: Console, report: dict[str, Any]) -> None:
    """The sums, and everything they go by."""
    bill = report["bill"]
    totals, model, mean = bill["totals"], bill["model"], bill["mean_length"]
    if model is None:
        console.print("\nno bill: the base's shape is not known; set facts.shape, or bring the base within reach")
        return
    name = "CPU" if bill["gpu"] == "cpu" else bill["gpu"].upper()
    unit = "machine" if name == "CPU" else "GPU"
    console.print(
        f"\n[bold]{totals['gpu_hours']:,.1f} {unit}-hours[/bold] on {bill['gpus']} x {name} ({totals['hours']:,.1f} h; "
        f"at most {totals['gpu_hours_upper']:,.1f} {unit}-hours if every response runs to its limit), "
        f"{totals['tokens_sampled'] / 1e6:,.1f} M tokens sampled, {totals['tokens_trained'] / 1e6:,.1f} M trained on, "
        f"{totals['storage_gb']:,.1f} GB pushed, up to {totals['work_gb']:,.1f} GB of local disk at work"
    )
    parts = (f"{stage} {part['gpu_hours']:,.1f} ({part['artifacts']})" for stage, part in totals["by_stage"].items())
    console.print(f"{unit}-hours by stage (artifacts): {', '.join(parts)}")
    length = f"{mean['tokens']:,} tokens" if mean["tokens"] else "by limit"
    console.print(
        f"goes by: {model['name']}, {model['params'] / 1e9:.2f} B parameters; mean response {length} "
        f"({mean['source']}); {bill['gpu_usable_gb']:.0f} of {bill['gpu_gb']:.0f} GB usable ({bill['gpu_source']})"
    )
    assumed = bill["assumptions"]
    console.print(f"assumes (--assume NAME=VALUE): {', '.join(f'{key}={value:g}' for key, value in assumed.items())}")
    if bill["measured_rates"]:
        rates = ", ".join(f"{stage} {rate:,.0f}" for stage, rate in bill["measured_rates"].items())
        console.print(f"measured, tokens a GPU-second: {rates}")
    if totals["does_not_fit"]:
        console.print(f"[red]does not fit:[/red] {escape(', '.join(totals['does_not_fit']))}")
    if totals["unknown"]:
        console.print(
            f"not in these sums, as the recipe does not say their size: {escape(', '.join(totals['unknown']))}"
        )


def _print_unresolved(console: Console, report: dict[str, Any]) -> None:
    """Each reason once: a Hub out of reach is named by every step that reads from it."""
    reasons: dict[str, list[str]] = {}
    for node in report["nodes"]:
        verdict, _, reason = node["will"].partition(": ")
        if verdict == "unresolved":
            reasons.setdefault(reason, []).append(node["step"])
    for reason, steps in reasons.items():
        more = f" and {len(steps) - 2} more" if len(steps) > 2 else ""
        console.print(f"unresolved, {escape(', '.join(steps[:2]))}{more}: {escape(reason)}")


def _print_cautions(console: Console, report: dict[str, Any]) -> None:
    for caution in report["cautions"]:
        console.print(f"[yellow]caution:[/yellow] {escape(caution)}")


def _main_inputs(node: dict[str, Any]) -> dict[str, list[str]]:
    """Inputs without the benchmarks, which are as many as there are and always the same."""
    return {role: sources for role, sources in node["inputs"].items() if not role.startswith("benchmark:")}


def _numbers(node: dict[str, Any]) -> tuple[str, str, str, str, str]:
    item = node["estimate"]
    seconds = None if item["seconds"] is None else item["seconds"] * item["gpus"] / 3600
    numbers = (item["tokens"], item["tokens_upper"])
    counts = ["" if value is None else _count(value) for value in numbers]
    shown = ["" if value is None else f"{value:.2f}" for value in (item["gb"], seconds, item["storage_gb"])]
    return counts[0], counts[1], shown[0], shown[1], shown[2]


def _count(tokens: int) -> str:
    return f"{tokens / 1e6:,.1f} M" if tokens >= 1e6 else f"{tokens:,}"


def _place(node: dict[str, Any]) -> str:
    steps = f" (steps {', '.join(map(str, node['pushed_steps']))})" if node["pushed_steps"] else ""
    return node["repo"] + (f"/{node['folder']}" if node["folder"] else "") + steps


def _table(*columns: str, right: tuple[str, ...]) -> Table:
    table = Table(box=None, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return table


# ------------------------------------------------------------------------------------------------- cost


def print_cost(report: dict[str, Any]) -> None:
    """What everything took, by artifact and by stage, and the figures of the paper's Table 4."""
    console = make_console()
    columns = ("artifact", "stage", "seconds", "GPUs", "GPU-seconds", "tokens", "device", "made by")
    table = _table(*columns, right=("seconds", "GPUs", "GPU-seconds", "tokens"))
    for item in report["artifacts"]:
        tokens = "" if item["tokens"] is None else _count(item["tokens"])
        numbers = (f"{item['seconds']:,.1f}", str(item["gpus"]), f"{item['gpu_seconds']:,.1f}", tokens)
        made_by = item["run"] + (" (inherited)" if item["inherited"] else "")
        table.add_row(*map(escape, (item["step"], item["stage"], *numbers, item["device"], made_by)))
    console.print(table)
    stages = _table("stage", "artifacts", "GPU-seconds", "tokens", "tokens per GPU-second",
                    right=("artifacts", "GPU-seconds", "tokens", "tokens per GPU-second"))  # fmt: skip
    for name, row in report["stages"].items():
        rate = "" if row["tokens_per_gpu_second"] is None else f"{row['tokens_per_gpu_second']:,.1f}"
        stages.add_row(name, str(row["artifacts"]), f"{row['gpu_seconds']:,.1f}", _count(row["tokens"]), rate)
    console.print(stages)
    totals = report["totals"]
    console.print(
        f"\n[bold]{totals['gpu_seconds'] / 3600:,.3f} GPU-hours[/bold] for {totals['artifacts']} artifacts, "
        f"{totals['inherited']['gpu_seconds'] / 3600:,.3f} of them inherited from other runs (a machine without a GPU "
        "counts as one)"
    )
    _print_table4(console, report["table4"])


def _print_table4(console: Console, table4: dict[str, Any]) -> None:
    def said(value: float | None, unit: str) -> str:
        return "-" if value is None else f"{value:,.2f} {unit}"

    console.print(
        f"\nas in the paper's Table 4: on-policy "
        f"{said(table4['on_policy_rollout_seconds_per_512'], 's rollout')} per 512 + "
        f"{said(table4['on_policy_update_seconds_per_step'], 's update')} per step; first stage "
        f"{said(table4['first_stage_seconds_per_step'], 's per step')} + rollout {said(table4['rollout_hours'], 'h')}; "
        f"distill {said(table4['distill_seconds_per_step'], 's per step')}"
    )
    table = _table("stage", "checkpoint", "benchmark", "step", "score %", "cumulative time, h",
                   right=("step", "score %", "cumulative time, h"))  # fmt: skip
    for row in table4["rows"]:
        score = "" if row["score"] is None else f"{100 * row['score']:.1f}"
        hours = f"{row['hours_before']:.3f} + {row['hours_of_steps']:.3f}"
        table.add_row(row["stage"], escape(row["checkpoint"]), row["benchmark"], str(row["step"]), score, hours)
    if table4["rows"]:
        console.print(table)


# ----------------------------------------------------------------------------------------------- doctor


def print_doctor(report: dict[str, Any]) -> None:
    console = make_console()
    marks = {"ok": "[green]ok[/green]  ", "note": "[yellow]note[/yellow]", "broken": "[red]BROKEN[/red]"}
    for check in report["checks"]:
        console.print(f"{marks[check['state']]}  {check['name']}: {escape(check['found'])}")
        if check["remedy"]:
            console.print(f"        {escape(check['remedy'])}")
    broken = sum(check["state"] == "broken" for check in report["checks"])
    console.print(f"\n{len(report['checks'])} checks, {broken} broken")
