"""Leaderboard rows, computed from the samples of details artifacts: no score is taken from a record or typed in. Pure.

A row says what was measured (checkpoint, benchmark, version, settings), the figures, and where every sample behind it
is. It holds no time, so the same details give the same bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erpd_hub.evaluation.judge import judged_label
from erpd_hub.evaluation.statistics import summarise

LEADERBOARD_SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("role", pa.string()),  # base, teacher, unlearned, student, control, online, endpoint
        ("checkpoint", pa.string()),  # reference as in the recipe
        ("checkpoint_repo", pa.string()),  # of an endpoint endpoint:MODEL
        ("checkpoint_revision", pa.string()),
        ("step", pa.int32()),  # saved step; null where there are none
        ("benchmark", pa.string()),
        ("version", pa.int32()),  # of the benchmark
        ("selection", pa.bool_()),  # a gate or a selection of the run decided on it: in no headline mean
        ("avg", pa.float64()),  # AVG@K in [0, 1] by the rule alone; null without a graded sample
        ("stderr", pa.float64()),  # over problems
        ("stderr_sampling", pa.float64()),  # on these problems
        ("interval", pa.list_(pa.float64())),  # 95 %, over problems, by interval_method
        ("k", pa.int32()),
        ("n", pa.int32()),  # problems
        ("n_graded", pa.int32()),  # those with a graded sample: what avg, errors and interval are over
        ("coverage", pa.float64()),  # graded share of n * k
        ("mean_length", pa.float64()),  # tokens
        ("truncated", pa.float64()),  # share of samples, as the next
        ("no_answer", pa.float64()),
        ("kl_checkpoint_to_base", pa.float64()),  # nats per token by the probe; null without one
        ("entropy", pa.float64()),  # nats per token by the probe
        ("details_repo", pa.string()),
        ("details_folder", pa.string()),
        ("details_revision", pa.string()),
        ("fingerprint", pa.string()),  # of the details
        ("details_digest", pa.string()),
        ("checkpoint_digest", pa.string()),
        ("pinned", pa.bool_()),  # false for an endpoint: nothing says what answered
        ("base_repo", pa.string()),  # root of the checkpoint's lineage; itself for a base
        ("base_revision", pa.string()),
        ("teacher_repo", pa.string()),  # whose signal went into it; null for what has none
        ("teacher_revision", pa.string()),
        ("loss", pa.string()),  # of its training, or of its teacher's; null without one
        ("strategy", pa.int32()),  # of the signal that went into it; null without one
        ("interval_method", pa.string()),
        ("equal_k", pa.bool_()),  # whether each problem has as many graded samples
        ("ungradable", pa.float64()),  # share of samples
        ("avg_judged", pa.float64()),  # with what the judge accepted; null without a judge, as all to judge_share
        ("stderr_judged", pa.float64()),
        ("interval_judged", pa.list_(pa.float64())),
        ("judge", pa.string()),  # model
        ("judge_share", pa.float64()),  # of samples that are right by the judge's word alone
        ("canary_acceptance", pa.float64()),  # share of injected wrong answers that the judge took for right
        (
            "canaries_problem",
            pa.string(),
        ),  # why no judged score can be trusted; null for no reason
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("max_new_tokens", pa.int32()),  # after an extension
        ("max_sequence_tokens", pa.int32()),  # of prompt and response together; null for no such limit
        ("limit", pa.int32()),  # the first problems only; null for all
        ("problems_state", pa.string()),  # known, other, unrecorded: whether the problems are those of the registry
        ("benchmark_definition", pa.string()),  # sha256 of source, prompt and decoding: tells two of one name apart
        ("harness", pa.string()),  # versions of package, grader and benchmark, as text
        ("seeds_ignored", pa.bool_()),  # equal samples show that K is less than it seems; null where none do
        ("cut_short", pa.int32()),  # samples that a server ended by a lower limit of its own; null for none
        ("taken_over_otherwise", pa.string()),  # how samples of earlier evaluations were made, as text; null for alike
        ("licence", pa.string()),  # of the benchmark's problems
        ("probe_repo", pa.string()),  # where KL and entropy are from
        ("probe_folder", pa.string()),
        ("probe_revision", pa.string()),
    ]
)

PROBED = ("kl_checkpoint_to_base", "entropy")
_JUDGED = ("avg", "stderr", "stderr_sampling", "interval")


def leaderboard_row(
    told: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], probed: Mapping[str, Any]
) -> dict[str, Any]:
    """A row of LEADERBOARD_SCHEMA.

    Args:
        told: Columns that the lineage tells: who was measured how, and where the samples are. With a `judge`, the
            figures with it are computed too; what it does not tell is null.
        samples: Rows of SAMPLE_SCHEMA, or their columns that figures need.
        probed: Metrics of a probe of the checkpoint; empty without one.
    """
    rows = list(samples)
    figures = {**summarise(rows, votes=False), **(judged_figures(rows) if told.get("judge") else {})}
    assert told.keys() <= set(LEADERBOARD_SCHEMA.names), "a column nobody reads"
    available = {**figures, **{name: probed.get(name) for name in PROBED}, **told}
    return {name: available.get(name) for name in LEADERBOARD_SCHEMA.names}


def hub_features() -> list[dict[str, str]]:
    """The columns as a dataset card names them, so that files of several versions load as one table."""
    return [
        {"name": column.name, "list": _dtype(column.type.value_type)}
        if pa.types.is_list(column.type)
        else {"name": column.name, "dtype": _dtype(column.type)}
        for column in LEADERBOARD_SCHEMA
    ]


def _dtype(kind: pa.DataType) -> str:
    return {"double": "float64"}.get(str(kind), str(kind))


def leaderboard_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as one parquet file; the same rows give the same bytes."""
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=LEADERBOARD_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def judged_figures(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`avg_judged`, its errors and interval, and `judge_share`, from samples that a judge has seen."""
    labels = [judged_label(row) for row in samples]
    judged = summarise(
        ({**row, "label": label} for row, label in zip(samples, labels, strict=True)), votes=False
    )  # fmt: skip
    raised = sum(label == 1 and row["label"] != 1 for row, label in zip(samples, labels, strict=True))
    return {
        **{f"{name}_judged": judged[name] for name in _JUDGED},
        "judge_share": raised / max(len(samples), 1),
    }


def harness_text(harness: Mapping[str, Any]) -> str | None:
    """The versions behind a score in one line; None where the details have none."""
    return json.dumps(harness, sort_keys=True) if harness else None
