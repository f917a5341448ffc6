"""Where the time and the memory of a step go.

Phases come from time stamps at the borders of decoder layers (CUDA events on a GPU, so that nothing waits): layers
forward, head and loss with their backward, recompute, backward of the layers, optimizer. Kernels come from one
profiled step, by what their names say. Needs torch alone.
"""

import re
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

_KINDS = (
    ("attention", r"flash|fmha|sdpa|scaled_dot_product|attention"),
    ("optimizer", r"adam|multi_tensor|foreach"),
    ("matrix products", r"gemm|nvjet|cutlass|wgmma|xmma|cublas|aten::(mm|addmm|bmm|baddbmm|matmul|linear)$"),
    ("copies and casts", r"copy|memcpy|memset|aten::(to|clone|contiguous|cat)$|catarray"),
    ("reductions", r"reduce|softmax|logsumexp|aten::(sum|mean|amax|max|norm)|rms_?norm"),
)
_NAMES = 12
_NAME = 100
"""Characters kept of a kernel's name, which templates make long."""


class Clock:
    """Time stamps that do not stop a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def stamp(self) -> "torch.cuda.Event | float":
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: "torch.cuda.Event | float", stop: "torch.cuda.Event | float") -> float:
        """Between two stamps; on a GPU after a synchronisation."""
        if isinstance(start, float) or isinstance(stop, float):
            assert isinstance(start, float) and isinstance(stop, float)
            return stop - start
        return start.elapsed_time(stop) / 1e3


class PhaseClock:
    """Stamps at the borders of decoder layers, their attention and their MLP, while the context is open."""

    def __init__(self, layers: nn.ModuleList, clock: Clock) -> None:
        self.layers, self.clock = layers, clock
        self.spans: dict[str, list[tuple]] = defaultdict(list)
        self._open: dict[tuple[int, str], object] = {}
        self._handles: list = []
        self._head_start: object = None

    def __enter__(self) -> "PhaseClock":
        for layer in self.layers:
            self._watch(layer, "layers")
            for name in ("self_attn", "mlp"):
                if (part := getattr(layer, name, None)) is not None:
                    self._watch(part, name)
        self._handles.append(self.layers[-1].register_forward_hook(self._head_begins))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def phases(self, total: float, optimizer: float) -> dict[str, float]:
        """Seconds by phase of a step of `total` seconds of which the optimizer took `optimizer`."""
        seconds = {
            name: sum(self.clock.seconds(start, stop) for start, stop in spans) for name, spans in self.spans.items()
        }
        forward, recompute = seconds.get("layers", 0.0), seconds.get("layers, recompute", 0.0)
        attention, mlp = seconds.get("self_attn", 0.0), seconds.get("mlp", 0.0)
        head = seconds.get("head", 0.0)
        return {
            "forward: attention with projections": attention,
            "forward: MLP": mlp,
            "forward: norms and residuals": forward - attention - mlp,
            "head and loss, both ways": head,
            "recompute of the layers": recompute,
            "backward of the layers, embedding, rest": total - optimizer - forward - recompute - head,
            "clipping and optimizer": optimizer,
        }

    def _watch(self, module: nn.Module, name: str) -> None:
        def begin(module: nn.Module, _: object) -> None:
            self._open[id(module), name] = self.clock.stamp()

        def end(module: nn.Module, _inputs: object, _output: object) -> None:
            # Checkpointing computes a layer again from within backward.
            label = f"{name}, recompute" if torch._C._current_graph_task_id() != -1 else name
            self.spans[label].append((self._open.pop((id(module), name)), self.clock.stamp()))

        self._handles.append(module.register_forward_pre_hook(begin))
        # Also where recompute stops early, which it does by an exception.
        self._handles.append(module.register_forward_hook(end, always_call=True))

    def _head_begins(self, _module: nn.Module, _inputs: object, output: Tensor | tuple) -> None:
        if torch._C._current_graph_task_id() != -1:
            return
        states = output if isinstance(output, Tensor) else output[0]
        start = self.clock.stamp()
        if states.requires_grad:
            states.register_hook(lambda _: self.spans["head"].append((start, self.clock.stamp())))


class Kernels(NamedTuple):
    """Seconds of one profiled run, the longest first."""

    kinds: dict[str, float]
    longest: dict[str, float]
    """Of single kernels: which attention and which matrix products really ran."""


def profile_kernels(run: Callable[[], object], device: torch.device) -> Kernels:
    """Seconds by kind and name of kernel (on a CPU: of operator, its own time)."""
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CUDA if device.type == "cuda" else kind.CPU]) as profile:
        run()
        synchronize(device)
    kinds: dict[str, float] = defaultdict(float)
    names: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        if device.type == "cuda":
            # Sums over kernels alone: an operator repeats what its kernels took.
            counted = event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
            seconds = event.self_device_time_total / 1e6 if counted else 0.0
        else:
            seconds = event.self_cpu_time_total / 1e6
        kinds[_kind(event.key)] += seconds
        names[event.key[:_NAME]] += seconds
    return Kernels(_longest(kinds), dict(list(_longest(names).items())[:_NAMES]))


def _longest(seconds: dict[str, float]) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name.lower())), "elementwise and other")


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Start a new peak; where a kernel does not let a process reset it, the peak is that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (control := Path("/proc/self/clear_refs")).exists():
        control.write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Most memory held since `reset_peak`: allocated on a GPU, resident on a CPU (the interpreter included)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]


def held_bytes(device: torch.device) -> int:
    """Memory held now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else peak_bytes(device)
