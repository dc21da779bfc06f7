"""A safety checker small enough for tests: diffusers' own classes with random weights, and folders of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

NEVER = 2.0
"""A threshold that no cosine reaches."""
SIDE = 32


def make_checker() -> tuple[Any, Any]:
    """StableDiffusionSafetyChecker and CLIPImageProcessor; nothing is flagged yet."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
    }
    module = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=8)).eval()
    for name in ("concept_embeds", "special_care_embeds"):
        getattr(module, name).data.normal_()
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        getattr(module, name).data.fill_(NEVER)
    return module, CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE)


def flag_half(module: Any, extractor: Any, pictures: Sequence[Image.Image]) -> None:
    """Sets one concept and its threshold so that about half of the pictures are flagged."""
    pixels = extractor(list(pictures), return_tensors="pt").pixel_values
    with torch.no_grad():
        embeddings = module.visual_projection(module.vision_model(pixels)[1])
        embeddings = torch.nn.functional.normalize(embeddings)
        spread = embeddings - embeddings.mean(dim=0)
        direction = torch.linalg.svd(spread).Vh[0]
        module.concept_embeds[3] = direction
        cosines = (embeddings @ torch.nn.functional.normalize(direction, dim=0)).sort().values
        middle = len(cosines) // 2
        module.concept_embeds_weights[3] = (cosines[middle - 1] + cosines[middle]) / 2


def pack_checker(folder: Path, module: Any, extractor: Any) -> None:
    """Adds the checker to a saved diffusers folder, as published ones hold it."""
    module.save_pretrained(folder / "safety_checker")
    extractor.save_pretrained(folder / "feature_extractor")
    index = json.loads((folder / "model_index.json").read_text())
    index.update(
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
