"""The files of a training run: saved steps and metrics in its folder, resumable state in its work directory.

Whatever has its final name is complete. `dynamics.jsonl` holds what the run computed and belongs to the artifact;
`metrics.jsonl` holds how long it took and does not.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from erpd_hub.artifacts import TIMES, write_json
from erpd_hub.errors import StageError
from erpd_hub.models import Dtype, save_checkpoint, save_tokenizer

_DYNAMICS = "dynamics.jsonl"
_CHECKPOINT = "checkpoint-"
_TRAINED = "model.safetensors"
_KIND = "kind.txt"

logger = logging.getLogger(__name__)


class RunFiles:
    """`out/step-N/`, `out/*.jsonl` and `work/checkpoint-N/` of one run."""

    def __init__(self, out: Path, work: Path) -> None:
        self.out = out
        self.work = work
        self.unfinished = work / "unfinished"
        self._dynamics: list[str] = []

    def record(
        self,
        step: int,
        metrics: Mapping[str, float],
        seconds: float,
        peak_bytes: int | None = None,
        *,
        parts: Mapping[str, float] | None = None,
    ) -> None:
        """Append a step's metrics, one line in each file: what its forward pass saw, before its own update.

        Args:
            peak_bytes: Of the first process's GPU; None without one.
            parts: Seconds of the step that went into something else than the update, by what it was.
        """
        assert len(self._dynamics) == step - 1, "steps are recorded in order"
        self._dynamics.append(json.dumps({"step": step, **metrics}))
        self.out.mkdir(parents=True, exist_ok=True)
        self._write_dynamics(self.out)
        times = {"step": step, "seconds": round(seconds, 4), "tokens_per_second": round(metrics["tokens"] / seconds, 1)}
        if peak_bytes is not None:
            times["peak_gb"] = round(peak_bytes / 1e9, 2)
        if parts:
            times |= {name: round(value, 4) for name, value in parts.items()}
            times["update_seconds"] = round(seconds - sum(parts.values()), 4)
        with (self.out / TIMES).open("a") as stream:
            stream.write(json.dumps(times) + "\n")

    def save_step(
        self,
        step: int,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        weights: dict[str, Tensor],
        *,
        dtype: Dtype = "float32",
        source: Path | None = None,
    ) -> None:
        """Write `out/step-N/`: a checkpoint with dynamics and times up to it, whole or not at all."""
        partial = self.out / f".step-{step}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(model, PeftModel):
            save_adapter(model, tokenizer, partial, weights, dtype=dtype)
        else:
            save_checkpoint(model, tokenizer, partial, dtype=dtype, source=source, state_dict=weights)
        self._write_dynamics(partial)
        shutil.copyfile(self.out / TIMES, partial / TIMES)
        shutil.rmtree(self.step_folder(step), ignore_errors=True)
        partial.rename(self.step_folder(step))

    def step_folder(self, step: int) -> Path:
        return self.out / f"step-{step}"

    def has_steps(self, steps: Iterable[int]) -> bool:
        return all(self.step_folder(step).is_dir() for step in steps)

    def step_metrics(self, step: int) -> dict[str, float]:
        """The metrics of the step at which weights were saved."""
        return self.dynamics(step)[-1]

    def dynamics(self, step: int) -> list[dict[str, float]]:
        """The metrics of every step up to one at which weights were saved."""
        return [json.loads(line) for line in (self.step_folder(step) / _DYNAMICS).read_text().splitlines()]

    def publish_checkpoint(self, step: int, kind: str) -> None:
        """Give the checkpoint that Trainer has just written its final name, and drop the older ones.

        Args:
            kind: What it can be read by (`policy.checkpoint_kind`).
        """
        unfinished = self.unfinished / f"{_CHECKPOINT}{step}"
        (unfinished / _KIND).write_text(kind)
        self._write_dynamics(unfinished)
        shutil.rmtree(self._checkpoint(step), ignore_errors=True)
        unfinished.rename(self._checkpoint(step))
        for other in self._checkpoints():
            if other != step:
                shutil.rmtree(self._checkpoint(other))

    def last_checkpoint(self, kept_steps: Iterable[int]) -> Path | None:
        """The newest checkpoint before which no saved step is missing."""
        kept = list(kept_steps)
        usable = [at for at in self._checkpoints() if self.has_steps(step for step in kept if step <= at)]
        return self._checkpoint(max(usable)) if usable else None

    def check_kind(self, checkpoint: Path, kind: str) -> None:
        """Refuse a checkpoint that processes which share the model otherwise have written.

        Raises:
            StageError: it cannot be read as it is.
        """
        found = (checkpoint / _KIND).read_text()
        if found != kind:
            raise StageError(
                f"{checkpoint.name}: expected a checkpoint of {kind}, got one of {found}; go on with the processes it "
                f"was made by, or start over by removing {checkpoint.name} from the work directory"
            )

    def rewind(self, checkpoint: Path | None) -> None:
        """Forget what was recorded after the checkpoint (everything, without one)."""
        lines = [] if checkpoint is None else (checkpoint / _DYNAMICS).read_text().splitlines()
        self._dynamics = lines
        shutil.rmtree(self.unfinished, ignore_errors=True)
        times = self.out / TIMES
        if times.exists():
            times.write_text("".join(line + "\n" for line in times.read_text().splitlines()[: len(lines)]))

    def _write_dynamics(self, folder: Path) -> None:
        partial = folder / f".{_DYNAMICS}.partial"
        partial.write_text("".join(line + "\n" for line in self._dynamics))
        partial.replace(folder / _DYNAMICS)

    def _checkpoint(self, step: int) -> Path:
        return self.work / f"{_CHECKPOINT}{step}"

    def _checkpoints(self) -> list[int]:
        return [int(path.name.removeprefix(_CHECKPOINT)) for path in self.work.glob(f"{_CHECKPOINT}*")]


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, Tensor],
    *,
    dtype: Dtype = "float32",
) -> None:
    """Write a PEFT folder that says nothing of where its base lay; the same weights give the same bytes."""
    save_tokenizer(tokenizer, folder)
    adapter = get_peft_model_state_dict(model, state_dict=weights, save_embedding_layers=False)
    kept = {name: value.to("cpu", getattr(torch, dtype)).contiguous() for name, value in adapter.items()}
    save_file(kept, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = model.peft_config["default"].to_dict() | {"base_model_name_or_path": None, "inference_mode": True}
    listed = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    write_json(folder / "adapter_config.json", json.dumps(listed, indent=2, sort_keys=True))


def save_trained(model: nn.Module, folder: Path) -> None:
    """What training changes, under the model's own names, for the same model to go on from."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    save_file(trained, folder / _TRAINED)


def load_trained(model: nn.Module, folder: Path) -> None:
    state = load_file(folder / _TRAINED)
    expected = {name for name, value in model.named_parameters() if value.requires_grad}
    assert state.keys() == expected, "a checkpoint in the work directory is of this very model"
    model.load_state_dict(state, strict=False)
