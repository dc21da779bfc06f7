"""Finds the family of models of a configuration or a checkpoint, so that a refusal can name it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SERVED = "Stable Diffusion 1.x"
SD2_CONTEXT = 1024  # width of SD 2's text encoder; SD 1's is 768
INPAINTING_CHANNELS = 9
INPAINTING = "StableDiffusionInpaintPipeline"
SERVED_PIPELINES = ("StableDiffusionPipeline", INPAINTING)

# The beginnings of diffusers' pipeline classes; longer ones stand before shorter ones.
PIPELINES = {
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "StableDiffusionUpscale": "Stable Diffusion's upscaler",
    "StableDiffusionLatentUpscale": "Stable Diffusion's upscaler",
    "StableDiffusionControlNet": "Stable Diffusion with a ControlNet",
    "StableDiffusionInstructPix2Pix": "InstructPix2Pix",
    "StableCascade": "Stable Cascade",
    "StableVideo": "Stable Video Diffusion",
    "LatentConsistencyModel": "a latent consistency model",
    "Flux2": "FLUX.2",
    "Flux": "FLUX.1",
    "Kandinsky": "Kandinsky",
    "PixArt": "PixArt",
    "Sana": "Sana",
    "IF": "DeepFloyd IF",
    "Wuerstchen": "Wuerstchen",
    "HunyuanDiT": "Hunyuan-DiT",
    "HunyuanVideo": "HunyuanVideo",
    "AuraFlow": "AuraFlow",
    "Lumina": "Lumina",
    "CogVideo": "CogVideoX",
    "CogView": "CogView",
    "LTX": "LTX-Video",
    "Mochi": "Mochi",
    "QwenImage": "Qwen-Image",
    "Wan": "Wan",
    "Chroma": "Chroma",
    "ZImage": "Z-Image",
    "HiDream": "HiDream",
    "AnimateDiff": "AnimateDiff",
}
# Keys of single-file checkpoints, as their own code bases name them.
KEYS = {
    r"conditioner\.embedders\.": "Stable Diffusion XL",
    r"model\.diffusion_model\.label_emb\.": "Stable Diffusion XL",
    r"(model\.diffusion_model\.)?joint_blocks\.": "Stable Diffusion 3",
    r"(model\.diffusion_model\.)?double_blocks\.": "FLUX.1",
    r"cond_stage_model\.model\.": "Stable Diffusion 2.x",
    r"(control_model\.|controlnet_)": "a ControlNet",
    r".*(\.lora_|lora_(unet|te)_|\.hada_|\.lokr_)": "a LoRA, which changes a model and is not a model itself",
}
CONTEXT_KEY = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
INPUT_KEY = "model.diffusion_model.input_blocks.0.0.weight"


def refusal(family: str) -> str:
    """The sentence about a model of another family."""
    return f"this is {family}; marquee serves {SERVED}"


def family_of_pipeline(class_name: object) -> str:
    """The family of a model_index.json's pipeline class; empty for one that is served or not known."""
    if not isinstance(class_name, str) or class_name in SERVED_PIPELINES:
        return ""
    return next((family for start, family in PIPELINES.items() if class_name.startswith(start)), "")


def family_of_unet(config: Any, class_name: object = None) -> str:
    """The family by unet/config.json, for pipelines that share a class; empty where it may be served.

    ``class_name`` is model_index.json's pipeline class: a UNet for inpainting is served under its own alone.
    """
    if not isinstance(config, dict):
        return ""
    if config.get("addition_embed_type") == "text_time":
        return "Stable Diffusion XL"
    if config.get("in_channels") == INPAINTING_CHANNELS and class_name != INPAINTING:
        return "Stable Diffusion for inpainting"
    if config.get("cross_attention_dim") == SD2_CONTEXT:
        return "Stable Diffusion 2.x"
    return ""


def family_of_tensors(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The family by a single-file checkpoint's tensors; empty for Stable Diffusion 1.x and unknown ones."""
    for pattern, family in KEYS.items():
        matching = re.compile(pattern)
        if any(matching.match(name) for name in shapes):
            return family
    contexts = [shapes.get(CONTEXT_KEY.format(block), (0,))[-1:] for block in (1, 2)]
    if (SD2_CONTEXT,) in contexts:
        return "Stable Diffusion 2.x"
    if shapes.get(INPUT_KEY, (0, 0))[1:2] == (INPAINTING_CHANNELS,):
        return "Stable Diffusion for inpainting"
    return ""
