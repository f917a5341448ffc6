"""Details without the problems' texts: left out last, so that everything before goes as usual, and joined again."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny import context, save_policy

from erpd_hub.config import Decoding, EvaluateConfig, SelectConfig, TransformersEngine
from erpd_hub.config.benchmarks import BenchmarkEntry
from erpd_hub.errors import ArtifactError
from erpd_hub.evaluation.benchmarks import get_benchmark, load_problems
from erpd_hub.evaluation.details import (
    HASH_COLUMN,
    conceal_folder,
    is_concealed,
    problem_sha256,
    reveal,
)
from erpd_hub.samples import SAMPLE_SCHEMA, read_rows, shard_paths
from erpd_hub.stages import evaluate, select

FORMAT = {"template": "{problem}?"}
BATCHES = TransformersEngine(batch_tokens=60)
"""Small ones, so that the samples are in several shards."""


def entry(share: str, path: Path) -> BenchmarkEntry:
    return BenchmarkEntry(source={"path": str(path)}, share=share, format=FORMAT)  # type: ignore[arg-type]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{n}+{n + 1}", "answer": 2 * n + 1}) + "\n" for n in range(1, 5)))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "policy")


def run(out: Path, share: str, rows_file: Path, policy: Path, **keys) -> dict:
    extended = keys.pop("extended", None)
    config = EvaluateConfig(
        checkpoints=("policy",), benchmarks=("mine",), definitions={"mine": entry(share, rows_file)},
        engine=BATCHES, **{"k": 2, "decoding": Decoding(max_new_tokens=6), **keys},
    )  # fmt: skip
    out.mkdir(exist_ok=True)
    folders = {"mine": rows_file}
    done = evaluate.run(config, out, context=context(out), checkpoints=(policy,), benchmarks=folders, extended=extended)
    return done.metrics


def without(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("prompt_ids", "gold", HASH_COLUMN)}


def test_only_prompts_and_golds_are_left_out(tmp_path: Path, rows_file: Path, policy: Path) -> None:
    full, ids = (run(tmp_path / share, share, rows_file, policy) for share in ("full", "ids"))
    assert (full.pop("share"), ids.pop("share")) == ("full", "ids")
    assert full.pop("benchmark_definition") != ids.pop("benchmark_definition")
    assert full == ids
    shown, left = list(read_rows(tmp_path / "full")), list(read_rows(tmp_path / "ids"))
    assert [without(row) for row in shown] == [without(row) for row in left]
    assert len(shard_paths(tmp_path / "ids")) > 1
    for path in shard_paths(tmp_path / "full"):
        assert pq.read_schema(path).names == SAMPLE_SCHEMA.names
    for row in left:
        assert (row["prompt_ids"], row["gold"], is_concealed(row)) == (None, None, True)
    problems = load_problems(get_benchmark("mine", {"mine": entry("ids", rows_file)}), rows_file)
    revealed = list(reveal(left, problems))
    assert [row["gold"] for row in revealed] == [row["gold"] for row in shown]
    assert not any(is_concealed(row) for row in revealed)
    assert [row["gold"] for row in reveal(revealed, [])] == [row["gold"] for row in shown], "nothing to join"


def test_another_state_of_the_dataset_is_refused(tmp_path: Path, rows_file: Path) -> None:
    benchmark = get_benchmark("mine", {"mine": entry("ids", rows_file)})
    problems = load_problems(benchmark, rows_file)
    hidden = {"benchmark": "mine", "problem_id": problems[0].problem_id, HASH_COLUMN: problem_sha256(problems[0])}
    for changed in (replace(problems[0], gold="9"), replace(problems[0], problem="another")):
        assert problem_sha256(changed) != hidden[HASH_COLUMN]
        with pytest.raises(ArtifactError, match="got another text or gold; pull the dataset at the revision"):
            list(reveal([hidden], [changed]))
    with pytest.raises(ArtifactError, match="no such problem"):
        list(reveal([hidden], problems[1:]))


def test_the_gold_cannot_be_guessed_from_the_hash(rows_file: Path) -> None:
    """Of the three parts of what is hashed the text is not in the details."""
    first = load_problems(get_benchmark("mine", {"mine": entry("ids", rows_file)}), rows_file)[0]
    unknown = {problem_sha256(replace(first, problem="", gold=str(number))) for number in range(1000)}
    assert problem_sha256(first) not in unknown


def test_a_killed_evaluation_goes_on(tmp_path: Path, rows_file: Path, policy: Path) -> None:
    """Killed while the prompts were being left out, with a shard to draw again."""
    whole = run(tmp_path / "whole", "ids", rows_file, policy)
    run(tmp_path / "killed", "full", rows_file, policy)
    shard_paths(tmp_path / "killed")[-1].unlink()
    benchmark = get_benchmark("mine", {"mine": entry("ids", rows_file)})
    conceal_folder(tmp_path / "killed", benchmark, load_problems(benchmark, rows_file))
    assert run(tmp_path / "killed", "ids", rows_file, policy) == whole
    assert list(read_rows(tmp_path / "killed")) == list(read_rows(tmp_path / "whole"))
    before = [path.read_bytes() for path in shard_paths(tmp_path / "killed")]
    conceal_folder(tmp_path / "killed", benchmark, [])
    assert [path.read_bytes() for path in shard_paths(tmp_path / "killed")] == before, "nothing is left to do"


def test_extensions_go_on_from_details_without_prompts(tmp_path: Path, rows_file: Path, policy: Path) -> None:
    metrics = {}
    for share in ("full", "ids"):
        run(tmp_path / share, share, rows_file, policy)
        metrics[share] = run(tmp_path / f"{share}-on", share, rows_file, policy, extend_to=9, extended=tmp_path / share)
    assert metrics["full"]["continued"] > 0
    assert metrics["full"]["avg"] == metrics["ids"]["avg"]
    rows = {share: list(read_rows(tmp_path / f"{share}-on")) for share in metrics}
    assert [without(row) for row in rows["full"]] == [without(row) for row in rows["ids"]]
    assert all(is_concealed(row) and row["gold"] is None for row in rows["ids"])
    assert not any(is_concealed(row) for row in rows["full"])


def test_a_selection_leaves_the_problems_out_too(tmp_path: Path, rows_file: Path, policy: Path) -> None:
    other = save_policy(tmp_path / "other", seed=1)
    found = {}
    for share in ("full", "ids"):
        config = SelectConfig(
            candidates=("a", "b"), benchmark="mine", definitions={"mine": entry(share, rows_file)}, k_start=1, k_max=2,
            final_k=2, decoding=Decoding(max_new_tokens=4),
        )  # fmt: skip
        out = tmp_path / share
        out.mkdir()
        done = select.run(config, out, context=context(out), candidates=(policy, other), benchmarks={"mine": rows_file})
        found[share] = {**done.metrics, "problems": None}
        folders = {path.parent for path in (out / "samples").rglob("data")}
        assert len(folders) > 2
        assert {is_concealed(row) for folder in folders for row in read_rows(folder)} == {share == "ids"}
    assert found["full"] == found["ids"]
