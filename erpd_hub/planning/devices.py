"""What plans know of GPUs: data-sheet peaks, memory as the driver reports it, and how much of it all is usable."""

from dataclasses import dataclass, replace
from typing import Literal

from erpd_hub.errors import ConfigError
from erpd_hub.recipe_files import suggestion

GPUName = Literal["h100", "h200", "a100", "b200", "l40s", "cpu"]


@dataclass(frozen=True)
class Device:
    """One accelerator."""

    name: str
    tflops: float
    """Dense bfloat16 peak, 1e12 operations a second."""
    memory: float
    """GB (1e9 bytes) that the driver reports."""
    bandwidth: float
    """GB/s of its memory."""
    source: str

    @property
    def usable(self) -> float:
        """GB left for a process beside the CUDA context, NCCL and fragmentation."""
        return self.memory * USABLE


USABLE = 0.94
"""[I] Of the reported memory: 1 to 2 GB of context and communicators, and what the caching allocator cannot reuse."""

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("h100", 989.4, 85.5, 3350, "NVIDIA H100 SXM5 data sheet, 989.4 TFLOP/s dense; 81,559 MiB"),
        Device("h200", 989.4, 150.8, 4800, "NVIDIA H200 SXM data sheet, 4.8 TB/s; 143,771 MiB"),
        Device("a100", 312.0, 85.9, 2039, "NVIDIA A100 SXM4 80 GB data sheet; 81,920 MiB"),
        Device("b200", 2250.0, 192.3, 7700, "NVIDIA HGX B200 data sheet, dense half of 4,500; 183,359 MiB"),
        Device("l40s", 362.0, 48.3, 864, "NVIDIA L40S data sheet, dense half of 733; 46,068 MiB"),
        Device("cpu", 0.1, 16.0, 20, "two cores of a server, fp32: an order of magnitude [I]"),
    )
}


def get_device(name: str, *, memory: float | None = None) -> Device:
    """A device by name, with other memory (GB) where it is given.

    Raises:
        ConfigError: an unknown name.
    """
    if name.lower() not in DEVICES:
        raise ConfigError(f"--gpu: expected one of {', '.join(DEVICES)}, got {name!r}{suggestion(name, list(DEVICES))}")
    found = DEVICES[name.lower()]
    return replace(found, memory=memory) if memory is not None else found
