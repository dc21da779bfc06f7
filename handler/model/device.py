"""Which device, which dtype and how many threads a worker uses (imports torch)."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from handler.contract.settings import Settings
from handler.model.dtype_probe import DtypeProbe, probe_dtypes, processor_name


def choose_device(wanted: str, gpu_id: int | None) -> torch.device:
    """The device a worker draws on; ``gpu_id`` is TorchServe's assignment, None on a machine without GPUs.

    Raises RuntimeError where cuda is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("model-config.yaml asks for device cuda, but torch finds no CUDA device")
    if wanted == "cpu" or (wanted == "auto" and (gpu_id is None or not torch.cuda.is_available())):
        return torch.device("cpu")
    return torch.device("cuda", gpu_id or 0)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with the instruction sets that torch uses on it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def choose_dtype_by_probe(settings: Settings, device: torch.device, width: int) -> DtypeProbe | None:
    """The measured rates by which a CPU's dtype is chosen; None where nothing is to be measured.

    That is so where model-config.yaml names the dtype, on a GPU, for a UNet whose widest block has few
    channels (``width``), and in strict mode: replicas on different machines must agree.
    """
    if settings.dtype != "auto" or settings.strict or device.type != "cpu":
        return None
    return probe_dtypes(width)


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Without rates: float32 on a CPU, bfloat16 on GPUs that compute in it (8.0 and up), else float16."""
    if wanted != "auto":
        dtype = getattr(torch, wanted)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def choose_channels_last(wanted: bool | str, dtype: torch.dtype) -> bool:
    """Channels-last convolutions pay where they run in half precision: tensor cores, AMX."""
    return wanted if isinstance(wanted, bool) else dtype is not torch.float32


def set_threads(settings: Settings) -> int:
    """Give this worker its share of the cores and return it; call once, before the first operation.

    Two workers with two OpenMP threads each on two cores spin against each other and take twenty times as
    long (measured).
    """
    share = max(1, cores() // settings.workers)
    # torch starts with OMP_NUM_THREADS. Where several servers share these cores, it holds the share of each.
    threads = settings.threads if isinstance(settings.threads, int) else min(share, torch.get_num_threads())
    torch.set_num_threads(threads)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)
    return threads


def cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this process may use: its affinity, or the container's CPU quota where that is less."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, int(quota) // int(period)))
