"""What pushing a teacher in bf16 does to its signal and to the student distilled from it, at two of its steps.

Runs the recipe `teacher-precision`: one CE training, its weights pushed in fp32 and in bf16, each scored in fp32. The
two signals are laid on the same tokens, the two students of each step on the states of the same rollouts. The rounding
of weights is a perturbation of fixed size, so the less a teacher has moved, the more of its signal is rounding.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from erpd_hub.estimators import masked_mean
from erpd_hub.exact_kl import full_vocabulary_kl
from erpd_hub.layout import cut_batches
from erpd_hub.models import load_model
from erpd_hub.pipeline import Outcome, open_hub, run_plan
from erpd_hub.plan import make_plan
from erpd_hub.recipe import load_recipe
from erpd_hub.response_batch import make_batch
from erpd_hub.signals import whiten
from erpd_hub.training.data import read_columns, read_trajectories

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCHEMA = "erpd-hub/bench-precision/v1"
RECIPE = "teacher-precision"
STEPS = (10, 50)
_COMPARED = 512
"""Rollouts on whose states two policies are compared."""
_BUDGET = 4096


def run(overrides: Sequence[str] = (), recipe: str = RECIPE, steps: Sequence[int] = STEPS) -> dict[str, Any]:
    """Run the recipe, or find it run, and compare.

    Args:
        recipe: One with the steps `signal-N`, `signal-bf16-N`, `student-N` and `student-bf16-N` for each N of `steps`.
    """
    outcome = run_plan(make_plan(load_recipe(recipe, overrides)))
    folders = _Folders(outcome)
    rows = {row["ref"]: row for row in outcome.summary["checkpoints"]}
    return {
        "schema": SCHEMA,
        "recipe": recipe,
        "overrides": list(overrides),
        "seed": outcome.plan.recipe.seed,
        "base_avg": rows["base"]["avg"],
        "steps": [_compare_at(step, step == max(steps), folders, rows) for step in steps],
    }


def compare_signals(exact: Tensor, rounded: Tensor) -> dict[str, float]:
    """Two signals on the same tokens, (N,) nats each: how far the second is from the first, and what stage 2 sees."""
    exact, rounded = exact.double(), rounded.double()
    everywhere = torch.ones_like(exact, dtype=torch.bool)
    difference = rounded - exact
    white = [whiten(values, everywhere, shift_mean=True) for values in (exact, rounded)]
    large = exact.abs() > exact.std()
    flips = (exact.sign() * rounded.sign()) < 0
    return {
        "tokens": exact.numel(),
        "sd_fp32": exact.std().item(),
        "sd_bf16": rounded.std().item(),
        "sd_difference": difference.std().item(),
        "noise_to_signal": (difference.std() / exact.std()).item(),
        "correlation": torch.corrcoef(torch.stack([exact, rounded]))[0, 1].item(),
        "sign_flips": flips.double().mean().item(),
        "sign_flips_beyond_one_sd": masked_mean(flips.double(), large).item(),
        "whitened_rms_difference": (white[1] - white[0]).square().mean().sqrt().item(),
    }


def render(report: dict[str, Any]) -> str:
    """The report as a table, a column for each step."""
    lines = [f"{report['recipe']}, seed {report['seed']}: base AVG {report['base_avg']:.3f}"]
    lines.append("  teacher's step".ljust(48) + "".join(f"{at['step']:>12d}" for at in report["steps"]))
    for part in ("signal", "teachers", "students"):
        lines.append(part)
        for name in report["steps"][0][part]:
            values = "".join(f"{at[part][name]:12.4g}" for at in report["steps"])
            lines.append(f"  {name}".ljust(48) + values)
    return "\n".join(lines)


class _Folders:
    """Artifacts of a run on disk, and policies of it in memory."""

    def __init__(self, outcome: Outcome) -> None:
        self.hub = open_hub(outcome.plan)
        self.finished = {item.node.step: item for item in outcome.finished if item.node.folder == ""}

    def pull(self, name: str, step: int | None = None) -> Path:
        item = self.finished[name]
        sha = item.revision if step is None else item.steps[step][0]
        return self.hub.pull(item.record.repo_type, item.record.repo_id, sha, item.record.folder)


def _compare_at(step: int, last: bool, folders: _Folders, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    signals = [_flat_signal(folders.pull(f"signal{kind}-{step}")) for kind in ("", "-bf16")]
    saved = "" if last else f"@step-{step}"
    policy = folders.pull("base")
    teachers = [folders.pull(name, step) for name in ("teacher", "teacher-bf16")]
    students = [folders.pull(f"student{kind}-{step}") for kind in ("", "-bf16")]
    return {
        "step": step,
        "signal": compare_signals(*signals),
        "teachers": _compare_policies(teachers, policy, folders.pull("rollouts"))
        | {"avg_fp32": rows[f"teacher{saved}"]["avg"], "avg_bf16": rows[f"teacher-bf16{saved}"]["avg"]},
        "students": _compare_policies(students, policy, folders.pull("rollouts"))
        | {"avg_fp32": rows[f"student-{step}"]["avg"], "avg_bf16": rows[f"student-bf16-{step}"]["avg"]},
    }


def _flat_signal(folder: Path) -> Tensor:
    columns = read_columns(folder, "signal")["signal"]
    return torch.cat([values for _, values in sorted(columns.items()) if values is not None])


def _compare_policies(pair: Sequence[Path], policy: Path, rollouts: Path) -> dict[str, float]:
    """KL per token over the whole vocabulary, on states of the rollouts: of the pair, and for scale to the policy."""
    exact, rounded = (load_model(folder) for folder in pair)
    return {
        "kl_fp32_to_bf16": _mean_kl(exact, rounded, rollouts),
        "kl_fp32_to_policy": _mean_kl(exact, load_model(policy), rollouts),
    }


def _mean_kl(p: "PreTrainedModel", q: "PreTrainedModel", rollouts: Path) -> float:
    total = count = 0.0
    for prompts, responses in _batches(rollouts):
        batch = make_batch(prompts, responses, p.device)
        total += full_vocabulary_kl(p, q, batch).kl.double().sum().item()
        count += batch.mask.sum().item()
    return total / count


def _batches(rollouts: Path) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    chosen = read_trajectories(rollouts)[:_COMPARED]
    for cut in cut_batches([len(row) for row in chosen], _BUDGET, "padded"):
        yield [chosen[i].prompt_ids for i in cut], [chosen[i].response_ids for i in cut]
