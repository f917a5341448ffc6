"""A signal as another trainer takes it: for each response token an advantage and the old log-prob, with the loader.

    data/train-*.parquet   problem_id, k, label, prompt_ids, response_ids, advantages, old_logprobs
    export.json            what the advantages were made from and how
    load_trl.py            (or load_verl.py) a loader to copy: the code of `erpd_hub.export.load_*` as it is
    README.md              how to train with it

Advantages are made by the very functions that `distill` uses, over the whole dataset; whitening over an optimizer step
and the evolving denominator are not exported, since only the trainer knows the step.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from erpd_hub.artifacts import digest_files, payload_files
from erpd_hub.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from erpd_hub.config.training import Truncated
    from erpd_hub.signals import Shaping
    from erpd_hub.training.batches import Trajectory

Format = Literal["trl", "verl"]
SCHEMA = "erpd-hub/signal-export/v1"
_SHARD_TOKENS = 4_000_000


def export_signal(
    rollouts: Path, signal: Path, out: Path, *, format: Format, shaping: "Shaping", truncated: "Truncated" = "negative"
) -> dict[str, Any]:
    """Write an export folder.

    Args:
        rollouts, signal: Artifact folders, the signal made on these rollouts.
        out: A folder that is empty or not there.
        truncated: As in `distill`: unless `negative`, responses that ended by length are left out before whitening.

    Returns:
        What `export.json` says.

    Raises:
        ConfigError: `out` holds something already.
        ArtifactError: the signal is of other rollouts, or not there for every sample.
        StageError: every response ended by length, and they are to be left out; or a signal no more than rounding is
            to be whitened.
    """
    from erpd_hub.stages.score import check_rollouts, read_score_info
    from erpd_hub.training.advantages import fit_shaping, refuse_rounding, shaped
    from erpd_hub.training.data import finished, join, read_columns, read_trajectories

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--output: expected a folder that is empty or not there, got {out}")
    info = read_score_info(signal, "signal")
    digest = digest_files(payload_files(rollouts))
    check_rollouts("signal", info, digest)
    columns = read_columns(signal, "signal", "old")
    rows = join(read_trajectories(rollouts), advantages=columns["signal"], old_logprobs=columns["old"])
    if any(row.advantages is None or row.old_logprobs is None for row in rows):
        raise ArtifactError("signal: expected signal and old log-probs of every sample, got a null")
    if truncated != "negative":
        rows = finished(rows)
    whitening = fit_shaping(rows, shaping).whitening
    refuse_rounding(shaping, whitening)
    rows = shaped(rows, shaping, whitening)
    _write_rows(rows, out)
    report = {
        "schema": SCHEMA,
        "format": format,
        "rollouts_digest": digest,
        "signal_digest": digest_files(payload_files(signal)),
        "shaping": asdict(shaping),
        "truncated": truncated,
        "logprob_temperature": info.logprob_temperature,
        "prompts": len({row.problem_id for row in rows}),
        "samples": len(rows),
        "largest_group": _largest_group(rows),
        "response_tokens": sum(len(row.response_ids) for row in rows),
    }
    (out / "export.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    loader = f"load_{format}.py"
    (out / loader).write_bytes(files("erpd_hub.export").joinpath(loader).read_bytes())
    readme = _README[format].format(**report, generations=max(2, _largest_group(rows)))
    (out / "README.md").write_text(readme, encoding="utf-8")
    return report


def _largest_group(rows: Sequence["Trajectory"]) -> int:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.problem_id] = counts.get(row.problem_id, 0) + 1
    return max(counts.values())


def _write_rows(rows: Sequence["Trajectory"], out: Path) -> None:
    import pyarrow as pa

    from erpd_hub.samples import shard_path, write_tables

    ids, nats = pa.list_(pa.int32()), pa.list_(pa.float32())
    schema = pa.schema(
        [
            ("problem_id", pa.string()),
            ("k", pa.int32()),
            ("label", pa.int8()),
            ("prompt_ids", ids),
            ("response_ids", ids),
            ("advantages", nats),
            ("old_logprobs", nats),
        ]
    )
    part: list[Trajectory] = []
    index = tokens = 0
    for row in rows:
        part.append(row)
        tokens += len(row.response_ids)
        if tokens >= _SHARD_TOKENS or row is rows[-1]:
            table = pa.Table.from_pylist([_plain(each) for each in part], schema=schema)
            write_tables(shard_path(out, index), [table], schema)
            part, tokens, index = [], 0, index + 1


def _plain(row: "Trajectory") -> dict[str, Any]:
    assert row.advantages is not None and row.old_logprobs is not None, "checked before"
    return {
        "problem_id": row.problem_id,
        "k": row.k,
        "label": None if row.label != row.label else int(row.label),
        "prompt_ids": row.prompt_ids.numpy(),
        "response_ids": row.response_ids.numpy(),
        "advantages": row.advantages.numpy(),
        "old_logprobs": row.old_logprobs.numpy(),
    }


_HEAD = """# A token signal, ready to train on

{samples} responses to {prompts} prompts, {response_tokens} response tokens. Each row of `data/*.parquet` has, for each
response token, an advantage (whitened and masked as `export.json` says) and the old policy's log-prob in nats. The
student starts from the policy that sampled.

"""
_README: dict[Format, str] = {
    "trl": _HEAD
    + """## TRL

```python
from load_trl import StoredResponses, load_prompts, no_reward
from trl import GRPOConfig

arguments = GRPOConfig(
    "student", loss_type="dapo", epsilon=0.2, epsilon_high=0.28, beta=0.0, temperature={logprob_temperature},
    num_generations={generations}, per_device_train_batch_size={generations}, gradient_accumulation_steps=32,
    learning_rate=1e-6, lr_scheduler_type="constant", adam_beta2=0.95, max_steps=16,
)
StoredResponses("POLICY", reward_funcs=no_reward, args=arguments, train_dataset=load_prompts(".")).train()
```

`loss_type="dapo"` is the clipped surrogate as a mean over the tokens of an optimizer step, as in `erpd-hub distill`.
`num_generations` is the largest number of samples of a prompt, at least the two that TRL asks for;
`gradient_accumulation_steps` is then the prompts of a step. `temperature` is that of the log-probs. Nothing is
generated and no reward is computed.
""",
    "verl": _HEAD
    + """## verl

```python
from load_verl import load_batches
from verl import DataProto

for batch in load_batches(".", prompts_per_step=32, pad_token_id=tokenizer.pad_token_id):
    data = DataProto.from_dict(tensors=batch)
    data.meta_info["temperature"] = {logprob_temperature}
    actor.update_policy(data)
```

The names are those that verl's actor reads (`responses`, `response_mask`, `input_ids`, `attention_mask`,
`position_ids`, `old_log_probs`, `advantages`). Set `clip_ratio_low`, `clip_ratio_high` and
`loss_agg_mode: token-mean` as `erpd-hub distill` would, and `ppo_mini_batch_size` to the prompts of a step. Shapes and
values are tested; this loader has not been run inside verl.
""",
}
