"""Attention's query, key and value as one product: fewer and larger kernels, where launching costs time."""

from __future__ import annotations

from typing import Any

import torch

from handler.engine.loras import PARTS
from handler.model.model import Model


def fuse_projections(model: Model) -> None:
    """diffusers' ``fuse_qkv_projections`` on UNet and autoencoder, in place; no other weights stay behind.

    Models with added key and value projections, which diffusers refuses, stay as they are.
    """
    parts: tuple[Any, ...] = (model.unet, model.vae)
    for part in parts:
        try:
            part.fuse_qkv_projections()
        except ValueError:
            continue
        for module in part.modules():
            if is_fused(module):
                _share_weights(module)


def is_fused(module: Any) -> bool:
    """Whether this attention, or any within this module, calls its projections as one."""
    return any(getattr(inner, "fused_projections", False) for inner in module.modules())


def _share_weights(attention: Any) -> None:
    """Makes the plain projections views of the fused one, which diffusers keeps as copies."""
    for fused_name, names in PARTS.items():
        fused = getattr(attention, fused_name, None)
        if fused is None:
            continue
        fused.requires_grad_(False)
        projections = [getattr(attention, name) for name in names]
        lengths = [projection.out_features for projection in projections]
        for kind in ("weight", "bias"):
            whole = getattr(fused, kind)
            if whole is not None:
                for projection, rows in zip(projections, whole.data.split(lengths)):
                    setattr(projection, kind, _parameter(rows))


def _parameter(rows: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(rows, requires_grad=False)
