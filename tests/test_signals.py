import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from erpd_hub.config import SignalConfig
from erpd_hub.errors import ArtifactError, ConfigError
from erpd_hub.plan import make_plan
from erpd_hub.recipe import build_recipe, load_recipe
from erpd_hub.signal_statistics import POSITIONS, QUANTILES, SignalBlock, describe_signal
from erpd_hub.signals import raw_signal, whiten


def test_raw_signal_drops_a_missing_side() -> None:
    num, den = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -1.0])
    assert raw_signal(num, den).tolist() == [2, -1]
    assert raw_signal(num, None).tolist() == [-1, -2]
    assert raw_signal(None, den).tolist() == [3, 1]


def test_whitened_has_mean_zero_and_unbiased_variance_one_whatever_the_padding() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.3 - 0.1
    whitened = whiten(values, torch.ones(1000, dtype=torch.bool), shift_mean=True)
    assert whitened.mean().item() == pytest.approx(0, abs=1e-6)
    assert whitened.var().item() == pytest.approx(1, abs=1e-5)
    padded = torch.cat([values, torch.full((500,), 7.0)])
    again = whiten(padded, torch.arange(1500) < 1000, shift_mean=True)
    torch.testing.assert_close(again[:1000], whitened)
    assert not again[1000:].any()


def test_scaling_without_shift_keeps_every_sign() -> None:
    values = torch.tensor([-0.5, 0.0, 0.01, 2.0])
    scaled = whiten(values, torch.ones(4, dtype=torch.bool), shift_mean=False)
    assert torch.equal(scaled.sign(), values.sign())
    torch.testing.assert_close(scaled, values / values.std())


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-5])
@pytest.mark.parametrize("shift_mean", [True, False])
def test_equal_checkpoints_give_no_signal(noise: float, shift_mean: bool) -> None:
    values = noise * torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert not whiten(values, torch.ones(100, dtype=torch.bool), shift_mean=shift_mean).any()


# ------------------------------------------------------------------------------------------- strategies


def a_signal(**changes: object) -> SignalConfig:
    return SignalConfig(rollouts="rollout", **({"numerator": "teacher"} | changes))


@pytest.mark.parametrize(
    ("strategy", "numerator", "denominator"),
    [
        (1, "teacher", "policy"),
        (2, "teacher", "unlearned"),
        (2, "teacher", "teacher@step-10"),
        (3, "teacher", "r1/student"),
        (3, "policy", "r1/student"),
        (3, "teacher", "base"),
        (None, "none", "unlearned"),
        (None, "teacher@step-10", "policy"),
        (None, "policy", "unlearned"),
        (None, "teacher", "none"),
    ],
)
def test_strategies_take_what_the_paper_pairs(strategy: int | None, numerator: str, denominator: str) -> None:
    config = a_signal(strategy=strategy, numerator=numerator, denominator=denominator)
    assert (config.numerator, config.denominator, config.old) == (numerator, denominator, "policy")


@pytest.mark.parametrize(
    ("strategy", "numerator", "denominator", "message"),
    [
        (None, "none", "none", "at least one checkpoint"),
        (1, "policy", "policy", "numerator: strategy 1 expects a trained teacher, got 'policy'"),
        (1, "none", "policy", "numerator: strategy 1 expects a trained teacher, got 'none'"),
        (1, "teacher", "none", "denominator: strategy 1 expects policy, got 'none'"),
        (1, "teacher", "unlearned", "denominator: strategy 1 expects policy, got 'unlearned'"),
        (2, "policy", "unlearned", "numerator: strategy 2 expects a trained teacher"),
        (2, "teacher", "policy", "denominator: strategy 2 expects an unlearned checkpoint, got 'policy'"),
        (2, "teacher", "none", "denominator: strategy 2 expects an unlearned checkpoint, got 'none'"),
        (2, "teacher", "teacher", "another checkpoint than the numerator"),
        (3, "none", "r1/student", "numerator: strategy 3 expects the round's teacher or policy"),
        (3, "teacher", "policy", "denominator: strategy 3 expects an earlier, weaker student, got 'policy'"),
        (3, "policy", "none", "denominator: strategy 3 expects an earlier, weaker student, got 'none'"),
    ],
)
def test_strategies_refuse_what_is_none_of_them(
    strategy: int | None, numerator: str, denominator: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        a_signal(strategy=strategy, numerator=numerator, denominator=denominator)


def test_a_run_sets_the_noise_samples_of_every_scoring_and_of_nothing_else() -> None:
    steps = {
        "base": {"type": "tiny"},
        "prompts": {"type": "jsonl", "path": "./p.jsonl"},
        "rollout": {"prompts": "prompts"},
        "score": {"rollouts": "rollout", "checkpoint": "policy"},
        "teacher": {"rollouts": "rollout", "steps": 1, "loss": {"type": "mse"}},
    }
    recipe = build_recipe({"run": "x", "scoring": {"noise_samples": 5}, "steps": steps}, "x.yaml")
    made = recipe.rounds[0].steps
    assert made["score"].noise_samples == 5
    assert not hasattr(made["teacher"], "noise_samples")


def test_the_anchor_of_a_signal_is_scored_as_its_sides_are() -> None:
    overrides = ("signal.old=teacher@step-8", "scoring.noise_samples=5")
    nodes = {node.step: node for node in make_plan(load_recipe("quickstart", overrides)).nodes}
    edges = {edge.role: edge for edge in nodes["signal"].inputs}
    assert edges["old"].kinds == edges["numerator"].kinds == ("logprobs",)
    assert edges["old"].source == "r1/score-teacher-step-8"
    assert edges["denominator"].source != edges["old"].source
    assert {node.config.noise_samples for node in nodes.values() if node.config.stage == "score"} == {5}
    with pytest.raises(ConfigError, match=r"signal.old: expected a checkpoint, got none"):
        make_plan(load_recipe("quickstart", ["signal.old=none"]))


# ------------------------------------------------------------------------------------------- statistics


def a_block(values: np.ndarray, lengths: list[int], labels: list[float]) -> SignalBlock:
    ids = [f"p{index}" for index in range(len(lengths))]
    return SignalBlock(values.astype(np.float32), np.array(lengths), np.array(labels), ids, list(range(len(lengths))))


def pieces(block: SignalBlock, responses: int) -> Iterator[SignalBlock]:
    """The same responses in blocks of so many."""
    ends = np.cumsum(block.lengths)
    for start in range(0, len(ends), responses):
        rows = slice(start, start + responses)
        first = ends[start] - block.lengths[start]
        values = block.values[first : ends[rows][-1]]
        yield SignalBlock(values, block.lengths[rows], block.labels[rows], block.problem_ids[rows], block.ks[rows])


def test_description_tells_labels_positions_and_outliers_apart() -> None:
    right = np.array([2.0] + [0.0] * 18 + [1.0])
    wrong = np.array([-4.0] + [0.0] * 8 + [-1.0])
    summary = describe_signal([a_block(np.concatenate([right, wrong]), [20, 10], [1, 0])])
    assert summary["tokens"] == 30
    assert summary["mean_positive"] == pytest.approx(3 / 20)
    assert summary["mean_negative"] == pytest.approx(-0.5)
    assert summary["std_negative"] == pytest.approx(wrong.std(ddof=1))
    assert summary["share_positive"] == pytest.approx(2 / 30)
    assert summary["quantiles_negative"] | {"0.5": 0} == summary["quantiles_negative"]
    rows = {(row["label"], row["position"]): row for row in summary["by_label_and_position"]}
    assert len(rows) == 3 * (1 + len(POSITIONS))
    assert rows["negative", None]["std"] == pytest.approx(summary["std_negative"], rel=1e-4)
    assert (rows["positive", "first"]["mean"], rows["positive", "last"]["mean"]) == (2, 1)
    assert (rows[None, "first"]["min"], rows[None, "first"]["max"]) == (-4, 2)
    assert (rows["negative", "0-10 %"]["tokens"], rows["positive", "0-10 %"]["tokens"]) == (1, 2)
    assert rows["positive", "90-100 %"]["mean"] == 0.5
    values = np.concatenate([right, wrong])
    assert abs(-4 - values.mean()) < 5 * values.std(ddof=1)
    assert rows["negative", "first"]["share_beyond_5_std"] == 0
    assert summary["outliers"][0] == {
        "problem_id": "p1", "k": 1, "position": 0, "length": 10, "label": 0, "value": -4.0,
        "deviations": pytest.approx((-4 - values.mean()) / values.std(ddof=1), rel=1e-4),
    }  # fmt: skip
    assert [row["value"] for row in summary["outliers"][1:4]] == [2.0, 1.0, -1.0]
    assert json.loads(json.dumps(summary)) == summary


def test_shares_beyond_deviations_are_by_label_and_position() -> None:
    values = np.zeros((40, 100))
    values[3, 0] = 9.0  # a right response; deviation 0.142, so beyond ten of them
    values[4, 99] = -1.0  # a wrong one; between five and ten
    labels = [1.0, 0.0] * 20
    labels[3], labels[4] = 1.0, 0.0
    summary = describe_signal([a_block(values.ravel(), [100] * 40, labels)])
    rows = {(row["label"], row["position"]): row for row in summary["by_label_and_position"]}
    right, wrong = labels.count(1.0), labels.count(0.0)
    assert rows["positive", "first"]["share_beyond_10_std"] == pytest.approx(1 / right, rel=1e-4)
    assert rows["negative", "last"]["share_beyond_5_std"] == pytest.approx(1 / wrong, rel=1e-4)
    assert rows["negative", "last"]["share_beyond_10_std"] == 0
    assert rows["positive", "10-20 %"]["share_beyond_5_std"] == 0
    assert summary["share_beyond_5_std"] == pytest.approx(2 / 4000)


def test_description_is_that_of_the_sorted_values_however_it_is_cut() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 60, size=300).tolist()
    values = rng.standard_cauchy(sum(lengths)).astype(np.float32)
    values[::7] = 0
    labels = [(1.0, 0.0, float("nan"))[index % 3] for index in range(300)]
    block = a_block(values, lengths, labels)
    whole, cut = describe_signal([block]), describe_signal(list(pieces(block, 7)))
    assert whole["by_label_and_position"] == cut["by_label_and_position"]
    assert whole["outliers"] == cut["outliers"]
    flat = ("by_label_and_position", "outliers", "quantiles_positive", "quantiles_negative")
    numbers = [{k: v for k, v in summary.items() if k not in flat} for summary in (whole, cut)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-9)
    token_labels = np.repeat(labels, lengths)
    exact = values.astype(np.float64)
    for name, chosen in (("positive", values[token_labels == 1]), ("negative", values[token_labels == 0])):
        ordered = np.sort(chosen)
        for quantile in QUANTILES:
            assert cut[f"quantiles_{name}"][f"{quantile:g}"] == ordered[round(quantile * (len(ordered) - 1))]
        assert cut[f"std_{name}"] == pytest.approx(chosen.astype(np.float64).std(ddof=1), rel=1e-9)
    assert cut["quantile_0.5"] == np.sort(values)[round(0.5 * (len(values) - 1))]
    assert cut["std"] == pytest.approx(exact.std(ddof=1), rel=1e-9)
    assert cut["share_beyond_5_std"] == (np.abs(exact - exact.mean()) > 5 * exact.std(ddof=1)).mean()
    offsets = np.concatenate([np.arange(length) for length in lengths])
    inside = np.sort(values[(token_labels == 1) & (10 * offsets // np.repeat(lengths, lengths) == 4)])
    row = next(r for r in cut["by_label_and_position"] if (r["label"], r["position"]) == ("positive", "40-50 %"))
    assert (row["tokens"], row["mean"]) == (len(inside), pytest.approx(inside.astype(np.float64).mean(), rel=1e-4))
    for quantile in (0.01, 0.05, 0.5, 0.95, 0.99):
        expected = float(inside[round(quantile * (len(inside) - 1))])
        assert row[f"quantile_{quantile:g}"] == pytest.approx(expected, rel=0.008)
        assert abs(row[f"quantile_{quantile:g}"]) <= abs(expected) * 1.0001


def test_a_signal_without_tokens_is_refused() -> None:
    with pytest.raises(ArtifactError, match="expected response tokens"):
        describe_signal([])


def test_a_signal_that_is_zero_everywhere_has_no_outliers() -> None:
    summary = describe_signal([a_block(np.zeros(30), [30], [1.0])])
    assert (summary["std"], summary["outliers"], summary["quantile_0.5"]) == (0, [], 0)
