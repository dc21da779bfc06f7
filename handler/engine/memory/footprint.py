"""What an image takes while it is drawn, measured at the start on the very device."""

from __future__ import annotations

import weakref
from typing import Any, Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from handler.engine.families.served import served_families
from handler.engine.loras import RowLoras, all_loras
from handler.engine.memory.plan import Footprint
from handler.model.model import Model

FP32_BYTES = 4


def measure_footprint(model: Model, width: int, height: int, history_columns: int) -> Footprint:
    """Runs one UNet row, one decoding, one encoding and one check of that size and notes their peaks.

    The row follows all of the archive's LoRAs: no row takes more.

    ``history_columns``: fp32 latents a sampler keeps per image (``linear.LinearTimestepPlan.columns``).
    """
    # Beside graphs, what the other sizes take: a replay allocates nothing.
    unet = getattr(model.unet, "plain", model.unet)
    loras = RowLoras(unet, {name: lora.unet for name, lora in model.loras.items()})
    pixels, shape = width * height, (1, model.latent_channels, *model.latent_size(width, height))
    latent = torch.zeros(shape, device=model.device, dtype=model.dtype)
    rows = latent.new_zeros(1, model.unet_channels, *shape[2:])
    source = latent.new_zeros(1, 3, height, width)
    text = torch.zeros(1, *model.text_shape, device=model.device, dtype=model.dtype)

    def denoise() -> object:
        width = model.guidance_width
        extra = None if width is None else latent.new_zeros(1, width)
        with loras.added([all_loras(model)]):
            return unet(rows, 1, encoder_hidden_states=text, timestep_cond=extra, return_dict=False)

    def decode() -> object:
        return model.vae.decode(latent.to(model.vae.dtype), return_dict=False)

    def encode() -> object:
        return model.vae.encode(source.to(model.vae.dtype), return_dict=False)

    def check() -> object:
        checker = model.safety_checker
        return checker and checker.embed(latent.new_zeros(1, 3, checker.side, checker.side))

    with torch.inference_mode():
        row, picture, encoding = (
            peak_bytes(call, model.device) / pixels for call in (denoise, decode, encode)
        )
        checking = peak_bytes(check, model.device)
    state = history_columns * latent.numel() * 4 / pixels
    return Footprint(row, picture, state, encoding, family_bytes(model), checking)


def family_bytes(model: Model) -> dict[str, float]:
    """What a live image of each served family holds beside its history, in bytes per pixel, by its name."""
    channels = model.latent_channels
    beside = (model.unet_channels - channels) * model.dtype.itemsize
    kept = (2 * channels + 1) * FP32_BYTES  # mask, latent and noise
    held = {"text_to_image": 0, "image_to_image": 0, "inpaint": beside or kept}
    return {name: held[name] / model.latent_factor**2 for name in served_families(model)}


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes that tensors made inside ``call`` took at one moment."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    return _traced_peak_bytes(call)


def _traced_peak_bytes(call: Callable[[], object]) -> int:
    """As above where the allocator keeps no statistics: counts each new storage until it is freed."""
    known: set[int] = set()
    # Kept until the end: the next storage could otherwise lie at the address of one that is known.
    not_counted: list[torch.UntypedStorage] = []
    held = {"now": 0, "peak": 0}

    def release(address: int, size: int) -> None:
        known.discard(address)
        held["now"] -= size

    def count(storage: torch.UntypedStorage) -> None:
        if storage._cdata not in known:
            known.add(storage._cdata)
            held["now"] += storage.nbytes()
            held["peak"] = max(held["peak"], held["now"])
            weakref.finalize(storage, release, storage._cdata, storage.nbytes())

    def exclude(storage: torch.UntypedStorage) -> None:
        if storage._cdata not in known:
            known.add(storage._cdata)
            not_counted.append(storage)

    class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, torch.Tensor):
                    exclude(tensor.untyped_storage())  # weights: there before
            outputs = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(outputs):
                if isinstance(tensor, torch.Tensor):
                    count(tensor.untyped_storage())
            return outputs

    with Trace():  # type: ignore[no-untyped-call]
        call()
    return held["peak"]
