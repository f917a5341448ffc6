"""The policy a run starts from: a tiny one warmed up on flawed additions, or an imported one."""

from pathlib import Path

from erpd_hub.config import ImportBase, TinyBase
from erpd_hub.stage_context import StageContext, StageResult


def run(config: TinyBase | ImportBase, out: Path, *, context: StageContext, source: Path | None = None) -> StageResult:
    """Write a checkpoint folder in fp32.

    Args:
        source: What to import: a transformers folder, a folder with a GGUF in it, or a .gguf file.

    Raises:
        StageError: the warm start did not reach its accuracy in `max_steps`.
        ArtifactError: the source has no weights that are read here, or needs code that was not asked for.
    """
    if isinstance(config, TinyBase):
        return _warm_start(config, out, context)
    assert source is not None, "an imported base needs its source"
    from erpd_hub.models import chat_template_hash, context_length, import_checkpoint

    model, tokenizer = import_checkpoint(source, out, config.gguf_file, trust_remote_code=config.trust_remote_code)
    return StageResult(
        {
            "parameters": model.num_parameters(),
            "context_length": context_length(model),
            "chat_template_hash": chat_template_hash(tokenizer),
        }
    )


def _warm_start(config: TinyBase, out: Path, context: StageContext) -> StageResult:
    from erpd_hub.models import chat_template_hash, context_length, save_checkpoint
    from erpd_hub.tiny_policies import tiny_policy
    from erpd_hub.training.warm_start import WarmStart

    model, tokenizer = tiny_policy(config, context.seed)
    warm_start = WarmStart(config, context.seed, context.work, model, tokenizer)
    warm_start.run()
    save_checkpoint(model, tokenizer, out)
    return StageResult(
        {
            "steps": warm_start.step,
            "validation_accuracy": warm_start.accuracy(),
            "parameters": model.num_parameters(),
            "context_length": context_length(model),
            "chat_template_hash": chat_template_hash(tokenizer),
        }
    )
