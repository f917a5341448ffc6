"""Training over several CPU processes gives what one process gives, with each wrapper and for every loss.

accelerate takes FSDP2 for DDP where there is no GPU, so that one is wrapped by `fully_shard` around the same step.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import distributed_runs as runs
import pytest
import torch
from processes import launch, launch_environment
from safetensors.torch import load_file
from tiny import folder_digest, save_policy, write_rollouts

from erpd_hub.samples import read_rows
from erpd_hub.training.trainer import train

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Of parameters after two steps at a learning rate of 1e-3, and of metrics: the order of a sum in fp32 is all that
differs, and Adam divides small gradients by their own size."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Policy, rollouts, and the runs of one process."""
    folder = tmp_path_factory.mktemp("distributed")
    save_policy(folder / "policy")
    write_rollouts(folder / "rollouts")
    for case, loss in runs.CASES.items():
        train(runs.trainer_for(folder, f"single/{case}", loss))
    train(runs.trainer_for(folder, "single/killed", runs.CASES["ce-sum"], steps=4))
    runs.fit_critic(folder, "single/critic")
    return folder


def test_ddp_is_one_process(folder) -> None:
    launch(2, runs.train_with_ddp, folder, preset="ddp")
    _check_runs(folder, "ddp")
    assert not (folder / "nan" / "out").exists()


@pytest.mark.skipif(
    find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install 'erpd-hub[deepspeed]'"
)
def test_zero3_is_one_process(folder) -> None:
    launch(2, runs.train_with_zero3, folder, preset="zero3")
    _check_runs(folder, "zero3")


def test_fsdp2_is_one_process(folder) -> None:
    launch(2, runs.steps_with_fsdp2, folder)
    found = torch.load(folder / "fsdp2.pt", weights_only=False)
    for case, loss in runs.FORMULAS.items():
        _check_steps(found[case], runs.steps(folder, loss))


def test_one_rank_of_eight_micro_batches_is_eight_ranks_of_one(folder) -> None:
    launch(8, runs.steps_with_ddp, folder, 10_000)
    found = torch.load(folder / "ddp.pt", weights_only=False)
    for case, loss in runs.FORMULAS.items():
        alone = runs.steps(folder, loss, budget=80)
        assert found[case]["micro_batches"] == 1
        assert alone["micro_batches"] == (3 if case == "sft" else 8), "five ranks of sft have nothing of their own"
        _check_steps(found[case], alone)


def test_presets_leave_the_number_of_processes_and_keep_checkpoints_in_shards() -> None:
    fsdp2, zero3 = (launch_environment(name, 6) for name in ("fsdp2", "zero3"))
    assert (fsdp2["ACCELERATE_USE_FSDP"], fsdp2["FSDP_VERSION"]) == ("true", "2")
    assert (fsdp2["FSDP_STATE_DICT_TYPE"], fsdp2["FSDP_RESHARD_AFTER_FORWARD"]) == ("SHARDED_STATE_DICT", "true")
    assert (zero3["ACCELERATE_USE_DEEPSPEED"], zero3["ACCELERATE_DEEPSPEED_ZERO_STAGE"]) == ("true", "3")
    assert "ACCELERATE_USE_FSDP" not in launch_environment("ddp", 2)
    assert "ACCELERATE_USE_FSDP" not in launch_environment("single", 1)


def _check_runs(folder: Path, name: str) -> None:
    for case in (*runs.CASES, "killed"):
        one, several = (folder / kind / case / "out" for kind in ("single", name))
        steps = 4 if case == "killed" else 2
        assert folder_digest(one).keys() == folder_digest(several).keys()
        for step in (1, steps):
            _check_weights(*(load_file(out / f"step-{step}" / "model.safetensors") for out in (several, one)))
        lines = [[json.loads(line) for line in (out / "dynamics.jsonl").read_text().splitlines()]
                 for out in (several, one)]  # fmt: skip
        assert len(lines[0]) == steps
        for got, expected in zip(*lines, strict=True):
            assert got == pytest.approx(expected, rel=RELATIVE, abs=ABSOLUTE)
    _check_critic(folder / "single" / "critic" / "out" / "step-2", folder / name / "critic" / "out" / "step-2")


def _check_critic(one: Path, several: Path) -> None:
    """Weights, and the values that each process has written for its shards."""
    assert folder_digest(one).keys() == folder_digest(several).keys()
    _check_weights(*(load_file(out / "model.safetensors") for out in (several, one)))
    described = [json.loads((out / "values.json").read_text()) for out in (several, one)]
    assert described[0]["explained_variance"] == pytest.approx(described[1]["explained_variance"], rel=RELATIVE)
    for got, expected in zip(read_rows(several), read_rows(one), strict=True):
        assert got == expected | {"values": pytest.approx(expected["values"], rel=RELATIVE, abs=ABSOLUTE)}


def _check_steps(got: dict, expected: dict) -> None:
    for ours, theirs in zip(got["sums"], expected["sums"], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=RELATIVE)
        for name, pair in theirs.metrics.items():
            assert ours.metrics[name] == pytest.approx(pair, rel=RELATIVE, abs=ABSOLUTE)
    _check_weights(got["weights"], expected["weights"])


def _check_weights(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=RELATIVE, atol=ABSOLUTE)
