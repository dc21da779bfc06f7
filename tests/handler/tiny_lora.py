"""A LoRA of random weights for the tiny pipeline, as ``marquee build --lora`` packs one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS = {
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": (8, 8),
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v": (16, 8),
    "text_encoder.encoder.layers.0.self_attn.q_proj": (16, 16),
}
"""Inputs and outputs of some layers."""


def write_tiny_lora(root: Path, name: str, seed: int) -> None:
    """Writes loras/NAME.safetensors below ``root``."""
    chance = torch.Generator().manual_seed(seed)
    tensors = {}
    for stem, (inputs, outputs) in LAYERS.items():
        tensors[f"{stem}.down"] = torch.randn(2, inputs, generator=chance)
        tensors[f"{stem}.up"] = torch.randn(outputs, 2, generator=chance)
        tensors[f"{stem}.scale"] = torch.tensor(1.0)
    (root / "loras").mkdir(exist_ok=True)
    save_file(tensors, root / "loras" / f"{name}.safetensors")
