"""The noise floor of a signal: what is scored again, what that differs by, and what follows from it."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_cards import a_dataset
from tiny import context, folder_digest, save_policy, write_rollouts

from erpd_hub import model_cards
from erpd_hub.config import ScoreConfig, SignalConfig
from erpd_hub.errors import ArtifactError, StageError
from erpd_hub.noise import Noise, Scored, measure, noise_rows
from erpd_hub.noise_floor import ROUNDING, drowned, signal_to_noise
from erpd_hub.samples import LOGPROB_SCHEMA, noise_paths, read_rows, shard_path, write_rows
from erpd_hub.stages import score, signal

ROLES = ("numerator", "denominator", "old")


# ------------------------------------------------------------------------------------------------- math


def test_rows_are_spread_evenly_and_bounded() -> None:
    assert noise_rows(16_000, 32) == list(range(250, 16_000, 500))
    assert noise_rows(320, 32) == [8 + 16 * index for index in range(20)], "a sixteenth"
    assert noise_rows(18, 32) == [1, 3, 5, 7, 10, 12, 14, 16], "eight of a few"
    assert noise_rows(3, 32) == [0, 1, 2]
    assert noise_rows(100, 0) == noise_rows(0, 32) == []


def test_noise_is_summed_up_as_its_definition_says_however_it_is_cut() -> None:
    first = np.array([0.5, -0.5, 0.25, -2.0, 1.0], np.float32)
    again = np.array([0.5, 0.5, -0.25, -2.5, 1.25], np.float32)
    noise = Noise()
    noise.add(first[:2], again[:2])
    noise.add(first[2:], again[2:])
    differences = np.array([0, 1, -0.5, -0.5, 0.25])
    assert noise.summary() == {
        "tokens": 5,
        "std": pytest.approx(differences.std(ddof=1)),
        "mean_absolute": pytest.approx(0.45),
        "largest": 1.0,
        "sign_flips": pytest.approx(2 / 5),
    }


def test_a_signal_s_noise_is_that_of_the_difference_of_its_sides() -> None:
    numerator = Scored(*(np.array(x, np.float32) for x in ([-1.0, -2.0], [-1.0, -2.5], [-1.25, -2.0])))
    denominator = Scored(*(np.array(x, np.float32) for x in ([-1.5, -1.0], [-1.5, -1.25], [-1.5, -1.0])))
    pair = measure([{"numerator": numerator, "denominator": denominator}])
    assert pair.layout.deviation == pytest.approx(np.std([0, -0.25], ddof=1))
    assert pair.dtype.deviation == pytest.approx(np.std([-0.25, 0], ddof=1))
    alone = measure([{"denominator": denominator}])
    assert alone.layout.summary()["largest"] == 0.25
    assert alone.dtype.deviation == 0
    with pytest.raises(ArtifactError, match="expected the same tokens on both sides"):
        measure([{"numerator": numerator, "denominator": Scored(*(part[:1] for part in denominator))}])


def test_the_floor_is_the_layout_s_noise_and_in_bf16_the_dtype_s_too() -> None:
    numerator = Scored(*(np.array(x, np.float32) for x in ([0.0, 0.0], [0.0, 0.25], [0.0, 1.0])))
    pair = measure([{"numerator": numerator}])
    assert pair.floor("float32") == pair.layout.deviation == pytest.approx(0.25 / math.sqrt(2))
    assert pair.floor("bfloat16") == pair.dtype.deviation == pytest.approx(1 / math.sqrt(2))


def test_what_drowns_in_noise() -> None:
    assert drowned(0.29, 0.1, 3)
    assert not drowned(0.31, 0.1, 3)
    assert drowned(0.0, 0.0, 3)
    assert drowned(3.4e-7, 0.0, 3), "both layouts agreed to the last bit: that is rounding"
    assert not drowned(4 * ROUNDING, 0.0, 3)
    assert drowned(math.nan, 0.1, 3) and drowned(0.3, math.nan, 3), "what is no number stands above nothing"
    assert signal_to_noise(0.3, 0.1) == pytest.approx(3)
    assert signal_to_noise(0.3, 0.0) is None


# ------------------------------------------------------------------------------------------------ stages


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    """Rollouts, two policies, and their log-probs by dtype and number of noise samples."""
    folder = tmp_path_factory.mktemp("noise")
    made = {"rollouts": write_rollouts(folder / "rollouts")}
    for index, name in enumerate(("policy", "teacher")):
        made[name] = save_policy(folder / name, seed=index)
        for dtype, samples in (("float32", 32), ("bfloat16", 32), ("float32", 0), ("float32", 3)):
            key = f"{name}-{dtype}-{samples}"
            made[key] = score_into(folder / key, made["rollouts"], made[name], dtype=dtype, noise_samples=samples)
    return made


def score_into(out: Path, rollouts: Path, checkpoint: Path, **changes: object) -> Path:
    config = ScoreConfig(
        rollouts="r", checkpoint="policy", **({"layout": "packed", "micro_batch_tokens": 300} | changes)
    )
    score.run(config, out, context=context(out.with_name(out.name + "-work")), rollouts=rollouts, checkpoint=checkpoint)
    return out


def join(out: Path, parts: dict[str, Path], numerator: str | None, denominator: str | None, **changes: object) -> dict:
    names = {"numerator": "teacher" if numerator else "none", "denominator": "policy" if denominator else "none"}
    config = SignalConfig(rollouts="r", **names, **changes)
    sides = {"numerator": numerator, "denominator": denominator, "old": denominator or numerator}
    folders = {role: parts[name] for role, name in sides.items() if name is not None}
    return signal.run(config, out, context=context(out), rollouts=parts["rollouts"], **folders).metrics


def rows_by_key(folder: Path) -> dict[tuple[str, int], dict]:
    return {(row["problem_id"], row["k"]): row for row in read_rows(folder)}


def noise_by_key(folder: Path) -> dict[tuple[str, int], dict]:
    rows = [row for path in noise_paths(folder) for row in pq.read_table(path).to_pylist()]
    return {(row["problem_id"], row["k"]): row for row in rows}


def test_the_noise_of_the_layout_is_what_two_scorings_differ_by(tmp_path, parts) -> None:
    alone = {
        name: rows_by_key(score_into(tmp_path / name, parts["rollouts"], parts[name], layout="single", noise_samples=0))
        for name in ("teacher", "policy")
    }
    scored = {name: rows_by_key(parts[f"{name}-float32-32"]) for name in alone}
    noise = noise_by_key(parts["teacher-float32-32"])
    order = list(scored["teacher"])
    assert [order.index(key) for key in noise] == noise_rows(18, 32)
    for key, row in noise.items():
        assert row["logprobs"] == scored["teacher"][key]["logprobs"]
        assert row["other_layout"] == alone["teacher"][key]["logprobs"]
    signals = [
        np.concatenate([np.subtract(*(np.float32(rows[n][key]["logprobs"]) for n in alone)) for key in noise])
        for rows in (scored, alone)
    ]
    differences = signals[1].astype(np.float64) - signals[0]
    metrics = join(tmp_path / "out", parts, "teacher-float32-32", "policy-float32-32")
    assert metrics["noise_layout"]["std"] == pytest.approx(differences.std(ddof=1), rel=1e-12)
    assert metrics["noise_layout"]["mean_absolute"] == pytest.approx(np.abs(differences).mean(), rel=1e-12)
    assert metrics["noise_layout"]["largest"] == np.abs(differences).max()
    assert metrics["noise_floor"] == metrics["noise_layout"]["std"]
    assert metrics["signal_to_noise"] == metrics["std"] / metrics["noise_floor"] > 1000


def test_the_noise_of_the_dtype_is_what_the_two_dtypes_differ_by(tmp_path, parts) -> None:
    exact = rows_by_key(
        score_into(tmp_path / "exact", parts["rollouts"], parts["teacher"], layout="single", noise_samples=0)
    )
    for key, row in noise_by_key(parts["teacher-bfloat16-32"]).items():
        assert row["other_dtype"] == exact[key]["logprobs"]
    fp32 = join(tmp_path / "fp32", parts, "teacher-float32-32", "policy-float32-32")
    bf16 = join(tmp_path / "bf16", parts, "teacher-bfloat16-32", "policy-bfloat16-32")
    assert fp32["noise_dtype"]["std"] > 100 * fp32["noise_layout"]["std"]
    assert bf16["noise_floor"] == max(bf16["noise_layout"]["std"], bf16["noise_dtype"]["std"])
    assert bf16["noise_floor"] > 100 * fp32["noise_floor"]
    assert bf16["noise_dtype"]["std"] == pytest.approx(fp32["noise_dtype"]["std"], rel=0.5)


def test_a_signal_within_its_noise_is_warned_of_or_refused(tmp_path, parts, caplog) -> None:
    equal = ("policy-float32-32", "policy-float32-32")
    metrics = join(tmp_path / "warn", parts, *equal)
    assert "at least 3 times the noise floor of its scoring" in metrics["warning"]
    assert metrics["warning"] in caplog.text
    assert "warning" not in join(tmp_path / "ignore", parts, *equal, on_noise="ignore")
    with pytest.raises(StageError, match=r"noise floor of its scoring, .* nats, got 0; take checkpoints that are"):
        join(tmp_path / "refuse", parts, *equal, on_noise="refuse")
    assert not (tmp_path / "refuse" / "signal.json").exists()
    good = ("teacher-bfloat16-32", "policy-bfloat16-32")
    assert "warning" not in join(tmp_path / "good", parts, *good, on_noise="refuse")
    ratio = 2 * join(tmp_path / "ratio", parts, *good)["signal_to_noise"]
    with pytest.raises(StageError, match=r"score in float32 \(scoring.dtype\), or take checkpoints"):
        join(tmp_path / "high", parts, *good, on_noise="refuse", noise_ratio=ratio)


def test_a_signal_that_is_no_number_is_refused(tmp_path, parts) -> None:
    broken = shutil.copytree(parts["teacher-float32-32"], tmp_path / "broken")
    rows = pq.read_table(shard_path(broken, 0)).to_pylist()
    rows[0]["logprobs"][0] = math.nan
    write_rows(shard_path(broken, 0), rows, LOGPROB_SCHEMA)
    sides = parts | {"broken": broken}
    with pytest.raises(StageError, match=r"noise floor of its scoring, .* nats, got nan"):
        join(tmp_path / "out", sides, "broken", "policy-float32-32", on_noise="refuse")


def test_without_noise_samples_or_with_one_side_a_signal_still_works(tmp_path, parts) -> None:
    plain = join(tmp_path / "plain", parts, "teacher-float32-0", "policy-float32-32")
    assert not {"noise_floor", "noise_layout", "warning"} & set(plain)
    assert json.loads((tmp_path / "plain" / "signal.json").read_text())["noise"] is None
    with pytest.raises(StageError, match=r"set scoring.noise_samples above 0"):
        join(tmp_path / "refused", parts, "teacher-float32-0", "policy-float32-32", on_noise="refuse")
    one = join(tmp_path / "one", parts, "teacher-float32-32", None)
    alone = [np.float32(row["other_dtype"]) - np.float32(row["logprobs"])
             for row in noise_by_key(parts["teacher-float32-32"]).values()]  # fmt: skip
    assert one["noise_dtype"]["largest"] == pytest.approx(np.abs(np.concatenate(alone)).max(), rel=1e-6)


def test_only_rows_that_both_sides_scored_again_count(tmp_path, parts) -> None:
    metrics = join(tmp_path / "out", parts, "teacher-float32-3", "policy-float32-32")
    fewer, more = (noise_by_key(parts[name]) for name in ("teacher-float32-3", "policy-float32-32"))
    common = fewer.keys() & more.keys()
    assert common
    assert common != fewer.keys()
    assert metrics["noise_layout"]["tokens"] == sum(len(fewer[key]["logprobs"]) for key in common)


def test_a_signal_says_its_format_and_its_card_its_numbers(tmp_path, parts) -> None:
    metrics = join(tmp_path / "out", parts, "teacher-bfloat16-32", "policy-bfloat16-32", noise_ratio=1e6)
    content = json.loads((tmp_path / "out" / "signal.json").read_text())
    assert content["format"] == "erpd-hub/signal/v1"
    assert content["noise"]["noise_floor"] == metrics["noise_floor"]
    assert signal.read_score_info(tmp_path / "out", "signal").dtype == "bfloat16"
    (tmp_path / "out" / "signal.json").write_text(json.dumps(content | {"format": "erpd-hub/signal/v9"}))
    with pytest.raises(ArtifactError, match="expected the format erpd-hub/signal/v1, got 'erpd-hub/signal/v9'"):
        signal.read_score_info(tmp_path / "out", "signal")
    card = model_cards.render(a_dataset("signal", metrics=json.loads(json.dumps(metrics))))
    for text in ("### Noise floor", "| another layout |", "| the other dtype |", "<summary>By label and position<",
                 "> **Warning.** signal: expected", "| positive | first |", "### Largest outliers"):  # fmt: skip
        assert text in card
    assert "\n\n\n\n" not in card
    tables = [line.count("|") for line in card.splitlines() if line.startswith("| positive |") or "| label |" in line]
    assert len(set(tables)) == 3, "quantiles, positions and outliers, each row as long as its header"


def test_a_signal_is_the_same_bytes_again(tmp_path, parts) -> None:
    sides = ("teacher-float32-32", "policy-float32-32")
    whole = join(tmp_path / "whole", parts, *sides)
    again = join(tmp_path / "again", parts, *sides)
    shard_path(tmp_path / "again", 1).unlink()
    assert join(tmp_path / "again", parts, *sides) == again == whole
    assert folder_digest(tmp_path / "again") == folder_digest(tmp_path / "whole")
