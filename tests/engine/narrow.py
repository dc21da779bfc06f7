"""The embedded model with a UNet of two levels: what compiles in a fraction of the time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

SHAPES = Path(__file__).parents[2] / "model_artifacts" / "shapes"


def write_narrow_pipeline(folder: Path) -> Path:
    """Writes a model folder into ``folder`` and returns it; random weights, the same every time.

    The channels are the embedded model's, so that oneDNN picks the same kernels for its convolutions.
    """
    model = folder / "narrow"
    shutil.copytree(SHAPES, model, ignore=shutil.ignore_patterns("unet"))
    wanted = json.loads((SHAPES / "unet" / "config.json").read_text())
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=wanted["sample_size"],
        block_out_channels=tuple(wanted["block_out_channels"][:2]),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=wanted["cross_attention_dim"],
        attention_head_dim=wanted["attention_head_dim"],
        norm_num_groups=wanted["norm_num_groups"],
    )
    unet.save_pretrained(model / "unet")
    return model
