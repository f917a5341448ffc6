"""When DeepSpeed reduces gradients and steps, for `erpd_hub.training.step`."""

from contextlib import AbstractContextManager, nullcontext

import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from erpd_hub.training.step import Sync


class EngineSync(Sync):
    """DeepSpeed: ZeRO-3 reduces after each micro-batch, and the engine clips and steps after the last."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.engine = accelerator.deepspeed_engine_wrapped
        self.world = accelerator.num_processes

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        self.engine.engine.set_gradient_accumulation_boundary(last)  # the forward pass looks at it too
        return nullcontext()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.engine.backward(loss, sync_gradients=last, scale_wrt_gas=False)

    def total(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values
