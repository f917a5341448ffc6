import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets.utils.logging import disable_progress_bar
from tiny import context, make_policy, save_policy, write_rollouts
from transformers import PrinterCallback
from trl import GRPOConfig
from typer.testing import CliRunner

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.cli import app
from erpd_hub.config import DistillConfig, ScoreConfig, SignalConfig
from erpd_hub.errors import ArtifactError, ConfigError, StageError
from erpd_hub.export import export_signal, load_trl, load_verl
from erpd_hub.models import load_model, load_tokenizer
from erpd_hub.signals import Shaping
from erpd_hub.stages import distill, score, signal

disable_progress_bar()
MASKED = Shaping(right="negative", mask_first=False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    """Two policies, rollouts of one, and the signal between them."""
    home = tmp_path_factory.mktemp("parts")
    found = {"policy": save_policy(home / "policy"), "other": save_policy(home / "other", seed=1)}
    found["rollouts"] = write_rollouts(home / "rollouts")
    for name in ("policy", "other"):
        found[f"{name}-scored"] = home / f"{name}-scored"
        config = ScoreConfig(rollouts="r", checkpoint="policy")
        score.run(config, home / f"{name}-scored", context=context(home / name), rollouts=found["rollouts"],
                  checkpoint=found[name])  # fmt: skip
    found["signal"] = home / "signal"
    signal.run(
        SignalConfig(rollouts="r", numerator="teacher"), home / "signal", context=context(home / "s"),
        rollouts=found["rollouts"], old=found["policy-scored"], numerator=found["other-scored"],
        denominator=found["policy-scored"],
    )  # fmt: skip
    return found


def export(parts: dict[str, Path], out: Path, format="trl", shaping=Shaping()) -> dict:
    return export_signal(parts["rollouts"], parts["signal"], out, format=format, shaping=shaping)


def rows(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_an_export_holds_what_distill_would_train_on(tmp_path, parts) -> None:
    report = export(parts, tmp_path / "out")
    found = rows(tmp_path / "out")
    raw = {(r["problem_id"], r["k"]): r for r in rows(parts["signal"])}
    values = torch.tensor([x for row in found for x in row["advantages"]], dtype=torch.float64)
    signals = torch.tensor([x for r in found for x in raw[r["problem_id"], r["k"]]["signal"]], dtype=torch.float64)
    assert torch.allclose(values, (signals - signals.mean()) / signals.std(), atol=1e-5)
    assert all(row["old_logprobs"] == raw[row["problem_id"], row["k"]]["old"] for row in found)
    assert (report["samples"], report["prompts"], report["largest_group"]) == (18, 6, 3) and len(values) == sum(
        len(row["response_ids"]) for row in found
    )  # fmt: skip
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == report
    assert (tmp_path / "out" / "load_trl.py").read_bytes() == Path(load_trl.__file__).read_bytes()
    text = (tmp_path / "out" / "README.md").read_text()
    assert "num_generations=3" in text and str(tmp_path) not in text


def test_trl_is_told_of_two_generations_at_least(tmp_path, parts, monkeypatch) -> None:
    monkeypatch.setattr("erpd_hub.export._largest_group", lambda _: 1)
    export(parts, tmp_path / "out")
    assert "num_generations=2, per_device_train_batch_size=2" in (tmp_path / "out" / "README.md").read_text()


def test_masks_are_those_of_distill(tmp_path, parts) -> None:
    export(parts, tmp_path / "out", shaping=MASKED)
    raw = {(r["problem_id"], r["k"]): r for r in rows(parts["signal"])}
    for row in rows(tmp_path / "out"):
        for value, before in zip(row["advantages"], raw[row["problem_id"], row["k"]]["signal"], strict=True):
            assert (value == 0) == (row["label"] == 1 and before > 0)


def test_truncated_responses_are_left_out_as_in_distill(tmp_path, parts) -> None:
    """Whitening then goes by the others; `rollouts` in which the first response of each prompt ended by length."""
    cut = shutil.copytree(parts["rollouts"], tmp_path / "cut")
    for path in sorted((cut / "data").glob("*.parquet")):
        table = pq.read_table(path)
        pairs = zip(table["k"].to_pylist(), table["finish_reason"].to_pylist(), strict=True)
        ends = ["length" if k == 0 else end for k, end in pairs]
        at = table.schema.get_field_index("finish_reason")
        pq.write_table(table.set_column(at, table.schema.field(at), pa.array(ends, table.schema.field(at).type)), path)
    told = shutil.copytree(parts["signal"], tmp_path / "told")
    info = json.loads((told / "signal.json").read_text())
    (told / "signal.json").write_text(json.dumps(info | {"rollouts_digest": digest_files(payload_files(cut))}))
    for truncated, samples in (("negative", 18), ("masked", 12), ("dropped", 12)):
        out = tmp_path / truncated
        report = export_signal(cut, told, out, format="trl", shaping=Shaping(), truncated=truncated)
        assert (report["samples"], report["truncated"]) == (samples, truncated)
        values = torch.tensor([x for row in rows(out) for x in row["advantages"]], dtype=torch.float64)
        assert (values.mean().item(), values.std().item()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_an_export_is_refused_over_files_and_from_other_rollouts(tmp_path, parts) -> None:
    export(parts, tmp_path / "out")
    with pytest.raises(ConfigError, match="expected a folder that is empty or not there"):
        export(parts, tmp_path / "out")
    other = {**parts, "rollouts": write_rollouts(tmp_path / "other", prompts=4)}
    with pytest.raises(ArtifactError, match="other rollouts"):
        export(other, tmp_path / "second")


def test_a_signal_no_more_than_rounding_is_refused_as_in_distill(tmp_path, parts) -> None:
    signal.run(
        SignalConfig(rollouts="r", numerator="teacher", denominator="teacher"), tmp_path / "signal",
        context=context(tmp_path), rollouts=parts["rollouts"], old=parts["policy-scored"],
        numerator=parts["other-scored"], denominator=parts["other-scored"],
    )  # fmt: skip
    same = {**parts, "signal": tmp_path / "signal"}
    with pytest.raises(StageError, match=r"signal: expected one that varies by more than rounding.*--no-whiten"):
        export(same, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(same, tmp_path / "out", shaping=Shaping(whiten=False))["samples"] == 18


def grpo(parts: dict[str, Path], folder: Path, data, *, num_generations: int, prompts: int, steps: int):
    """Train with the exported loader in TRL, and return the trainer."""
    arguments = GRPOConfig(
        str(folder), loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, temperature=1.0,
        num_generations=num_generations, per_device_train_batch_size=num_generations,
        gradient_accumulation_steps=prompts, max_steps=steps, learning_rate=1e-3, lr_scheduler_type="constant",
        adam_beta2=0.95, max_grad_norm=1.0, weight_decay=0.0, disable_dropout=True, gradient_checkpointing=False,
        bf16=False, save_strategy="no", logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = load_trl.StoredResponses(
        load_model(parts["policy"]), reward_funcs=load_trl.no_reward, args=arguments, train_dataset=data,
        processing_class=load_tokenizer(parts["policy"]),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


@pytest.mark.parametrize("shaping", [Shaping(), MASKED])
def test_stage_two_in_trl_is_stage_two_here(tmp_path, parts, shaping) -> None:
    steps = 3
    export(parts, tmp_path / "export", shaping=shaping)
    theirs = grpo(parts, tmp_path / "trl", load_trl.load_prompts(str(tmp_path / "export")), num_generations=3,
                  prompts=6, steps=steps)  # fmt: skip
    config = DistillConfig(
        rollouts="r", signal="signal", learning_rate=1e-3, steps=steps, save_steps=(1,), prompts_per_step=6,
        keep_on_right=shaping.right, whiten_order="after_mask" if shaping.mask_first else "before_mask",
    )  # fmt: skip
    ours = distill.run(config, tmp_path / "ours", context=context(tmp_path), rollouts=parts["rollouts"],
                       init=parts["policy"], signal=parts["signal"])  # fmt: skip
    norms = [line["grad_norm"] for line in theirs.state.log_history if "grad_norm" in line]
    for step in (1, steps):
        assert ours.step_metrics[step]["grad_norm"] == pytest.approx(norms[step - 1], rel=1e-3)
    start, mine = load_model(parts["policy"]), load_model(tmp_path / "ours" / f"step-{steps}")
    moved = apart = 0.0
    for name, weight in mine.named_parameters():
        moved += float((weight - start.get_parameter(name)).detach().abs().sum())
        apart += float((weight - theirs.model.get_parameter(name)).detach().abs().sum())
    assert apart < 0.01 * moved


def test_a_prompt_with_fewer_samples_counts_for_what_it_has(tmp_path, parts) -> None:
    export(parts, tmp_path / "export")
    whole = load_trl.load_prompts(str(tmp_path / "export"))
    alone = whole.select([0])
    fewer = alone.map(lambda row: {name: row[name][:2] for name in load_trl.COLUMNS})
    padded = grpo(parts, tmp_path / "padded", fewer, num_generations=3, prompts=1, steps=1)
    exact = grpo(parts, tmp_path / "exact", fewer, num_generations=2, prompts=1, steps=1)
    norms = [t.state.log_history[0]["grad_norm"] for t in (padded, exact)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4) and norms[0] > 0


def test_the_loader_for_verl_pads_prompts_left_and_responses_right(tmp_path, parts) -> None:
    export(parts, tmp_path / "export", format="verl")
    pad = make_policy()[1].pad_token_id
    batches: Iterator = load_verl.load_batches(str(tmp_path / "export"), 4, pad)
    first, second = list(batches)
    source = rows(tmp_path / "export")
    assert (len(first["responses"]), len(second["responses"])) == (12, 6)
    for batch, expected in ((first, source[:12]), (second, source[12:])):
        width = batch["prompts"].shape[1]
        assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["position_ids"].shape
        for index, row in enumerate(expected):
            there = batch["attention_mask"][index].bool()
            assert batch["input_ids"][index][there].tolist() == row["prompt_ids"] + row["response_ids"]
            assert batch["position_ids"][index][there].tolist() == list(range(int(there.sum())))
            assert there[width - 1] and there[width]
            mask = batch["response_mask"][index].bool()
            for name, column in (("advantages", "advantages"), ("old_log_probs", "old_logprobs")):
                assert batch[name][index][mask].tolist() == row[column]
                assert not batch[name][index][~mask].any()


def test_without_a_recipe_and_out_again(tmp_path, micro, monkeypatch) -> None:
    shutil.copytree(micro.home, tmp_path / "home")
    monkeypatch.setenv("ERPD_HOME", str(tmp_path / "home"))

    def cli(*words: object) -> str:
        done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    command = ["distill", "--rollouts", "local/micro-r1-rollouts", "--numerator", "local/micro-r1-teacher"]
    command += ["--denominator", "local/micro-r1-unlearned", "--name", "own", "prompts_per_step=8", "threads=1"]
    made = json.loads(cli(*command, "--json"))["artifacts"]
    assert [item["step"] for item in made][-2:] == ["r1/signal", "r1/distill"] and len(made) == 5
    assert [item["reused"] for item in made] == [True, True, True, False, False], "the other run has these scores"
    cli("signal", "export", "local/own-r1-signal", "--format", "verl", "--output", tmp_path / "out")
    exported = rows(tmp_path / "out")
    assert len(exported) == 64 and all(len(r["advantages"]) == len(r["response_ids"]) for r in exported)
    file = tmp_path / "rows.jsonl"
    columns = ("problem_id", "k", "prompt_ids", "response_ids", "label")
    file.write_text("".join(json.dumps({name: row[name] for name in columns}) + "\n" for row in exported))
    drawn = ["policy=local/micro-r1-base", "decoding.temperature=0.6"]
    cli("rollout", "import", "--from", "jsonl", file, *drawn, "--name", "back")
    seen = cli("lineage", "verify", "local/back-r1-rollout")
    assert "0 missing or altered" in seen and str(tmp_path) not in seen
    again = ["distill", "--rollouts", "local/back-r1-rollout", *command[3:], "steps=2", "--dry-run", "--json"]
    for given, temperature in (((), 0.6), (("logprob_temperature=1.0",), 1.0)):
        nodes = json.loads(cli(*again, *given))["nodes"]
        used = {node["config"]["logprob_temperature"] for node in nodes if node["stage"] in ("score", "distill")}
        assert used == {temperature}, "that of the record, unless one is given"
