"""Loads a Stable Diffusion folder strictly: local safetensors, every tensor accounted for (imports torch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from handler.contract.settings import Settings
from handler.model.device import choose_channels_last, choose_device, choose_dtype, choose_dtype_by_probe
from handler.model.digest import check_digests, file_digests, weights_digest
from handler.model.model import Model, inpainting_channels
from handler.model.safety_checker import load_safety_checker
from handler.model.weights import ModelError, fill, no_storage, read_json

CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
}
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


def load_model(folder: Path, settings: Settings, gpu_id: int | None = None) -> Model:
    """Load a diffusers folder; raises ModelError, DigestError or OSError, whose text names the fault."""
    index = read_json(folder / "model_index.json")
    _check_index(index)
    _refuse_pickles(folder)
    digests = file_digests(folder)
    check_digests(folder.parent, folder.name, digests)
    device = choose_device(settings.device, gpu_id)
    parts = {
        "unet": _empty(diffusers.UNet2DConditionModel, folder / "unet"),
        "vae": _empty(diffusers.AutoencoderKL, folder / "vae"),
        "text_encoder": _empty_text_encoder(folder / "text_encoder"),
    }
    _check_channels(folder, parts["unet"].config.in_channels, parts["vae"].config.latent_channels)
    probe = choose_dtype_by_probe(settings, device, max(parts["unet"].config.block_out_channels))
    dtype = probe.dtype if probe else choose_dtype(settings.dtype, device)
    channels_last = choose_channels_last(settings.channels_last, dtype)
    for name, module in parts.items():
        fill(module, name, folder / name, device, dtype)
        module.requires_grad_(False).eval()
        if channels_last and name != "text_encoder":
            module.to(memory_format=torch.channels_last)
    return Model(
        tokenizer=_load_tokenizer(folder / "tokenizer", parts["text_encoder"].config.vocab_size),
        scheduler=_load_scheduler(index, folder),
        device=device,
        dtype=dtype,
        channels_last=channels_last,
        weights_digest=weights_digest(digests),
        dtype_probe=probe,
        safety_checker=load_safety_checker(folder, index, digests, device, dtype),
        **parts,
    )


def _check_index(index: Mapping[str, Any]) -> None:
    for name, wanted in CLASSES.items():
        given = (index.get(name) or [None, None])[1]
        # transformers 5 may write its fast class's name; both names mean the same tokenizer files.
        if given not in (wanted, f"{wanted}Fast"):
            raise ModelError(f"model_index.json names {given} as {name}; this handler serves {wanted}")


def _check_channels(folder: Path, unet: int, latent: int) -> None:
    if unet not in (latent, inpainting_channels(latent)):
        raise ModelError(
            f"{folder}/unet/config.json says in_channels {unet}; with the autoencoder's {latent} latent"
            f" channels it must be {latent}, or {inpainting_channels(latent)} for inpainting"
        )


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise ModelError(
                f"{path} is a pickle, which can run any code when loaded; only safetensors are read"
            )


def _load_scheduler(index: Mapping[str, Any], folder: Path) -> Any:
    class_name = str((index.get("scheduler") or [None, "PNDMScheduler"])[1])
    kind = getattr(diffusers, class_name, None)
    if kind is None or not class_name.endswith("Scheduler"):
        raise ModelError(f"model_index.json names {class_name} as scheduler; diffusers has no such scheduler")
    return kind.from_pretrained(folder / "scheduler", local_files_only=True)


def _load_tokenizer(folder: Path, vocabulary: int) -> transformers.CLIPTokenizer:
    """transformers 5 makes an empty tokenizer of a folder without files, so the tokenizer is checked, too."""
    whole = (folder / "tokenizer.json").is_file()
    if not whole and not ((folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()):
        raise ModelError(f"{folder} has neither tokenizer.json nor vocab.json and merges.txt")
    tokenizer: transformers.CLIPTokenizer = transformers.CLIPTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    if not 0 < len(tokenizer) <= vocabulary:
        raise ModelError(f"{folder} has {len(tokenizer)} tokens; the text encoder knows {vocabulary}")
    return tokenizer


def _empty(kind: Any, folder: Path) -> Any:
    """A module of a diffusers class as configured in ``folder``, its parameters without storage."""
    config = read_json(folder / "config.json")
    with no_storage():
        return kind.from_config(config)


def _empty_text_encoder(folder: Path) -> transformers.CLIPTextModel:
    config = transformers.CLIPTextConfig.from_dict(read_json(folder / "config.json"))
    with no_storage():
        return transformers.CLIPTextModel(config)
