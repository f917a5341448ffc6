"""What a training step keeps of its forward pass.

Checkpointing keeps each layer's input (T * H * 4 bytes: the residual stream is fp32 under autocast) and computes the
rest again in backward. `offload` keeps those inputs in pinned host memory. `keep_attention` keeps what attention
returned as well (T * heads * head_dim * 2 bytes a layer in bf16): at long context attention is most of the recompute,
and the one part whose output is small against its cost.

Needs torch and transformers alone.
"""

from functools import partial

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

_ATTENTION_OPS = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
)


def checkpoint_activations(model: PreTrainedModel, *, offload: bool = False, keep_attention: bool = False) -> None:
    """Switch on gradient checkpointing of every layer; it does nothing while the model is in evaluation mode."""
    arguments: dict[str, object] = {"use_reentrant": False}
    if keep_attention:
        arguments["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_attention)
    # Without an accelerator what is saved lies in host memory already, and there is none to pin.
    offload = offload and torch.accelerator.is_available()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=arguments, offload=offload)


def _keep_attention(_: object, op: object, *args: object, **kwargs: object) -> CheckpointPolicy:
    # flash-attn's own kernels register under hashed namespaces, so they can only be told by name.
    if op in _attention_ops() or "flash_attn" in str(op):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _attention_ops() -> set[object]:
    """Of the builds of torch that have them."""
    return {getattr(torch.ops.aten, name).default for name in _ATTENTION_OPS if hasattr(torch.ops.aten, name)}
