"""The arithmetic of docs/engine.md: Stable Diffusion 1.5 in fp16 at 512x512 on a 16 GB card.

Real shapes on the meta device: every tensor's size is known, none is computed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tiny import layers
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.sd15 import TEXT, UNET, VAE
from handler.engine.memory.footprint import measure_footprint
from handler.engine.memory.plan import HEADROOM, Footprint, MemoryPlan
from handler.engine.options import EngineOptions
from handler.model.loras import Lora, LoraLayer
from handler.model.model import Model
from handler.model.safety_checker import SafetyChecker

PIXELS = 512 * 512
T4_BYTES = 15_109 * 2**20  # what nvidia-smi shows of a T4; a P100 has 16,280 MiB
CONTEXT_BYTES = 600 * 2**20  # CUDA context, cuBLAS and cuDNN handles: assumed, not measured here
DOCUMENT = Path(__file__).parents[2] / "docs" / "engine.md"


@pytest.fixture(scope="module")
def sd15() -> Model:
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        text_encoder = layers(CLIPTextModel(CLIPTextConfig(**TEXT)))
    return Model(
        tokenizer=layers(SimpleNamespace(model_max_length=77)),
        text_encoder=text_encoder.half(),
        unet=unet.half(),
        vae=vae.half(),
        scheduler=None,
        device=torch.device("meta"),
        dtype=torch.float16,
        channels_last=False,
        weights_digest="",
    )


@pytest.fixture(scope="module")
def footprint(sd15: Model) -> Footprint:
    return measure_footprint(sd15, 512, 512, EngineOptions(max_steps=100).history_columns)


def weight_bytes(model: Model) -> int:
    parts = (model.unet, model.vae, model.text_encoder)
    return sum(int(tensor.nbytes) for part in parts for tensor in layers(part).parameters())


def test_at_least_eight_images_fit(sd15: Model, footprint: Footprint) -> None:
    free = T4_BYTES - CONTEXT_BYTES - weight_bytes(sd15)
    assert MemoryPlan(int(free * HEADROOM), footprint).places(PIXELS) >= 8


def test_the_document_says_these_numbers(sd15: Model, footprint: Footprint) -> None:
    free = T4_BYTES - CONTEXT_BYTES - weight_bytes(sd15)
    plan = MemoryPlan(int(free * HEADROOM), footprint)
    with torch.device("meta"):
        wide = replace(sd15, unet=UNet2DConditionModel(**{**UNET, "in_channels": 9}).half())
    nine = measure_footprint(wide, 512, 512, EngineOptions(max_steps=100).history_columns)
    assert nine.family_bytes.keys() == {"inpaint"}
    said = DOCUMENT.read_text()
    for name, number in {
        "weights": weight_bytes(sd15),
        "UNet row": footprint.unet_row_bytes * PIXELS,
        "history": footprint.state_bytes * PIXELS,
        "live image": footprint.image_bytes(PIXELS),
        "decoding": footprint.decode_bytes * PIXELS,
        "encoding": footprint.encode_bytes * PIXELS,
        "live image: image to image": footprint.image_bytes(PIXELS, "image_to_image"),
        "live image: inpainting": footprint.image_bytes(PIXELS, "inpaint"),
        "live image: inpainting, UNet of nine channels": nine.image_bytes(PIXELS, "inpaint"),
        "planned": plan.budget_bytes,
    }.items():
        assert f"| {name} | {number / 1e6:,.0f} MB |" in said, name
    assert f"**{plan.places(PIXELS)} live images**" in said


def with_lora(model: Model, rank: int) -> Model:
    """The model with one LoRA of all attention layers of UNet and text encoder."""

    def part(module: Any, ends: tuple[str, ...]) -> dict[str, LoraLayer]:
        return {
            path: LoraLayer(
                torch.empty(rank, layer.in_features, dtype=torch.float16, device="meta"),
                torch.empty(layer.out_features, rank, dtype=torch.float16, device="meta"),
            )
            for path, layer in module.named_modules()
            if path.endswith(ends)
        }

    unet = part(model.unet, ("to_q", "to_k", "to_v", "to_out.0"))
    text = part(model.text_encoder, ("q_proj", "k_proj", "v_proj", "out_proj"))
    return replace(model, loras={"ink": Lora("", 1.0, unet, text)})


def test_a_lora_of_rank_128_is_in_the_plan_and_leaves_room(sd15: Model, footprint: Footprint) -> None:
    model = with_lora(sd15, rank=128)
    assert len(model.loras["ink"].unet) == 128
    lora_bytes = model.loras["ink"].nbytes
    within = measure_footprint(model, 512, 512, EngineOptions(max_steps=100).history_columns)
    assert within.unet_row_bytes >= footprint.unet_row_bytes
    free = T4_BYTES - CONTEXT_BYTES - weight_bytes(sd15) - lora_bytes
    plan = MemoryPlan(int(free * HEADROOM), within)
    assert plan.places(PIXELS) >= 8
    said = DOCUMENT.read_text()
    assert f"| LoRA of rank 128 | {lora_bytes / 1e6:,.0f} MB |" in said
    assert f"| UNet row with it | {within.unet_row_bytes * PIXELS / 1e6:,.0f} MB |" in said
    assert f"**{plan.places(PIXELS)} live images** with that LoRA" in said


def with_checker(model: Model) -> Model:
    """The model with the safety checker that Stable Diffusion 1.5 is published with: CLIP ViT-L/14."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    }
    with torch.device("meta"):
        module = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=768)).half()
    return replace(model, safety_checker=SafetyChecker(module, None, ""))


def test_a_safety_checker_is_in_the_plan_and_leaves_room(sd15: Model) -> None:
    model = with_checker(sd15)
    assert model.safety_checker is not None
    checker_bytes = sum(int(one.nbytes) for one in model.safety_checker.module.parameters())
    within = measure_footprint(model, 512, 512, EngineOptions(max_steps=100).history_columns)
    assert 0 < within.check_bytes < within.decode_bytes * PIXELS
    free = T4_BYTES - CONTEXT_BYTES - weight_bytes(sd15) - checker_bytes
    plan = MemoryPlan(int(free * HEADROOM), within)
    assert plan.places(PIXELS) >= 70, "what docs/engine.md says"
    assert f"| safety checker | {checker_bytes / 1e6:,.0f} MB |" in DOCUMENT.read_text()
