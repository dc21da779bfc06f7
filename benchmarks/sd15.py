"""Stable Diffusion 1.5's real shapes with random weights, made on the spot: no model hub is needed.

The configurations are the ones published in stable-diffusion-v1-5/stable-diffusion-v1-5 (unet, vae,
text_encoder, scheduler). The tokenizer is the embedded model's, stretched to 77 positions.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
}
VAE: dict[str, Any] = {
    "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}


def write_random_sd15(folder: Path, tokenizer: Path, seed: int = 0) -> Path:
    """Write a loadable diffusers folder (2.1 GB, fp16 UNet and VAE, fp32 text encoder) and return it.

    ``tokenizer`` is a folder with vocab.json and merges.txt. An existing complete folder is kept.
    """
    if (folder / "model_index.json").is_file():
        return folder
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(seed)
    shutil.rmtree(folder, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**VAE).half(),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer, model_max_length=77),
        unet=UNet2DConditionModel(**UNET).half(),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial)
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(tokenizer / name, partial / "tokenizer" / name)
    _prefix_text_encoder(partial / "text_encoder" / "model.safetensors")
    for path in partial.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    partial.rename(folder)
    return folder


def _prefix_text_encoder(path: Path) -> None:
    """transformers 5 drops the ``text_model.`` prefix that transformers 4 needs to find the weights."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    named = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in tensors.items()}
    save_file(named, path, metadata={"format": "pt"})


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "out/sd15")
    source = Path(__file__).parent.parent / "model_artifacts" / "shapes" / "tokenizer"
    index = json.loads((write_random_sd15(target, source) / "model_index.json").read_text())
    print(f"{target}: {index['_class_name']}, random weights")
