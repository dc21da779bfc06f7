"""Writing the trained parts as a diffusers folder that old and new library versions read alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.shapes import networks
from pipeline.shapes.vocabulary import load_tokenizer, write_vocabulary

if TYPE_CHECKING:
    from transformers import CLIPTextModel

_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.36.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def save_model(
    folder: Path, unet: networks.Unet, text_encoder: CLIPTextModel, vae: networks.Autoencoder
) -> None:
    """Write the folder: UNet and autoencoder in fp16, the text encoder in fp32, all files with mode 0644.

    The text encoder stays fp32 because transformers 5 keeps a file's fp16 while diffusers upcasts the
    other parts, and the mix crashes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_vocabulary(folder / "tokenizer")
    load_tokenizer(folder / "tokenizer").save_pretrained(folder / "tokenizer")
    _save_half(unet, folder / "unet")
    _save_half(vae, folder / "vae")
    _save_text_encoder(text_encoder, folder / "text_encoder")
    _write_json(folder / "scheduler/scheduler_config.json", networks.SCHEDULER)
    _write_json(folder / "model_index.json", _INDEX)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)  # safetensors writes 0600


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _save_half(network: networks.Unet | networks.Autoencoder, folder: Path) -> None:
    import copy

    copy.deepcopy(network).half().save_pretrained(folder, safe_serialization=True)


def _save_text_encoder(network: CLIPTextModel, folder: Path) -> None:
    """transformers 5 drops the prefix ``text_model.`` on saving; with it, 4.57 and 5 find the weights."""
    from safetensors.torch import save_file

    network.config.architectures = ["CLIPTextModel"]
    network.config.save_pretrained(folder)
    prefix = "text_model."
    named = {prefix + name.removeprefix(prefix): weight for name, weight in network.state_dict().items()}
    weights = {name: weight.contiguous() for name, weight in named.items() if "position_ids" not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
