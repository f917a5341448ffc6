"""What a model repository says of its scores, in the Hub's two forms: `.eval_results/*.yaml` and `model-index`. Pure.

Both are made of leaderboard rows and of nothing else. `.eval_results` is for scores on whole Hub datasets, one file for
each set of samples and way of grading; `model-index` has the others too. Values are percent.
"""

import hashlib
import re
from typing import Any, NamedTuple

from erpd_hub.evaluation.benchmarks import BENCHMARKS
from erpd_hub.evaluation.caveats import caveats
from erpd_hub.model_cards.text import yaml_block
from erpd_hub.results.rows import Row

FOLDER = ".eval_results/"
OURS = re.compile(r"\.eval_results/erpd-[\w.-]+\.yaml")
"""Files that are ours to replace and to remove; others are left alone."""
_HUB = "https://huggingface.co"


class Source(NamedTuple):
    """The Hub dataset that a benchmark's problems are from, as the details' lineage has it."""

    dataset: str
    revision: str
    task: str
    """As the dataset's own `eval.yaml` calls it."""


class Variant(NamedTuple):
    """One way to count the samples of a row."""

    label: str
    value: float
    stderr: float | None


def variants(row: Row) -> list[Variant]:
    """The rule alone and, where a judge can be trusted as far as its canaries say, the rule with it; none without a
    graded sample."""
    found = []
    if row["avg"] is not None:
        found.append(Variant("", row["avg"], row["stderr"]))
    if row["avg_judged"] is not None and not row.get("canaries_problem"):
        found.append(Variant("judged", row["avg_judged"], row["stderr_judged"]))
    return found


def eval_files(row: Row, source: Source | None, endpoint: str) -> dict[str, bytes]:
    """Path to content of the files for a row; none unless it is of all problems of a Hub dataset."""
    if source is None or row["limit"] is not None:
        return {}
    return {_path(row, v): _entry(row, v, source, endpoint) for v in variants(row)}


def _path(row: Row, variant: Variant) -> str:
    place = f"{row['details_repo']}\n{row['details_folder']}\n{variant.label}"
    name = re.sub(r"[^\w.-]", "-", row["benchmark"])
    return f"{FOLDER}erpd-{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}.yaml"


def _entry(row: Row, variant: Variant, source: Source, endpoint: str) -> bytes:
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entry = EvalResultEntry(
        dataset_id=source.dataset,
        task_id=source.task,
        value=_percent(variant.value),
        dataset_revision=source.revision,
        source_url=details_url(row, endpoint),
        source_name="every sample",
        notes=notes(row, variant),
    )
    return yaml_block(eval_result_entries_to_yaml([entry])).encode()


def details_url(row: Row, endpoint: str) -> str:
    """The samples: an address on the Hub, or one relative to any other endpoint, whose host is nobody's business."""
    path = f"/datasets/{row['details_repo']}/tree/{row['details_revision']}/{row['details_folder']}"
    return f"{_HUB}{path}" if endpoint == _HUB else path


def notes(row: Row, variant: Variant) -> str:
    """What tells this score from another on the same benchmark, and what to know before it is compared."""
    parts = [
        f"AVG@{row['k']} in percent over {_problems(row)}",
        f"standard error {_number(variant.stderr)} over problems",
        f"T={_plain(row['temperature'])}, top_p={_plain(row['top_p'])}, {_limits(row)}",
        _judge(row) if variant.label else "graded by rule alone",
        f"harness {row['harness']}" if row["harness"] else "",
        f"{100 * row['truncated']:.1f} % truncated",
        "" if (row["coverage"] or 0) >= 1 else f"{100 * (row['coverage'] or 0):.1f} % of samples graded",
        "" if row["equal_k"] else "problems have unequal K",
        "the model was selected on this benchmark" if row["selection"] else "",
        "problems differ from the registered state" if row["problems_state"] == "other" else "",
        *caveats(row),
        f"run {row['run']}",
    ]
    return "; ".join(part for part in parts if part)


def _judge(row: Row) -> str:
    fooled = row["canary_acceptance"]
    share = "an unknown share" if fooled is None else f"{100 * fooled:.1f} %"
    return f"judge {row['judge']} behind the rule, which took {share} of injected wrong answers for right"


def _problems(row: Row) -> str:
    """What the mean is over: a problem without a graded sample is in no score."""
    graded = row.get("n_graded")
    if graded is None or graded == row["n"]:
        return f"{row['n']} problems"
    return f"{graded} problems, the only ones of {row['n']} with a graded sample"


def _limits(row: Row) -> str:
    sequence = row.get("max_sequence_tokens")
    both = "" if sequence is None else f", max_sequence_tokens={sequence}"
    return f"max_new_tokens={_plain(row['max_new_tokens'])}{both}"


def model_index(name: str, rows: list[tuple[Row, Source | None]], endpoint: str) -> list[dict[str, Any]]:
    """The `model-index` of a card: one result for each row; empty without any."""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    results: list[dict[str, Any]] = []
    for row, source in rows:
        found = [EvalResult(**_result(row, variant, source, endpoint)) for variant in variants(row)]
        # One call a row: it would put rows of the same dataset under the first one's source.
        results += eval_results_to_model_index(name, found)[0]["results"] if found else []
    return [{"name": name, "results": results}] if results else []


def _result(row: Row, variant: Variant, source: Source | None, endpoint: str) -> dict[str, Any]:
    registered = BENCHMARKS.get(row["benchmark"])
    part = f", first {row['limit']} problems" if row["limit"] is not None else ""
    return {
        "task_type": "text-generation",
        "dataset_type": source.dataset if source else row["benchmark"],
        "dataset_name": row["benchmark"],
        "dataset_config": getattr(registered.source, "config", None) if registered and source else None,
        "dataset_split": getattr(registered.source, "split", None) if registered and source else None,
        "dataset_revision": source.revision if source else None,
        "metric_type": "accuracy",
        "metric_name": f"AVG@{row['k']}{part}{' with judge' if variant.label else ''} (percent)",
        "metric_value": _percent(variant.value),
        "metric_args": {"notes": notes(row, variant)},
        "source_name": "every sample",
        "source_url": details_url(row, endpoint),
    }


def _percent(value: float) -> float:
    return round(100 * value, 2)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} points"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
