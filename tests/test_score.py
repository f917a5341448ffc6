"""Scoring and signals: streamed, resumable, shared by replicas, and the same numbers however the work is cut."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from tiny import context, folder_digest, save_policy, write_rollouts

from erpd_hub import columns
from erpd_hub.columns import ShardReader, flat_values, list_column, row_arrays, row_lengths
from erpd_hub.config import ScoreConfig, SignalConfig
from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.samples import (
    LOGPROB_SCHEMA,
    SAMPLE_SCHEMA,
    noise_paths,
    read_rows,
    shard_path,
    shard_paths,
    write_rows,
    write_tables,
)
from erpd_hub.scoring import require_finite
from erpd_hub.stages import score, signal

MEANS = ("mean_logprob", "logprob_positive", "logprob_negative")
CONFIG = ScoreConfig(rollouts="rollouts", checkpoint="policy", micro_batch_tokens=200)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("score")
    return {"rollouts": write_rollouts(folder / "rollouts"), "checkpoint": save_policy(folder / "policy")}


def run(out: Path, inputs: dict[str, Path], replica: int = 0, replicas: int = 1, config: ScoreConfig = CONFIG):
    where = replace(context(out.parent / f"{out.name}-work"), replica=replica, replicas=replicas)
    where.work.mkdir(parents=True, exist_ok=True)
    return score.run(config, out, context=where, **inputs)


def test_replicas_and_the_call_that_finishes_make_what_one_process_makes(tmp_path, inputs) -> None:
    whole = run(tmp_path / "whole", inputs)
    out = tmp_path / "shared"
    for replica in (1, 0):
        assert run(out, inputs, replica, 2).metrics == {}
        assert not (out / "score.json").exists()
    assert run(out, inputs) == whole
    assert folder_digest(out) == folder_digest(tmp_path / "whole")
    assert len(noise_paths(out)) == 2


def test_shards_that_are_there_are_not_scored_again(tmp_path, inputs) -> None:
    whole = run(tmp_path / "out", inputs)
    made = folder_digest(tmp_path / "out")
    first, second = shard_paths(tmp_path / "out")
    noise, more_noise = noise_paths(tmp_path / "out")
    kept = first.stat().st_mtime_ns, more_noise.stat().st_mtime_ns
    second.unlink()
    noise.unlink()
    assert run(tmp_path / "out", inputs) == whole
    assert (first.stat().st_mtime_ns, more_noise.stat().st_mtime_ns) == kept
    assert folder_digest(tmp_path / "out") == made


def test_without_noise_samples_nothing_is_scored_again(tmp_path, inputs) -> None:
    metrics = run(tmp_path / "out", inputs, config=CONFIG.model_copy(update={"noise_samples": 0})).metrics
    assert not (tmp_path / "out" / "noise").exists()
    assert set(metrics) == {*MEANS, "response_tokens", "explained_variance", "mean_squared_error"}
    assert json.loads((tmp_path / "out" / "score.json").read_text())["other_layout"] is None


def test_blocks_change_neither_rows_nor_numbers(tmp_path, inputs, monkeypatch) -> None:
    whole = run(tmp_path / "whole", inputs)
    monkeypatch.setattr(columns.ShardReader.blocks, "__defaults__", (40,))
    monkeypatch.setattr(columns, "_READ_ROWS", 2)
    cut = run(tmp_path / "cut", inputs)
    assert pq.ParquetFile(shard_path(tmp_path / "cut", 0)).num_row_groups > 2
    for name in (*MEANS, "response_tokens", "explained_variance", "mean_squared_error"):
        assert cut.metrics[name] == pytest.approx(whole.metrics[name])
    for row, other in zip(read_rows(tmp_path / "whole"), read_rows(tmp_path / "cut"), strict=True):
        assert (row["problem_id"], row["k"]) == (other["problem_id"], other["k"])
        assert row["logprobs"] == pytest.approx(other["logprobs"], abs=1e-5)


def test_right_and_wrong_responses_have_means_of_their_own_and_ungraded_ones_none(tmp_path, inputs) -> None:
    graded = shutil.copytree(inputs["rollouts"], tmp_path / "graded")
    shard = shard_paths(graded)[0]
    rows = list(read_rows(graded))
    labels = [None if place % 5 == 0 else place % 2 for place in range(len(rows))]
    for other in shard_paths(graded)[1:]:
        other.unlink()
    write_rows(shard, [row | {"label": label} for row, label in zip(rows, labels, strict=True)], SAMPLE_SCHEMA)
    metrics = run(tmp_path / "out", inputs | {"rollouts": graded}).metrics
    scored = [row["logprobs"] for row in read_rows(tmp_path / "out")]
    for name, of in (("logprob_positive", {1}), ("logprob_negative", {0}), ("mean_logprob", {0, 1, None})):
        values = [value for row, label in zip(scored, labels, strict=True) if label in of for value in row]
        assert metrics[name] == pytest.approx(np.mean(values)), name
    rated = [(values, label) for values, label in zip(scored, labels, strict=True) if label is not None]
    errors = np.concatenate([label - np.exp(values) for values, label in rated])
    outcomes = np.concatenate([np.full(len(values), label) for values, label in rated])
    assert metrics["mean_squared_error"] == pytest.approx(np.mean(errors**2))
    assert metrics["explained_variance"] == pytest.approx(1 - np.var(errors) / np.var(outcomes))
    right = [row | {"label": 1} for row in rows]
    write_rows(shard, right, SAMPLE_SCHEMA)
    only = run(tmp_path / "right", inputs | {"rollouts": graded}).metrics
    assert only["logprob_positive"] == only["mean_logprob"] and "logprob_negative" not in only
    assert "explained_variance" not in only  # there is no variance to explain


def test_the_record_of_a_scoring_says_how_it_was_done(tmp_path, inputs) -> None:
    run(tmp_path / "out", inputs)
    info = json.loads((tmp_path / "out" / "score.json").read_text())
    assert set(info) == {*score.ScoreInfo._fields, "format", "other_layout"}
    assert info["format"] == "erpd-hub/logprobs/v1"
    assert info["other_layout"] == "single"
    assert (info["dtype"], info["attn_implementation"]) == ("float32", "sdpa")
    assert info["layout"] in ("packed", "padded", "single"), "auto is no layout"


def test_another_temperature_than_that_of_the_rollouts_is_warned_of(tmp_path, inputs) -> None:
    drawn = shutil.copytree(inputs["rollouts"], tmp_path / "drawn")
    (drawn / "rollout.json").write_text(json.dumps({"decoding": {"temperature": 0.6, "top_p": 0.95, "top_k": 20}}))
    found = {}
    for temperature in (1.0, 0.6):
        config = CONFIG.model_copy(update={"noise_samples": 0, "logprob_temperature": temperature})
        found[temperature] = run(tmp_path / str(temperature), inputs | {"rollouts": drawn}, config=config).metrics
    assert found[1.0]["warning"].startswith(
        "logprob_temperature: expected 0.6, at which the responses were drawn, got 1"
    )
    assert "warning" not in found[0.6]


@pytest.mark.parametrize("changed", [{"format": "erpd-hub/logprobs/v0"}, {"format": None}])
def test_another_format_is_refused(tmp_path, inputs, changed: dict) -> None:
    run(tmp_path / "out", inputs)
    path = tmp_path / "out" / "score.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ArtifactError, match="expected the format erpd-hub/logprobs/v1, got"):
        score.read_score_info(tmp_path / "out")


def test_rows_without_token_ids_are_refused(tmp_path, inputs) -> None:
    rows = pq.read_table(shard_path(inputs["rollouts"], 0)).to_pylist()
    rows[1]["response_ids"] = None
    write_rows(shard_path(tmp_path / "text", 0), rows, SAMPLE_SCHEMA)
    with pytest.raises(ArtifactError, match="token ids in each row"):
        run(tmp_path / "out", inputs | {"rollouts": tmp_path / "text"})


def test_a_checkpoint_that_gives_no_number_is_named_with_the_sample(tmp_path, inputs) -> None:
    (first, *_), broken = read_rows(inputs["rollouts"]), save_policy(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][first["response_ids"][0]] = np.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        StageError, match=rf"^policy: expected finite log-probs, got nan .* \('{first['problem_id'][0]}"
    ):
        run(tmp_path / "out", inputs | {"checkpoint": broken})
    assert not shard_paths(tmp_path / "out")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_log_prob_has_to_be_finite(value: float) -> None:
    samples = pa.table({"problem_id": ["a", "b"], "k": [0, 3]})
    rows = [np.array([-1.0], np.float32), np.array([-1.0, value, -2.0], np.float32)]
    require_finite("teacher@step-5", [rows[0], rows[1][:1]], samples)
    with pytest.raises(StageError, match=rf"^teacher@step-5: .* got {value} for token 2 of 3 of sample \('b', 3\);"):
        require_finite("teacher@step-5", rows, samples)


def join(out: Path, rollouts: Path, **sides: Path):
    config = SignalConfig(rollouts="r", numerator="teacher", denominator="policy")
    return signal.run(config, out, context=context(out), rollouts=rollouts, **sides)


def test_a_signal_joins_only_shards_that_mirror_the_rollouts(tmp_path, inputs) -> None:
    run(tmp_path / "old", inputs)
    sides = {"old": tmp_path / "old", "numerator": tmp_path / "old", "denominator": tmp_path / "old"}
    metrics = join(tmp_path / "signal", inputs["rollouts"], **sides).metrics
    assert metrics["tokens"] == sum(len(row["response_ids"]) for row in read_rows(inputs["rollouts"]))
    assert metrics["std"] == 0
    path = shard_path(tmp_path / "old", 1)
    table = pq.read_table(path)
    write_tables(path, [table.take(list(reversed(range(len(table)))))], LOGPROB_SCHEMA)
    with pytest.raises(ArtifactError, match=r"train-00001.parquet: expected the samples of the rollouts"):
        join(tmp_path / "again", inputs["rollouts"], **sides)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"expected the shard train-00001.parquet"):
        join(tmp_path / "more", inputs["rollouts"], **sides)


# -------------------------------------------------------------------------------------------- columns


def test_list_columns_are_views_of_one_buffer(tmp_path) -> None:
    rows = [np.array([1, 2, 3], np.float32), np.empty(0, np.float32), np.array([4], np.float32)]
    column = pa.chunked_array([list_column(rows, LOGPROB_SCHEMA.field("logprobs"))])
    assert [view.tolist() for view in row_arrays(column)] == [[1, 2, 3], [], [4]]
    assert row_lengths(column.slice(1)).tolist() == [0, 1]
    assert flat_values(column.slice(2)).tolist() == [4]
    with_null = pa.chunked_array([pa.array([[1], None, [2, 3]], pa.list_(pa.int32()))])
    assert [None if view is None else view.tolist() for view in row_arrays(with_null)] == [[1], None, [2, 3]]


def test_a_reader_gives_rows_in_order_whatever_is_asked_for(tmp_path) -> None:
    rows = [{"problem_id": str(i), "k": i, "logprobs": [float(i)] * (i % 5)} for i in range(300)]
    write_rows(shard_path(tmp_path, 0), rows, LOGPROB_SCHEMA)
    reader = ShardReader(shard_path(tmp_path, 0), ["k", "logprobs"])
    taken = [reader.take(count)["k"].to_pylist() for count in (1, 100, 64, 500, 5)]
    assert [len(part) for part in taken] == [1, 100, 64, 135, 0]
    assert [k for part in taken for k in part] == list(range(300))
    blocks = list(ShardReader(shard_path(tmp_path, 0), ["k", "logprobs"]).blocks(100))
    assert len(blocks) > 3
    assert [k for block in blocks for k in block["k"].to_pylist()] == list(range(300))


def test_scoring_reads_no_more_than_a_block_of_a_large_row_group(tmp_path) -> None:
    """One row group of 6 million tokens, as an import may be, in a process that cannot hold it as Python numbers."""
    values = np.zeros(6_000_000, np.int32)
    offsets = np.arange(0, len(values) + 1, 1000, dtype=np.int32)
    column = pa.ListArray.from_arrays(offsets, values)
    path = shard_path(tmp_path, 0)
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"response_ids": column}), path)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom erpd_hub.columns import ShardReader, row_lengths\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "blocks = ShardReader(Path(sys.argv[1]), ['response_ids']).blocks(500_000)\n"
        "assert sum(int(row_lengths(block['response_ids']).sum()) for block in blocks) == 6_000_000\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60, "MB; as a Python list it is 240"
