"""Floating-point work: counted for SD 1.5's real shapes, and measured for this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.sd15 import UNET, VAE

if TYPE_CHECKING:
    from handler.model.model import Model


@contextmanager
def all_cores() -> Iterator[None]:
    """All cores for torch in this block: the engine's lanes leave the rest of the process only one."""
    import torch

    from handler.model.device import cores

    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def picture_tflop(pixels: int, num_inference_steps: int) -> float:
    """TFLOP of one picture with guidance: UNet calls and VAE decode, counted on tensors without storage."""
    import torch
    from diffusers import AutoencoderKL
    from torch.utils.flop_counter import FlopCounterMode

    side = pixels // 8
    with torch.device("meta"), FlopCounterMode(display=False) as vae_flops:
        AutoencoderKL(**VAE).decode(torch.empty(1, 4, side, side))  # type: ignore[no-untyped-call]
    calls = num_inference_steps + 1  # PNDM repeats one timestep
    return calls * unet_tflop(pixels) + vae_flops.get_total_flops() / 1e12


def unet_tflop(pixels: int) -> float:
    """TFLOP of one UNet call for one guided picture."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    side = pixels // 8
    with torch.device("meta"), FlopCounterMode(display=False) as flops:
        unet = UNet2DConditionModel(**UNET)  # type: ignore[no-untyped-call]
        unet(torch.empty(2, 4, side, side), torch.empty(2), torch.empty(2, 77, 768))
    return flops.get_total_flops() / 1e12


def matrix_tflops(model: Model, size: int = 2048, seconds: float = 2.0) -> float:
    """TFLOP/s of a square matrix product in the model's dtype on its device."""
    import torch

    size = size if model.device.type == "cpu" else 8192
    a = torch.randn(size, size).to(model.device, model.dtype)
    b, products, started = a.t().contiguous(), 0, time.perf_counter()
    with all_cores():
        while time.perf_counter() - started < seconds:
            a @ b
            products += 1
            if model.device.type == "cuda":
                torch.cuda.synchronize()
    return 2 * size**3 * products / (time.perf_counter() - started) / 1e12
