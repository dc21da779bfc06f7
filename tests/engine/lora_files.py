"""LoRA files as trainers write them, with random weights, for the tiny pipeline or any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from tiny import layers

from handler.contract.job import Job, LoraWeight

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
MORE = (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "time_emb_proj", "fc1", "fc2")
OLD_PROJECTIONS = {
    "q_proj": "to_q",
    "k_proj": "to_k",
    "v_proj": "to_v",
    "out_proj": "to_out",
    "to_out.0": "to_out",
}

ASKED: tuple[Mapping[str, float], ...] = ({"a": 0.7}, {"b": 1.2}, {}, {"a": 0.5, "b": 0.9})
"""The rows of the oracle's calls: LoRAs and their weights."""


def make_loras(pipeline: StableDiffusionPipeline) -> dict[str, dict[str, torch.Tensor]]:
    """The two of the oracle: ``a`` in peft's names, ``b`` in kohya's with alphas and more layers."""
    return {"a": peft_names(pipeline, seed=1, rank=4), "b": kohya_names(pipeline, seed=2, rank=6, alpha=3.0)}


def pairs(
    pipeline: StableDiffusionPipeline, seed: int, rank: int, ends: tuple[str, ...] = ATTENTION
) -> Iterator[tuple[str, str, torch.Tensor, torch.Tensor]]:
    """Component, path, down and up of each layer whose path ends so."""
    chance = torch.Generator().manual_seed(seed)
    for component in ("unet", "text_encoder"):
        for path, module in sorted(layers(getattr(pipeline, component)).named_modules()):
            if not path.endswith(ends) or not hasattr(module, "weight"):
                continue
            outputs, inputs, *kernel = module.weight.shape
            down = torch.randn(rank, inputs, *kernel, generator=chance) * 0.3
            up = torch.randn(outputs, rank, *kernel, generator=chance) * 0.3
            yield component, path, down, up


def peft_names(pipeline: StableDiffusionPipeline, seed: int, rank: int) -> dict[str, torch.Tensor]:
    """As ``StableDiffusionPipeline.save_lora_weights`` writes them today."""
    tensors = {}
    for component, path, down, up in pairs(pipeline, seed, rank):
        stem = f"{component}.{with_text_model(component, path)}"
        tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = down, up
    return tensors


def diffusers_names(pipeline: StableDiffusionPipeline, seed: int, rank: int) -> dict[str, torch.Tensor]:
    """As diffusers before 0.20 wrote them: processors in the UNet, ``to_q_lora`` in both."""
    tensors = {}
    for component, path, down, up in pairs(pipeline, seed, rank):
        end = next(end for end in ATTENTION if path.endswith(end))
        attention = with_text_model(component, path)[: -len(end) - 1]
        processor = ".processor" if component == "unet" else ""
        stem = f"{component}.{attention}{processor}.{OLD_PROJECTIONS.get(end, end)}_lora"
        tensors[f"{stem}.down.weight"], tensors[f"{stem}.up.weight"] = down, up
    return tensors


def kohya_names(
    pipeline: StableDiffusionPipeline, seed: int, rank: int, alpha: float, ends: tuple[str, ...] = MORE
) -> dict[str, torch.Tensor]:
    """As kohya's sd-scripts write them, with an alpha for each layer."""
    tensors = {}
    for component, path, down, up in pairs(pipeline, seed, rank, ends):
        flat = with_text_model(component, path).replace(".", "_")
        stem = f"lora_{'unet' if component == 'unet' else 'te'}_{flat}"
        tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = down, up
        tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


def with_text_model(component: str, path: str) -> str:
    """The path as every transformers before 5 calls it."""
    bare = path.removeprefix("text_model.")
    return f"text_model.{bare}" if component == "text_encoder" else path


def save(path: Path, tensors: Mapping[str, torch.Tensor], **metadata: str) -> Path:
    """Writes a safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata or None)
    return path


def asked(weights: Mapping[str, float]) -> tuple[LoraWeight, ...]:
    return tuple(LoraWeight(name, weight) for name, weight in weights.items())


def oracle_jobs(make_job: Any) -> list[Job]:
    """One for each of ASKED; different texts, schedulers and seeds."""
    schedulers = ("PNDM", "Euler", "DDIM", "DPM++ 2M")
    return [
        make_job(text, negative_prompt="grey", scheduler=scheduler, seed=number, loras=asked(weights))
        for number, (text, scheduler, weights) in enumerate(
            zip(("a cat", "a dog", "a cat", "x"), schedulers, ASKED, strict=True)
        )
    ]


def unet_inputs(pipeline: StableDiffusionPipeline) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples, timesteps and texts of the oracle's call of the UNet."""
    chance = torch.Generator().manual_seed(9)
    width = layers(pipeline.unet).config.cross_attention_dim
    texts = torch.randn(4, 16, width, generator=chance)
    return torch.randn(4, 4, 8, 8, generator=chance), torch.tensor([900.0, 500.0, 300.0, 40.0]), texts


def checksum(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    """Tells whether the pipeline has the weights that the oracle was made with."""
    parts = (layers(pipeline.unet), layers(pipeline.text_encoder), layers(pipeline.vae))
    tensors = [tensor.double().abs().sum() for part in parts for tensor in part.state_dict().values()]
    return torch.stack(tensors).sum()
